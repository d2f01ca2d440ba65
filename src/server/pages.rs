//! The pages, served from the binary.

use axum::body::Body;
use axum::response::IntoResponse as _;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use rust_embed::RustEmbed;

use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::server::http::refusal_response;

/// Nothing from elsewhere, nothing inline, no framing: hostile chat text finds nothing to work with.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "src/web/"]
#[exclude = "package.json"]
struct Files;

/// Answers with a file of the pages.
pub async fn page(uri: Uri, headers: HeaderMap) -> Response<Body> {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let Some(file) = Files::get(path) else {
        let refusal = Refusal::new(RefusalCode::NotFound, "no such page");
        return refusal_response(StatusCode::NOT_FOUND, &refusal);
    };
    let tag: String = file.metadata.sha256_hash()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = mime_guess::from_path(path).first_or_octet_stream();
        (
            [(header::CONTENT_TYPE, kind.as_ref())],
            file.data.into_owned(),
        )
            .into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
