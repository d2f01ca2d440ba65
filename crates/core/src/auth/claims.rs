//! Checks the claims of a verified token and derives the caller's identity.
//!
//! Dates are compared with the caller's `now`, because the core has no clock.
//!
//! Does not use a library: jsonwebtoken's validation reads the system's clock, accepts text that Postgres cannot store,
//! and knows neither `role` nor `usher_overlay`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{
    auth::identity::{Identity, Role},
    limits::{
        ACCESS_TOKEN_BYTES_MAX, EXPIRES_AT_MAX, REFUSED_ISSUER_CHARS_MAX, REPEATED_CHARS_MAX,
        TOKEN_LEEWAY_SECONDS,
    },
    protocol::id::UserId,
};

/// The audience that a signed-in user's token must have.
const AUDIENCE: &str = "authenticated";

/// The claims that are checked here. Each may be given only once.
const CHECKED: [&str; 7] = ["exp", "nbf", "role", "sub", "aud", "iss", "usher_overlay"];

/// The reason why a token is refused, in words that its bearer may read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is not three parts of base64url.
    #[error("not a token: a JWT is three base64url parts with a dot between them")]
    Malformed,
    /// The first part is not a JWT header.
    #[error("token header {problem}")]
    Header {
        /// The header's flaw.
        problem: &'static str,
    },
    /// The second part is not a JSON object.
    #[error("token payload is not a JSON object of claims")]
    Payload,
    /// A claim that Postgres cannot store, or that two parsers would read differently.
    #[error("claim {claim} {problem}")]
    Unstorable {
        /// The claim's name, printable and shortened.
        claim: String,
        /// The claim's flaw.
        problem: &'static str,
    },
    /// The token is longer than the bound.
    #[error("token is longer than {ACCESS_TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    /// The client sent one of Supabase's secret keys in the place of a token.
    #[error("a secret key must never be sent by a client: send the user's access token")]
    SecretKey,
    /// No key of the project uses the algorithm that the header names.
    #[error("header alg fits no key of this project: it must be {accepted}")]
    WrongAlgorithm {
        /// The algorithms of the project's keys.
        accepted: String,
    },
    /// The signing key is not known. It may be new.
    #[error("signed with a key that this project does not publish: get a new token")]
    UnknownKey,
    /// Another key signed the token, or it was changed after the signature.
    #[error("signature does not match: the token belongs to another project, or was altered")]
    BadSignature,
    /// A required claim is missing.
    #[error("claim {claim} is missing: it must be {expected}")]
    Missing {
        /// The claim's name.
        claim: &'static str,
        /// The expected value, in words.
        expected: &'static str,
    },
    /// A claim has the wrong value.
    #[error("claim {claim} is wrong: it must be {expected}")]
    Wrong {
        /// The claim's name.
        claim: &'static str,
        /// The expected value, in words.
        expected: &'static str,
    },
    /// The issuer is not accepted. The message names no host, because the client may read it.
    #[error(
        "claim iss is wrong: this gateway does not accept tokens of that issuer (its operator sets USHER_ISSUER)"
    )]
    UnknownIssuer {
        /// The issuer, printable and shortened. Only for the operator.
        given: String,
    },
    /// The gateway does not act as this role.
    #[error("claim role is `{role}`: it must be anon or authenticated")]
    RefusedRole {
        /// The role, printable and shortened.
        role: String,
    },
    /// The token has expired.
    #[error("token has expired (claim exp): get a new one")]
    Expired,
    /// The token is not valid yet.
    #[error("token is not valid yet (claim nbf): check the clock of the server that issued it")]
    NotYetValid,
}

/// Returns the identity of the bearer of a token with this payload at `now`.
pub(crate) fn identity(
    payload: String,
    issuers: &[String],
    now: u64,
) -> Result<Identity, TokenError> {
    let claims: Claims = serde_json::from_str(&payload).map_err(|_| unreadable(&payload))?;
    let expires_at = claims.lifetime(now)?;
    let role = claims.role()?;
    let subject = match role {
        // The id identifies an overlay's token: one such token can be revoked or resumed.
        Role::Anon if claims.usher_overlay.is_some() => Some(claims.subject()?),
        // The legacy anon key has no subject and no audience, and its issuer is the word "supabase".
        Role::Anon => None,
        Role::Authenticated => {
            claims.check_audience()?;
            claims.check_issuer(issuers)?;
            Some(claims.subject()?)
        }
    };
    Ok(Identity {
        subject,
        role,
        claims: payload.into(),
        expires_at: Some(expires_at),
    })
}

/// The checked claims. Their values may have any type, so that the error can name the wrong one. A null
/// counts as absent.
#[derive(Default)]
struct Claims {
    exp: Option<Value>,
    nbf: Option<Value>,
    role: Option<Value>,
    sub: Option<Value>,
    aud: Option<Value>,
    iss: Option<Value>,
    usher_overlay: Option<Value>,
}

impl Claims {
    fn forget_nulls(&mut self) {
        for claim in [
            &mut self.exp,
            &mut self.nbf,
            &mut self.role,
            &mut self.sub,
            &mut self.aud,
            &mut self.iss,
            &mut self.usher_overlay,
        ] {
            claim.take_if(|value| value.is_null());
        }
    }

    /// Returns the expiry after checking both dates.
    fn lifetime(&self, now: u64) -> Result<u64, TokenError> {
        let expected = "a time in seconds since 1970";
        let exp = required("exp", expected, self.exp.as_ref())?;
        let expires_at = seconds(exp).ok_or(TokenError::Wrong {
            claim: "exp",
            expected,
        })?;
        // Without leeway: a socket that opens and then closes as expired would reset its client's backoff.
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        if let Some(nbf) = &self.nbf {
            let valid_from = seconds(nbf).ok_or(TokenError::Wrong {
                claim: "nbf",
                expected,
            })?;
            if now.saturating_add(TOKEN_LEEWAY_SECONDS) < valid_from {
                return Err(TokenError::NotYetValid);
            }
        }
        Ok(expires_at)
    }

    fn role(&self) -> Result<Role, TokenError> {
        let expected = "anon or authenticated";
        let role = required("role", expected, self.role.as_ref())?;
        match role.as_str() {
            Some("anon") => Ok(Role::Anon),
            Some("authenticated") => Ok(Role::Authenticated),
            Some(other) => Err(TokenError::RefusedRole {
                role: printable(other),
            }),
            None => Err(TokenError::Wrong {
                claim: "role",
                expected,
            }),
        }
    }

    fn subject(&self) -> Result<UserId, TokenError> {
        let expected = "the uuid of the user, or of the overlay token";
        required("sub", expected, self.sub.as_ref())?
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or(TokenError::Wrong {
                claim: "sub",
                expected,
            })
    }

    /// Checks the audience, which may be one string or several (RFC 7519 §4.1.3).
    fn check_audience(&self) -> Result<(), TokenError> {
        let expected = "\"authenticated\", alone or in a list";
        let aud = required("aud", expected, self.aud.as_ref())?;
        let is_ours = aud == AUDIENCE
            || aud
                .as_array()
                .is_some_and(|several| several.iter().any(|one| one == AUDIENCE));
        is_ours.then_some(()).ok_or(TokenError::Wrong {
            claim: "aud",
            expected,
        })
    }

    /// Checks the issuer; without configured issuers, any is accepted. A trailing slash is ignored, because auth
    /// servers differ in it.
    fn check_issuer(&self, issuers: &[String]) -> Result<(), TokenError> {
        if issuers.is_empty() {
            return Ok(());
        }
        let expected = "the URL of the auth server that issued the token";
        let iss = required("iss", expected, self.iss.as_ref())?;
        let given = iss.as_str().ok_or(TokenError::Wrong {
            claim: "iss",
            expected,
        })?;
        let is_given =
            |issuer: &String| issuer.trim_end_matches('/') == given.trim_end_matches('/');
        if issuers.iter().any(is_given) {
            return Ok(());
        }
        let printable = given.chars().filter(|c| !c.is_control());
        Err(TokenError::UnknownIssuer {
            given: printable.take(REFUSED_ISSUER_CHARS_MAX).collect(),
        })
    }
}

/// Returns the claim for which a payload was refused. Parses the payload a second time; accepted payloads are
/// parsed only once.
fn unreadable(payload: &str) -> TokenError {
    let Ok(RawClaims(claims)) = serde_json::from_str(payload) else {
        return TokenError::Payload;
    };
    for (place, (name, value)) in claims.iter().enumerate() {
        let is_repeated = CHECKED.contains(&&**name)
            && claims[..place].iter().any(|(earlier, _)| earlier == name);
        let problem = match serde_json::from_str::<Storable>(value.get()) {
            _ if name.contains('\0') => "contains U+0000, which the database cannot store",
            _ if is_repeated => "is given twice",
            Ok(Storable) => continue,
            // Our only data error is U+0000. All other errors are the parser's.
            Err(error) if error.is_data() => "contains U+0000, which the database cannot store",
            Err(_) => {
                "cannot be stored by the database: half of a surrogate pair, a number out of range, or nested too deep"
            }
        };
        let claim = printable(name);
        return TokenError::Unstorable { claim, problem };
    }
    TokenError::Payload
}

/// Shortens a bearer's text and removes control characters, so that an error can repeat it.
fn printable(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(REPEATED_CHARS_MAX).collect()
}

fn required<'a>(
    claim: &'static str,
    expected: &'static str,
    value: Option<&'a Value>,
) -> Result<&'a Value, TokenError> {
    value.ok_or(TokenError::Missing { claim, expected })
}

/// Parses a NumericDate (RFC 7519 §2), and drops its decimals.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value is not negative, and a large one is reduced to the year 9999 anyway"
)]
#[expect(clippy::cast_sign_loss, reason = "the value is not negative")]
fn seconds(value: &Value) -> Option<u64> {
    let whole = value
        .as_u64()
        .or_else(|| value.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64))?;
    Some(whole.min(EXPIRES_AT_MAX))
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

/// Reads the whole payload strictly, as the database does, so that a claim that Postgres cannot store is refused here.
struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Claims, M::Error> {
        let mut claims = Claims::default();
        while let Some(Name(name)) = map.next_key()? {
            let claim = match &*name {
                "exp" => &mut claims.exp,
                "nbf" => &mut claims.nbf,
                "role" => &mut claims.role,
                "sub" => &mut claims.sub,
                "aud" => &mut claims.aud,
                "iss" => &mut claims.iss,
                "usher_overlay" => &mut claims.usher_overlay,
                other => {
                    check_text(other)?;
                    let Storable = map.next_value()?;
                    continue;
                }
            };
            // Two parsers might pick different values.
            if claim.is_some() {
                return Err(M::Error::custom("a claim is given twice"));
            }
            let value: Value = map.next_value()?;
            if has_nul(&value) {
                return Err(M::Error::custom("U+0000 in a text"));
            }
            *claim = Some(value);
        }
        claims.forget_nulls();
        Ok(claims)
    }
}

/// An object's members in order, with repeated ones and with unparsed values.
struct RawClaims<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawClaims<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawClaimsVisitor)
    }
}

struct RawClaimsVisitor;

impl<'de> Visitor<'de> for RawClaimsVisitor {
    type Value = RawClaims<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut claims = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            claims.push((name, value));
        }
        Ok(RawClaims(claims))
    }
}

/// A name in an object, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value that Postgres can store. Its contents are not kept. The parser bounds the depth.
struct Storable;

impl<'de> Deserialize<'de> for Storable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Storable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value without U+0000")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self, E> {
        check_text(text)?;
        Ok(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self, S::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Self, M::Error> {
        while let Some((Self, Self)) = fields.next_entry()? {}
        Ok(self)
    }
}

/// Refuses U+0000, which Postgres cannot store.
fn check_text<E: serde::de::Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') {
        return Err(E::custom("U+0000 in a text"));
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_790_000_000;
    const USER: &str = "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d";
    const ISSUER: &str = "https://abc.supabase.co/auth/v1";

    #[test]
    fn the_claims_equal_the_signed_text_byte_for_byte() {
        let payload = format!(
            "{{ \"exp\" : {},\n\t\"role\":\"anon\", \"x\": [1, 2.50, \"ü\"]  }}",
            NOW + 1
        );
        assert_eq!(
            &*identity(payload.clone(), &[], NOW).unwrap().claims,
            payload
        );
    }

    #[test]
    fn the_legacy_anon_key_has_neither_subject_nor_audience() {
        let key =
            json!({"iss": "supabase", "ref": "abc", "role": "anon", "iat": 1, "exp": NOW + 9});
        let identity = check(&key).unwrap();
        assert_eq!((identity.role, identity.subject), (Role::Anon, None));
    }

    #[test]
    fn an_overlay_is_anonymous_but_has_a_subject() {
        let mut claims = json!({"role": "anon", "usher_overlay": "a session", "exp": NOW + 9});
        let error = check(&claims).unwrap_err();
        assert!(matches!(error, TokenError::Missing { claim: "sub", .. }));
        claims["sub"] = json!("everybody");
        let error = check(&claims).unwrap_err();
        assert!(matches!(error, TokenError::Wrong { claim: "sub", .. }));

        claims["sub"] = json!(USER);
        let overlay = check(&claims).unwrap();
        let expected = (Role::Anon, Some(USER.parse().unwrap()));
        assert_eq!((overlay.role, overlay.subject), expected);
    }

    #[test]
    fn dates_are_checked_with_leeway_for_nbf_only_and_may_have_decimals() {
        let now = NOW as f64;
        let not_yet = TokenError::NotYetValid;
        let cases = [
            ("exp", json!(NOW + 1), Ok(())),
            ("exp", json!(NOW), Err(TokenError::Expired)),
            ("exp", json!(0), Err(TokenError::Expired)),
            ("exp", json!(now + 1.5), Ok(())),
            ("exp", json!(-1), Err(wrong("exp"))),
            ("exp", json!("1"), Err(wrong("exp"))),
            ("nbf", json!(NOW + 5), Ok(())),
            ("nbf", json!(NOW + 6), Err(not_yet.clone())),
            ("nbf", json!(now + 6.5), Err(not_yet)),
            ("nbf", json!({}), Err(wrong("nbf"))),
        ];
        for (claim, value, expected) in cases {
            let mut claims = good();
            claims[claim] = value;
            assert_eq!(check(&claims).map(|_| ()), expected, "{claims}");
        }
    }

    #[test]
    fn an_expiry_beyond_the_year_9999_is_reduced() {
        let mut claims = good();
        claims["exp"] = json!(1e300);
        let identity = check(&claims).unwrap();
        assert_eq!(identity.expires_at, Some(EXPIRES_AT_MAX));
    }

    #[test]
    fn each_missing_claim_is_named() {
        for claim in ["exp", "role", "sub", "aud", "iss"] {
            for absent in [None, Some(Value::Null)] {
                let mut claims = good();
                match absent {
                    None => drop(claims.as_object_mut().unwrap().remove(claim)),
                    Some(null) => claims[claim] = null,
                }
                let error = check(&claims).unwrap_err();
                let TokenError::Missing { claim: named, .. } = error else {
                    panic!("{claim}: {error}");
                };
                assert_eq!(named, claim);
            }
        }
    }

    #[test]
    fn each_wrong_claim_is_named() {
        for (claim, value) in [
            ("sub", json!("bob")),
            ("sub", json!(7)),
            ("aud", json!("anon")),
            ("aud", json!(["anon", "service"])),
            ("iss", json!("https://evil.example/auth/v1")),
            ("role", json!(["anon"])),
        ] {
            let mut claims = good();
            claims[claim] = value;
            let error = check(&claims).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("claim {claim} is wrong")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_audience_may_be_one_of_several() {
        let mut claims = good();
        claims["aud"] = json!(["other", "authenticated"]);
        assert!(check(&claims).is_ok());
    }

    #[test]
    fn other_roles_are_refused_by_name() {
        for role in [
            "postgres",
            "service_role",
            "supabase_admin",
            "Authenticated",
            "",
        ] {
            let mut claims = good();
            claims["role"] = json!(role);
            let error = check(&claims).unwrap_err();
            assert_eq!(error, TokenError::RefusedRole { role: role.into() });
        }
    }

    #[test]
    fn a_claim_given_twice_is_refused() {
        let payload = format!(
            r#"{{"exp":{},"role":"anon","role":"authenticated"}}"#,
            NOW + 9
        );
        assert_eq!(
            identity(payload, &[ISSUER.to_owned()], NOW),
            Err(unstorable("role", "is given twice"))
        );
        // Claims that are not checked here may repeat: the database uses the last one.
        let payload = format!(r#"{{"exp":{},"role":"anon","x":1,"x":2}}"#, NOW + 9);
        assert!(identity(payload, &[], NOW).is_ok());
    }

    #[test]
    fn a_payload_that_is_not_an_object_is_refused() {
        for payload in [
            "",
            "[]",
            "7",
            "\"role\"",
            "{",
            "{}x",
            "{\"exp\":01}",
            "{\"exp\"}",
        ] {
            assert_eq!(
                identity(payload.to_owned(), &[], NOW),
                Err(TokenError::Payload),
                "{payload}"
            );
        }
    }

    #[test]
    fn a_claim_that_the_database_cannot_store_is_named() {
        const NUL: &str = "contains U+0000, which the database cannot store";
        const OTHER: &str = "cannot be stored by the database: half of a surrogate pair, a number out of range, \
                             or nested too deep";
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (value, problem) in [
            (
                r#"{"a":[1,-2,2.5,true,null,"\u0001",{"b":{}}]}"#.to_owned(),
                None,
            ),
            (r#""a\u0000b""#.to_owned(), Some(NUL)),
            (r#"{"a":["\u0000"]}"#.to_owned(), Some(NUL)),
            (r#"{"a\u0000":1}"#.to_owned(), Some(NUL)),
            (r#""\ud800""#.to_owned(), Some(OTHER)),
            ("1e999".to_owned(), Some(OTHER)),
            (deep(100), None),
            (deep(200), Some(OTHER)),
        ] {
            for name in ["app_metadata", "usher_overlay", "iss"] {
                let payload = format!(
                    r#"{{"exp":{},"role":"anon","sub":"{USER}","{name}":{value}}}"#,
                    NOW + 9
                );
                let answer = identity(payload, &[], NOW).map(|_| ());
                let expected = problem.map_or(Ok(()), |problem| Err(unstorable(name, problem)));
                assert_eq!(answer, expected, "{name}: {value}");
            }
        }
        // The error repeats the claim's name without control characters, and shortened.
        let long = "n".repeat(50);
        let payload = format!(r#"{{"exp":{},"role":"anon","{long}\u0000":1}}"#, NOW + 9);
        assert_eq!(
            identity(payload, &[], NOW),
            Err(unstorable(&long[..40], NUL))
        );
        let error = unstorable("user_metadata", NUL).to_string();
        assert_eq!(
            error,
            "claim user_metadata contains U+0000, which the database cannot store"
        );
    }

    proptest! {
        #[test]
        fn odd_claims_never_panic(exp: f64, nbf: i64, role in ".{0,80}", sub in ".{0,40}", now: u64) {
            let claims = json!({"exp": exp, "nbf": nbf, "role": role, "sub": sub, "aud": [sub]});
            let _ = identity(claims.to_string(), &[], now);
        }
    }

    fn check(claims: &Value) -> Result<Identity, TokenError> {
        identity(claims.to_string(), &[ISSUER.to_owned()], NOW)
    }

    fn unstorable(claim: &str, problem: &'static str) -> TokenError {
        let claim = claim.to_owned();
        TokenError::Unstorable { claim, problem }
    }

    fn wrong(claim: &'static str) -> TokenError {
        let expected = "a time in seconds since 1970";
        TokenError::Wrong { claim, expected }
    }

    fn good() -> Value {
        json!({
            "iss": ISSUER, "sub": USER, "aud": "authenticated", "role": "authenticated",
            "iat": NOW - 10, "exp": NOW + 3600, "email": "a@example.org",
        })
    }
}
