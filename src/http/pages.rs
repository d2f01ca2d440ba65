//! The pages, served from the binary.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use rust_embed::RustEmbed;

use crate::http::error_response;
use usher_core::protocol::refusal::{Refusal, RefusalCode};

/// No resources of other origins, no inline code, no framing, so that hostile chat text cannot do anything.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "src/web/"]
#[exclude = "package.json"]
struct WebFiles;

/// Answers all other requests with a file of the pages.
pub(crate) async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = file_of(uri.path());
    let path = path.as_ref();
    let Some(file) = WebFiles::get(path) else {
        let refusal = Refusal::new(RefusalCode::NotFound, "there is nothing at this path");
        return error_response::refused(&refusal);
    };
    if method != Method::GET && method != Method::HEAD {
        let refusal = Refusal::bad_request("a page is there to be read: use GET or HEAD");
        let mut response = error_response::refused_with(StatusCode::METHOD_NOT_ALLOWED, &refusal);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return response;
    }
    let tag: String = file.metadata.sha256_hash()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Weak, because a file is sent plain or compressed.
    let tag = format!("W/\"{tag}\"");
    let mut response = if is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = mime_guess::from_path(path).first_or_octet_stream();
        let body = Body::from(file.data.into_owned());
        ([(header::CONTENT_TYPE, kind.as_ref())], body).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Cached, but checked each time, because a file's name does not change with its content.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Returns the file of a path. Pages have no extension in the path.
fn file_of(path: &str) -> Cow<'_, str> {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        "index.html".into()
    } else if path.contains(['.', '/']) {
        path.into()
    } else {
        format!("{path}.html").into()
    }
}

/// Returns whether the client has this version of the file (RFC 9110 §13.1.2: weak comparison with a list).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|known| known.to_str().ok());
    known
        .flat_map(|known| known.split(','))
        .any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}
