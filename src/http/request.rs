//! Parses a call into types that hold only valid values: the caller, ids, query and body.
//!
//! A refusal names the invalid field and says what is valid.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use tokio::time::timeout;

use crate::http::error_response;
use crate::http::state::Api;
use crate::limits::REQUEST_BODY_TIMEOUT;
use crate::net::accept::PeerAddress;
use crate::net::accept::handshake_auth::{self, AuthenticatedClient};
use crate::net::queries::Queries;
use crate::postgres::statement::StoreError;
use usher_core::auth::identity::Identity;
use usher_core::limits::FRAME_BYTES_MAX;
use usher_core::protocol::id::{Seq, UserId};
use usher_core::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};
use usher_core::relay::may_write::may_write;

/// A refused call.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The status, if it is not that of the refusal's code.
    status: Option<StatusCode>,
    refusal: Refusal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: None,
            refusal,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self.status {
            Some(status) => error_response::refused_with(status, &self.refusal),
            None => error_response::refused(&self.refusal),
        }
    }
}

/// An authenticated caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The identity for queries.
    pub(crate) identity: Arc<Identity>,
    /// The result of the authentication.
    pub(crate) client: AuthenticatedClient,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let PeerAddress(address) = *parts
            .extensions
            .get()
            .expect("every request is accepted with its address");
        let client = handshake_auth::authenticate(
            &api.handshake,
            address,
            &parts.headers,
            parts.uri.query(),
        )
        .await;
        let client = client.map_err(|(_, refusal)| refusal)?;
        if client.identity.is_none() && !api.connections.rules.allow_anonymous {
            return Err(token_needed().into());
        }
        let identity = client.identity.clone().unwrap_or_else(Identity::nobody);
        Ok(Self { identity, client })
    }
}

/// A caller that may write, as far as the token tells.
#[derive(Debug)]
pub(crate) struct SignedInCaller {
    /// The identity for queries.
    pub(crate) identity: Arc<Identity>,
    /// The user that rate limits count.
    pub(crate) user: UserId,
}

impl FromRequestParts<Api> for SignedInCaller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let TokenBearer(caller) = TokenBearer::from_request_parts(parts, api).await?;
        let user = may_write(&caller.identity)?;
        let identity = caller.identity;
        Ok(Self { identity, user })
    }
}

/// A caller with a token, which may be anonymous.
#[derive(Debug)]
pub(crate) struct TokenBearer(pub(crate) Caller);

impl FromRequestParts<Api> for TokenBearer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let caller = Caller::from_request_parts(parts, api).await?;
        if caller.client.identity.is_none() {
            return Err(token_needed().into());
        }
        Ok(Self(caller))
    }
}

/// The id in a path.
#[derive(Debug)]
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr> FromRequestParts<Api> for Id<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let id = Path::<String>::from_request_parts(parts, api).await;
        let id = id.ok().and_then(|Path(text)| text.parse().ok());
        let refusal = || Refusal::bad_request("the id in the path must be a uuid");
        Ok(Self(id.ok_or_else(refusal)?))
    }
}

/// The parameters of a query. Unknown ones are ignored. Of repeated ones, the last is used.
#[derive(Debug)]
pub(crate) struct QueryParams<'a>(Option<&'a str>);

impl<'a> QueryParams<'a> {
    /// Returns the parameters of a request.
    #[must_use]
    pub(crate) fn of(parts: &'a Parts) -> Self {
        Self(parts.uri.query())
    }

    /// Returns the text of a parameter.
    #[must_use]
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.0?.as_bytes());
        let found = pairs.filter(|(key, _)| key == name).last();
        found.map(|(_, text)| text.into_owned())
    }

    /// Returns a parameter that is the number of an event.
    ///
    /// # Errors
    /// It is not a number.
    pub(crate) fn seq(&self, name: &str) -> Result<Option<Seq>, Refusal> {
        let seq = self.text(name).map(|text| parse_seq(&text));
        let refusal = || Refusal::bad_request(format!("{name} must be a whole number from 0 on"));
        seq.map(|seq| seq.ok_or_else(refusal)).transpose()
    }

    /// Returns a parameter that is a count.
    ///
    /// # Errors
    /// It is not a number of the range.
    pub(crate) fn count(
        &self,
        name: &str,
        range: RangeInclusive<u16>,
        default: u16,
    ) -> Result<u16, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let count = digits(&text).and_then(|text| text.parse().ok());
        count.filter(|count| range.contains(count)).ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            Refusal::bad_request(format!("{name} must be a number from {from} to {to}"))
        })
    }
}

/// Returns the refusal of a call that needs a token.
fn token_needed() -> Refusal {
    let message = "a token is needed: send Authorization: Bearer with one";
    Refusal::of_token(TokenFlaw::Missing, message)
}

/// Returns the answer of the database.
///
/// # Errors
/// `unavailable` or `busy` if another try can help, otherwise `internal`.
pub(crate) fn told<T>(
    answer: Result<T, StoreError>,
    asked: &'static str,
    queries: &Queries,
) -> Result<T, Refusal> {
    let refusal = match answer {
        Err(StoreError::Refused(_) | StoreError::Shape { .. }) => {
            Refusal::new(RefusalCode::Internal, "the database did not answer this")
        }
        Err(StoreError::Locked) => Refusal::busy(),
        Err(StoreError::Unavailable(_)) | Ok(_) => Refusal::unavailable(),
    };
    queries.answered(answer, asked).ok_or(refusal)
}

/// Parses the number of an event: digits, within the range of the database.
#[must_use]
pub(crate) fn parse_seq(text: &str) -> Option<Seq> {
    let number: i64 = digits(text)?.parse().ok()?;
    u64::try_from(number).ok().map(Seq)
}

/// Rejects the plus sign that Rust's parser accepts.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}

/// The text of a JSON body, not parsed yet. It has at most the length of a frame on the socket.
#[derive(Debug)]
pub(crate) struct JsonText(pub(crate) Bytes);

impl FromRequest<Api> for JsonText {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Self::Rejection> {
        if !is_json(request.headers()) {
            return Err(Refused {
                status: Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
                refusal: Refusal::bad_request("Content-Type must be application/json"),
            });
        }
        match timeout(REQUEST_BODY_TIMEOUT, read(request.into_body())).await {
            Ok(read) => read.map(Self),
            Err(_) => Err(Refused {
                status: Some(StatusCode::REQUEST_TIMEOUT),
                refusal: Refusal::bad_request("the body did not come in time"),
            }),
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    let too_large = || {
        let message = format!("the body must have at most {FRAME_BYTES_MAX} bytes");
        Refused::from(Refusal::new(RefusalCode::TooLarge, message))
    };
    if body.size_hint().lower() > FRAME_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut text = BytesMut::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::bad_request("the body broke off"))?;
        if text.len() + chunk.len() > FRAME_BYTES_MAX {
            return Err(too_large());
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text.freeze())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()?.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
