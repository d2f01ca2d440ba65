//! The properties of every parser of untrusted bytes. Each target takes any input and panics if a property fails.
//! `tests/corpus.rs` runs the targets as tests, and `tests/fuzz/fuzz_targets` runs them under libFuzzer.

#![allow(
    dead_code,
    reason = "each fuzz target is a program that uses only one of these functions"
)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use usher::net::accept::handshake::offered_subprotocol;
use usher::net::accept::handshake_auth::credential;
use usher_core::auth::identity::{Credential, Identity, Role};
use usher_core::auth::key_set::KeySet;
use usher_core::auth::verifier::{Verifier, VerifierKeys};
use usher_core::limits::HEADER_BYTES_MAX;
use usher_core::limits::{
    ACCESS_TOKEN_BYTES_MAX, BODY_CHARS_MAX, FRAGMENTS_MAX, FRAME_BYTES_MAX, HISTORY_MAX,
    KEY_ID_BYTES_MAX, RESUME_TOKEN_BYTES_MAX, SIGNING_KEYS_MAX,
};
use usher_core::protocol::client::{ClientFrame, DecodeError, Request, decode};
use usher_core::protocol::deflate::Decompressor;
use usher_core::protocol::framing::{FramePart, Framing};
use usher_core::protocol::id::{Seq, SessionId, UserId, VotingId};
use usher_core::protocol::notify::{parse_access_change, parse_notice, parse_voting};
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::Can;
use usher_core::relay::resume::ResumeKey;
use usher_core::relay::snapshot::{Continuity, Snapshot};
use usher_core::relay::tally::Tally;
use uuid::Uuid;

const SECRET: &str = "the secret of the fuzzer, 32 bytes or more";

/// 2026-09-21, between the dates in the corpus's tokens.
const NOW: u64 = 1_790_000_000;

/// The maximum length of a refusal's message. It names a field and the rule, and never repeats the input.
const MESSAGE_CHARS_MAX: usize = 250;

/// Text frames. An accepted frame stays the same when it is encoded and decoded again. A refusal names the field.
pub(crate) fn frames(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let value: Option<Value> = serde_json::from_str(text).ok();
    match decode(text) {
        Ok(request) => {
            let written = encode(&request).to_string();
            assert_eq!(decode(&written).as_ref(), Ok(&request), "{written}");
            if let (Some(value), Some(id)) = (&value, &request.id) {
                let echoed: Value = serde_json::from_str(id.as_json()).expect("an id is JSON");
                assert_eq!(value["id"], echoed);
            }
            is_within_bounds(&request.frame);
        }
        Err(DecodeError::NotAnObject) => assert!(!value.is_some_and(|value| value.is_object())),
        Err(DecodeError::Refused { id, refusal }) => {
            is_a_named_refusal(&refusal);
            assert!(id.is_none_or(|id| id.as_json().len() <= 6 * 64 + 2));
        }
    }
}

fn is_within_bounds(frame: &ClientFrame) {
    match frame {
        ClientFrame::Auth { token } => assert!(token.len() <= ACCESS_TOKEN_BYTES_MAX),
        ClientFrame::Send(message) => {
            let count = message.body.as_str().chars().count();
            assert!((1..=BODY_CHARS_MAX).contains(&count));
            assert!(!message.body.as_str().contains('\0'));
        }
        ClientFrame::Subscribe(wish) => {
            assert!(wish.history <= HISTORY_MAX);
            if let Some(point) = &wish.resume {
                assert!(i64::try_from(point.seq.0).is_ok());
                let length = point.token.as_ref().map_or(0, String::len);
                assert!(length <= RESUME_TOKEN_BYTES_MAX);
            }
        }
        ClientFrame::Ping | ClientFrame::Unsubscribe { .. } | ClientFrame::Vote(_) => {}
    }
}

fn is_a_named_refusal(refusal: &Refusal) {
    const FIELDS: [&str; 13] = [
        "body",
        "history",
        "id",
        "movie",
        "nonce",
        "reply_to",
        "resume",
        "resume.seq",
        "resume.epoch",
        "session",
        "token",
        "type",
        "voting",
    ];
    let first = refusal.message.split(' ').next().unwrap_or_default();
    assert!(FIELDS.contains(&first), "{}", refusal.message);
    assert!(refusal.message.chars().count() <= MESSAGE_CHARS_MAX);
}

fn encode(request: &Request) -> Value {
    let mut frame = match &request.frame {
        ClientFrame::Auth { token } => json!({"type": "auth", "token": token}),
        ClientFrame::Ping => json!({"type": "ping"}),
        ClientFrame::Send(message) => json!({
            "type": "send", "session": message.session, "body": message.body.as_str(),
            "nonce": message.nonce, "reply_to": message.reply_to,
        }),
        ClientFrame::Subscribe(wish) => {
            let resume = wish
                .resume
                .as_ref()
                .map(|point| json!({"seq": point.seq, "epoch": point.epoch, "token": point.token}));
            json!({
                "type": "subscribe", "session": wish.session, "history": wish.history,
                "resume": resume,
            })
        }
        ClientFrame::Unsubscribe { session } => json!({"type": "unsubscribe", "session": session}),
        ClientFrame::Vote(vote) => {
            json!({"type": "vote", "voting": vote.voting, "movie": vote.movie})
        }
    };
    if let Some(id) = &request.id {
        frame["id"] = serde_json::from_str(id.as_json()).expect("an id is JSON");
    }
    frame
}

/// Bytes of a socket, read in pieces of the size in the first byte. The size of the pieces must not matter. All passed
/// bytes must be frames as tungstenite reads them, each with the shortest possible length field.
pub(crate) fn framing(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let mut whole = Framing::default();
    let passed = whole.pass(bytes);
    let mut pieces = Framing::default();
    let chunks = bytes.chunks(usize::from(*cut).max(1));
    let passed_in_pieces: usize = chunks.map(|chunk| pieces.pass(chunk)).sum();
    assert_eq!(
        (passed, whole.breach()),
        (passed_in_pieces, pieces.breach())
    );
    assert_eq!(passed == bytes.len(), whole.breach().is_none());

    let mut cursor = std::io::Cursor::new(&bytes[..passed]);
    let mut fragments = 0;
    loop {
        let begins = cursor.position();
        let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else {
            return;
        };
        let header_bytes = cursor.position() - begins;
        assert_eq!(
            header.len(length) as u64,
            header_bytes,
            "not the shortest length"
        );
        assert!(length <= i64::MAX as u64);
        let code: u8 = header.opcode.into();
        if code & 8 == 0 {
            fragments = if header.is_final { 0 } else { fragments + 1 };
        }
        assert!(fragments <= FRAGMENTS_MAX);
        cursor.set_position(cursor.position().saturating_add(length));
    }
}

/// Compressed and plain frames of a client. The size of the pieces must not matter. A frame without compression stays
/// the same. A compressed one expands at most to the limit of a message.
pub(crate) fn packed(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let read = |cut: usize| {
        let mut unpacker = Decompressor::default();
        let mut out = BytesMut::new();
        for piece in bytes.chunks(cut.max(1)) {
            unpacker.pass(piece, &mut out);
        }
        (out, unpacker.breach())
    };
    let (whole, breach) = read(bytes.len());
    assert_eq!(read(usize::from(*cut)), (whole.clone(), breach));

    let mut framing = Framing::default();
    let (mut rest, mut messages) = (bytes, 0);
    while let Some(part) = framing.next(rest) {
        let count = match part {
            FramePart::Begun(count) | FramePart::Payload(count) => count,
            FramePart::Header(count, header) => {
                messages += usize::from(header.first() & 0x40 != 0);
                count
            }
        };
        rest = &rest[count..];
    }
    assert!(whole.len() <= bytes.len() + messages * (FRAME_BYTES_MAX + HEADER_BYTES_MAX + 4));
    assert!(messages > 0 || bytes.starts_with(&whole));
}

/// Access tokens: a header and a payload, one per line. An unsigned token is always refused. A signed one is accepted
/// only under HS256. Then its identity matches the claims, and its role is one that the gateway allows.
pub(crate) fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let verifier = Verifier::new(VerifierKeys::from_secret(&SECRET.to_owned().into()));
    refused(verifier.verify(text, NOW));
    let (header, payload) = text.split_once('\n').unwrap_or((text, ""));
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    refused(verifier.verify(&format!("{message}."), NOW));
    refused(verifier.verify(
        &format!("{message}.{}", URL_SAFE_NO_PAD.encode([7; 32])),
        NOW,
    ));

    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    let token = format!("{message}.{}", signature.expect("a key signs anything"));
    match verifier.verify(&token, NOW) {
        Ok(identity) => is_who_the_claims_say(&identity, header, payload),
        Err(error) => {
            let message = error.to_string();
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

fn refused<E: std::fmt::Display>(verified: Result<Identity, E>) {
    assert!(verified.is_err(), "an unsigned token was accepted");
}

fn is_who_the_claims_say(identity: &Identity, header: &str, payload: &str) {
    // A header field that the verifier does not read may contain a number that `Value` cannot represent.
    if let Ok(header) = serde_json::from_str::<Value>(header) {
        assert_eq!(header["alg"], "HS256");
        assert!(header["crit"].is_null());
    }
    assert_eq!(
        &*identity.claims, payload,
        "the database gets the signed claims"
    );
    let claims: Value = serde_json::from_str(payload).expect("accepted claims are JSON");
    assert_eq!(claims["role"], identity.role.as_str());
    assert!(!payload.contains("\\u0000") || !has_nul(&claims));
    let expires_at = identity.expires_at.expect("a token expires");
    assert!(expires_at > NOW && expires_at < 253_402_300_800);
    match identity.role {
        Role::Authenticated => {
            let subject = identity.subject.expect("a user has a subject");
            let said = claims["sub"].as_str().map(str::parse::<UserId>);
            assert_eq!(said, Some(Ok(subject)));
            let audience = claims["aud"].to_string();
            assert!(audience.contains("\"authenticated\""));
        }
        Role::Anon => assert_eq!(
            identity.subject.is_some(),
            claims
                .get("usher_overlay")
                .is_some_and(|session| !session.is_null())
        ),
    }
}

fn has_nul(value: &Value) -> bool {
    value.to_string().contains("\\u0000")
}

/// The answer of a key server. Every key is either used or listed as skipped, and no value in the document works as a
/// signing secret.
pub(crate) fn key_sets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(set) = KeySet::parse(text) else {
        return;
    };
    let document: Value = serde_json::from_str(text).expect("an accepted set is JSON");
    let keys = document["keys"].as_array().expect("a set has keys");
    assert!(set.len() <= SIGNING_KEYS_MAX);
    assert_eq!(set.len() + set.skipped().len(), keys.len());
    for skipped in set.skipped() {
        assert!(skipped.place < keys.len());
        let length = skipped.name.as_ref().map_or(0, String::len);
        assert!(length <= KEY_ID_BYTES_MAX);
    }
    // No public value signs, neither as decoded bytes nor as text.
    let verifier = Verifier::new(VerifierKeys::default().with_published(Arc::new(set)));
    let fields = keys
        .iter()
        .flat_map(|key| ["k", "n", "x", "y"].map(|field| key[field].as_str()));
    let secrets: Vec<&str> = fields.flatten().take(4).chain([text, ""]).collect();
    for secret in secrets {
        let bytes = URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
        for secret in [secret.as_bytes(), &bytes] {
            for algorithm in ["HS256", "RS256", "ES256", "EdDSA", "none"] {
                let header = json!({"alg": algorithm, "kid": keys.first().map(|key| &key["kid"])});
                let claims = json!({"role": "anon", "exp": NOW + 60});
                let message = format!(
                    "{}.{}",
                    URL_SAFE_NO_PAD.encode(header.to_string()),
                    URL_SAFE_NO_PAD.encode(claims.to_string())
                );
                let key = EncodingKey::from_secret(secret);
                let signature =
                    jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
                let token = format!("{message}.{}", signature.expect("a key signs anything"));
                refused(verifier.verify(&token, NOW));
            }
        }
    }
}

/// NOTIFY payloads of all three channels. The parser returns exactly the values in the payload, and an event byte for
/// byte.
pub(crate) fn notices(data: &[u8]) {
    let Ok(payload) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(notice) = parse_notice(payload) {
        let envelope: Value = serde_json::from_str(payload).unwrap_or_default();
        // An event may contain numbers that `Value` cannot represent, because the gateway never parses it.
        if envelope.is_object() {
            assert_eq!(envelope["q"], notice.seq.0);
            let session = envelope["s"]
                .as_str()
                .and_then(|session| session.parse().ok());
            assert_eq!(session, Some(notice.session));
        }
        if let Some(event) = &notice.event {
            let json = std::str::from_utf8(&event.json).expect("an event is text");
            assert!(payload.contains(json), "an event is unchanged");
            assert!(serde_json::from_str::<&RawValue>(json).is_ok());
            assert_eq!(event.seq, notice.seq);
            let fields: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(json).ok();
            let kind = fields.and_then(|fields| fields.get("type")?.get().parse::<Value>().ok());
            let kind = kind.as_ref().and_then(Value::as_str);
            let is_chat = kind.is_some_and(|kind| kind.starts_with("chat."));
            assert!(event.changes_snapshot || is_chat);
        }
        let bare = json!({"s": notice.session, "q": notice.seq}).to_string();
        let again = parse_notice(&bare).expect("an accepted notice is accepted again");
        assert_eq!((again.session, again.seq), (notice.session, notice.seq));
    }
    if let Some(voting) = parse_voting(payload) {
        assert_eq!(parse_voting(&voting.to_string()), Some(voting));
    }
    if let Some(change) = parse_access_change(payload) {
        let control: Value = serde_json::from_str(payload).expect("a change is JSON");
        assert_eq!(control["kind"], "access");
        let names = [&control["session"], &control["user"]].map(|name| !name.is_null());
        assert_eq!(names, [change.session.is_some(), change.user.is_some()]);
    }
}

/// Resume tokens. The bytes as text never open, because the key has not sealed them. A token made from the bytes opens
/// only for its bearer, in its session and before it expires. With one changed byte it no longer opens.
pub(crate) fn resume(data: &[u8]) {
    let key = ResumeKey::new(SECRET.as_bytes());
    let number = |at: usize| {
        let bytes = data.get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let session = SessionId(Uuid::from_u64_pair(number(0), number(8)));
    let user = |subject: u64| Identity {
        subject: Some(UserId(Uuid::from_u64_pair(subject, 1))),
        role: Role::Authenticated,
        ..Identity::anonymous()
    };
    let bearer = if number(16) == 0 {
        Identity::anonymous()
    } else {
        user(number(16))
    };
    let now = number(24);
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(
            key.open(text, &bearer, session, now).is_none(),
            "a forged token opens"
        );
        assert!(
            key.open(&URL_SAFE_NO_PAD.encode(data), &bearer, session, now)
                .is_none()
        );
    }
    let (issued, expires) = (number(32), number(40));
    let flags = data.get(48).copied().unwrap_or(0);
    let can = Can {
        send: flags & 1 != 0,
        vote: flags & 2 != 0,
        moderate: flags & 4 != 0,
    };
    let token = key.seal(&bearer, session, can, issued, expires);
    assert!(token.len() <= RESUME_TOKEN_BYTES_MAX);
    let grant = key.open(&token, &bearer, session, now);
    assert_eq!(grant.is_some(), now < expires);
    if let Some(grant) = grant {
        assert_eq!(
            (grant.session, grant.subject, grant.can),
            (session, bearer.subject, can)
        );
        assert_eq!(grant.issued_at_ms, issued);
    }
    let other = SessionId(Uuid::from_u64_pair(number(0), !number(8)));
    assert!(
        key.open(&token, &bearer, other, now).is_none(),
        "another session"
    );
    assert!(
        key.open(&token, &user(!number(16)), session, now).is_none(),
        "another subject"
    );
    let other_key = ResumeKey::new(b"a key of somebody else, 32 bytes or more");
    assert!(
        other_key.open(&token, &bearer, session, now).is_none(),
        "another key"
    );
    let place = usize::from(data.get(49).copied().unwrap_or(0)) % token.len();
    let letter = char::from(data.get(50).copied().unwrap_or(b'A') & 0x7f);
    let mut changed = token.clone();
    changed.replace_range(place..=place, letter.encode_utf8(&mut [0; 4]));
    assert!(changed == token || key.open(&changed, &bearer, session, now).is_none());
}

/// A handshake: an `Authorization` header, a query string and subprotocols, one per line. A credential is always a part
/// of the input, and the header takes precedence over the query.
pub(crate) fn handshake(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    let authorization = lines.next().unwrap_or_default();
    if let Ok(value) = HeaderValue::from_bytes(authorization) {
        headers.insert(AUTHORIZATION, value);
    }
    let query = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("sec-websocket-protocol", value);
        }
    }
    let found = credential(&headers, query);
    if let Some(token) = &found {
        let is_of_header = String::from_utf8_lossy(authorization).contains(token.as_str());
        let is_of_query = query.is_some_and(|query| {
            query
                .split('&')
                .any(|pair| pair.strip_prefix("access_token=") == Some(token.as_str()))
        });
        assert!(is_of_header || is_of_query);
        match Credential::parse(token) {
            Credential::Absent => {
                assert!(token.trim().is_empty() || token.trim().starts_with("sb_publishable_"));
            }
            Credential::Token(text) => assert_eq!(text, token.trim()),
        }
    }
    let without_query = credential(&headers, None);
    assert!(
        without_query.is_none() || without_query == found,
        "the header takes precedence"
    );
    let echoed = offered_subprotocol(&headers);
    assert!(echoed.is_none_or(|echoed| echoed == "usher.v1"));
}

/// Data from the database: a snapshot of a session on the first line, then a tally, then the same tally with hidden
/// counts. Newer counts win, in any order. A position is exactly one of kept, too old and ahead.
pub(crate) fn snapshots(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.lines();
    let snapshot: Option<Snapshot> = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok());
    let full = lines.next().unwrap_or_default();
    let tally = Tally::parse("e", full, lines.next()).ok();
    let Some(mut snapshot) = snapshot else {
        return;
    };
    for position in [0, snapshot.floor.0, snapshot.head.0, u64::MAX].map(Seq) {
        let continuity = snapshot.continuity(position, None);
        let expected = if position > snapshot.head {
            Continuity::Ahead
        } else if position < snapshot.floor {
            Continuity::TooOld
        } else {
            Continuity::Kept
        };
        assert_eq!(continuity, expected);
        assert_eq!(
            snapshot.continuity(position, Some("another")) == Continuity::Ahead,
            snapshot.epoch != "another" || position > snapshot.head
        );
    }
    for count in [0, 1, HISTORY_MAX, u16::MAX] {
        let before = snapshot.before_newest(count);
        assert!(before <= snapshot.head || before == snapshot.floor);
        assert!(before >= snapshot.floor);
    }
    let Some(tally) = tally else {
        return;
    };
    let known: HashSet<VotingId> = snapshot
        .votings
        .iter()
        .map(|voting| voting.voting)
        .collect();
    snapshot.update(&tally);
    assert!(!snapshot.is_behind(&tally), "the newer counts win");
    let after: HashSet<VotingId> = snapshot
        .votings
        .iter()
        .map(|voting| voting.voting)
        .collect();
    assert_eq!(known, after);
    for sees_hidden in [false, true] {
        assert!(tally.frame(sees_hidden).bytes.len() > 2);
    }
}
