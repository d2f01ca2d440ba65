//! Successful answers.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, BytesMut};
use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::error_response;

/// The body of every successful answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Data<T> {
    /// The result of the call.
    pub(crate) data: T,
}

/// Returns an answer with a value.
#[must_use]
pub(crate) fn data<T: Serialize>(status: StatusCode, data: &T) -> Response {
    error_response::json(status, &Data { data })
}

/// Returns an answer with JSON text, such as the database writes.
#[must_use]
pub(crate) fn data_text(data: &[u8]) -> Response {
    let mut text = BytesMut::with_capacity(data.len() + 16);
    text.put_slice(br#"{"data":"#);
    text.put_slice(data);
    text.put_slice(b"}\n");
    error_response::json_text(StatusCode::OK, Body::from(text.freeze()))
}

/// Returns the JSON of an object: a list of JSON texts, and the fields of another object, which has at least one.
#[must_use]
pub(crate) fn list_and(name: &str, list: &[&[u8]], fields: &Value) -> BytesMut {
    let length: usize = list.iter().map(|item| item.len() + 1).sum();
    let fields = fields.to_string();
    let mut text = BytesMut::with_capacity(length + name.len() + fields.len() + 16);
    text.put_slice(format!(r#"{{"{name}":["#).as_bytes());
    for (place, item) in list.iter().enumerate() {
        if place > 0 {
            text.put_u8(b',');
        }
        text.put_slice(item);
    }
    text.put_slice(b"],");
    text.put_slice(&fields.as_bytes()[1..]);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_spliced_is_untouched() {
        let items: [&[u8]; 2] = [b"{\"a\": 1}", b"2"];
        let text = list_and("items", &items, &json!({ "next": null }));
        assert_eq!(&text[..], br#"{"items":[{"a": 1},2],"next":null}"#);
        let none = list_and("items", &[], &json!({ "next": 7 }));
        assert_eq!(&none[..], br#"{"items":[],"next":7}"#);
    }
}
