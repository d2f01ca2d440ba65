//! Resume tokens: the proof that a subject was recently admitted to a session.
//!
//! A token saves the database a query when many clients reconnect. It grants nothing alone: the socket's own JWT must
//! name the same subject and role, and [`Revocations`] voids tokens that were issued before an access change.

use std::collections::HashMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::auth::identity::{Identity, Role};
use crate::limits::{CLOCK_SKEW_MS, RESUME_TOKEN_BYTES_MAX, REVOCATIONS_MAX};
use crate::protocol::id::{SessionId, UserId};
use crate::protocol::notify::AccessChange;
use crate::protocol::server::Can;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 32;
const CLAIMS_BYTES: usize = 1 + 16 + 1 + 16 + 1 + 1 + 8 + 8;
const _: () = assert!((CLAIMS_BYTES + TAG_BYTES) * 4 / 3 + 4 <= RESUME_TOKEN_BYTES_MAX);

/// The contents of a token whose seal is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The session that the subject was admitted to.
    pub session: SessionId,
    /// The admitted subject; `None` for an anonymous viewer.
    pub subject: Option<UserId>,
    /// The subject's permissions.
    pub can: Can,
    /// The time of the question to the database, in milliseconds since 1970.
    pub issued_at_ms: u64,
}

/// The key with which all nodes seal and open tokens.
#[derive(Debug)]
pub struct ResumeKey(hmac::Key);

impl ResumeKey {
    /// Derives the key from the operator's secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Seals a token. `issued_at_ms` is the time of the question to the database, not of the sealing, because an
    /// access change between the two must void the token.
    #[must_use]
    pub fn seal(
        &self,
        identity: &Identity,
        session: SessionId,
        can: Can,
        issued_at_ms: u64,
        expires_at_ms: u64,
    ) -> String {
        let mut bytes = Vec::with_capacity(CLAIMS_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(session.0.as_bytes());
        bytes.push(identity.subject.is_some().into());
        bytes.extend_from_slice(
            identity
                .subject
                .map_or(Uuid::nil(), |user| user.0)
                .as_bytes(),
        );
        bytes.push(role_code(identity.role));
        bytes.push(u8::from(can.send) | u8::from(can.vote) << 1 | u8::from(can.moderate) << 2);
        bytes.extend_from_slice(&issued_at_ms.to_be_bytes());
        bytes.extend_from_slice(&expires_at_ms.to_be_bytes());
        bytes.extend_from_slice(hmac::sign(&self.0, &bytes).as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens a token that this identity shows for this session. Returns `None` for a bad, foreign or expired token: the
    /// client is then admitted through the database.
    #[must_use]
    pub fn open(
        &self,
        token: &str,
        identity: &Identity,
        session: SessionId,
        now_ms: u64,
    ) -> Option<Grant> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        if bytes.len() != CLAIMS_BYTES + TAG_BYTES {
            return None;
        }
        let (claims, tag) = bytes.split_at(CLAIMS_BYTES);
        hmac::verify(&self.0, claims, tag).ok()?;
        let mut rest = claims;
        let version = take::<1>(&mut rest)?[0];
        let sealed_session = SessionId(Uuid::from_bytes(take(&mut rest)?));
        let has_subject = take::<1>(&mut rest)?[0] == 1;
        let subject = UserId(Uuid::from_bytes(take(&mut rest)?));
        let role = take::<1>(&mut rest)?[0];
        let can = take::<1>(&mut rest)?[0];
        let issued_at_ms = u64::from_be_bytes(take(&mut rest)?);
        let expires_at_ms = u64::from_be_bytes(take(&mut rest)?);
        let grant = Grant {
            session,
            subject: has_subject.then_some(subject),
            can: Can {
                send: can & 1 != 0,
                vote: can & 2 != 0,
                moderate: can & 4 != 0,
            },
            issued_at_ms,
        };
        let good = version == VERSION
            && sealed_session == session
            && grant.subject == identity.subject
            && role == role_code(identity.role)
            && now_ms < expires_at_ms;
        good.then_some(grant)
    }
}

/// Decides which tokens are void although their seal is valid.
///
/// Bounded by [`REVOCATIONS_MAX`]. When it is full, it voids every token issued so far. That costs
/// only database queries.
#[derive(Debug, Default)]
pub struct Revocations {
    all_before_ms: u64,
    before_ms: HashMap<(Option<SessionId>, Option<UserId>), u64>,
}

impl Revocations {
    /// Voids the tokens issued so far to the users and sessions of an access change.
    pub fn on_access_change(&mut self, change: AccessChange, now_ms: u64) {
        let key = (change.session, change.user);
        if key == (None, None)
            || (self.before_ms.len() >= REVOCATIONS_MAX && !self.before_ms.contains_key(&key))
        {
            self.void_all(now_ms);
        } else {
            // Another node with another clock may have set the grant's time.
            self.before_ms
                .insert(key, now_ms.saturating_add(CLOCK_SKEW_MS));
        }
    }

    /// Voids every token issued so far, because access changes may have been missed.
    pub fn void_all(&mut self, now_ms: u64) {
        self.all_before_ms = now_ms;
        self.before_ms.clear();
    }

    /// Decides whether a grant is still valid.
    #[must_use]
    pub fn judge(&self, grant: &Grant) -> GrantVerdict {
        let voided = |session, user| self.before_ms.get(&(session, user)).copied().unwrap_or(0);
        let mut limit = self.all_before_ms.max(voided(Some(grant.session), None));
        if let Some(user) = grant.subject {
            limit = limit
                .max(voided(Some(grant.session), Some(user)))
                .max(voided(None, Some(user)));
        }
        if grant.issued_at_ms > limit {
            GrantVerdict::Holds
        } else {
            GrantVerdict::Revoked
        }
    }
}

/// Whether the grant of a resume token is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantVerdict {
    /// It is valid: no access change revoked it since its issue.
    Holds,
    /// An access change revoked it.
    Revoked,
}

fn role_code(role: Role) -> u8 {
    match role {
        Role::Anon => 0,
        Role::Authenticated => 1,
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: SessionId = SessionId(Uuid::from_u128(7));
    const CAN: Can = Can {
        send: true,
        vote: false,
        moderate: true,
    };

    #[test]
    fn a_token_opens_for_the_same_subject_session_and_time() {
        let key = ResumeKey::new(&[7; 32]);
        let token = key.seal(&user(1), SESSION, CAN, 1_000, 1_600);
        assert!(token.len() <= RESUME_TOKEN_BYTES_MAX);
        let grant = key.open(&token, &user(1), SESSION, 1_599).expect("a grant");
        assert_eq!((grant.can, grant.issued_at_ms), (CAN, 1_000));
        assert_eq!(key.open(&token, &user(2), SESSION, 1_001), None);
        assert_eq!(
            key.open(&token, &Identity::anonymous(), SESSION, 1_001),
            None
        );
        let as_anon = Identity {
            role: Role::Anon,
            ..user(1)
        };
        assert_eq!(key.open(&token, &as_anon, SESSION, 1_001), None);
        assert_eq!(
            key.open(&token, &user(1), SessionId(Uuid::nil()), 1_001),
            None
        );
        assert_eq!(key.open(&token, &user(1), SESSION, 1_600), None);
        assert_eq!(
            ResumeKey::new(&[8; 32]).open(&token, &user(1), SESSION, 1_001),
            None
        );
    }

    #[test]
    fn an_access_change_voids_earlier_tokens() {
        let grant = |user: u128, issued_at_ms| Grant {
            session: SESSION,
            subject: Some(UserId(Uuid::from_u128(user))),
            can: CAN,
            issued_at_ms,
        };
        let mut revocations = Revocations::default();
        let user = Some(UserId(Uuid::from_u128(1)));
        revocations.on_access_change(
            AccessChange {
                session: Some(SESSION),
                user,
            },
            5,
        );
        assert!(revoked(&revocations, &grant(1, 5 + CLOCK_SKEW_MS)));
        assert!(!revoked(&revocations, &grant(1, 6 + CLOCK_SKEW_MS)));
        assert!(!revoked(&revocations, &grant(2, 5)));
        revocations.on_access_change(
            AccessChange {
                session: Some(SESSION),
                user: None,
            },
            7,
        );
        assert!(
            revoked(&revocations, &grant(2, 7))
                && !revoked(&revocations, &grant(2, 8 + CLOCK_SKEW_MS))
        );
        let everywhere = AccessChange {
            session: None,
            user,
        };
        revocations.on_access_change(everywhere, 8);
        assert!(
            revoked(&revocations, &grant(1, 8 + CLOCK_SKEW_MS))
                && !revoked(&revocations, &grant(1, 9 + CLOCK_SKEW_MS))
                && !revoked(&revocations, &grant(2, 8 + CLOCK_SKEW_MS))
        );
        revocations.void_all(9);
        assert!(revoked(&revocations, &grant(3, 9)) && !revoked(&revocations, &grant(3, 10)));
    }

    #[test]
    fn when_full_it_voids_everything() {
        let mut revocations = Revocations::default();
        for user in 0..=REVOCATIONS_MAX as u128 {
            let user = Some(UserId(Uuid::from_u128(user)));
            revocations.on_access_change(
                AccessChange {
                    session: Some(SESSION),
                    user,
                },
                5,
            );
        }
        assert_eq!(revocations.all_before_ms, 5);
        assert!(revocations.before_ms.is_empty());
    }

    proptest! {
        #[test]
        fn a_changed_token_never_opens(position in 0usize..112, letter in "[A-Za-z0-9_-]") {
            let key = ResumeKey::new(&[7; 32]);
            let token = key.seal(&user(1), SESSION, CAN, 1_000, 1_600);
            let mut changed = token.clone();
            changed.replace_range(position..=position, &letter);
            prop_assume!(changed != token);
            prop_assert_eq!(key.open(&changed, &user(1), SESSION, 1_001), None);
        }

        #[test]
        fn opening_any_text_does_not_panic(token in ".*") {
            let _ = ResumeKey::new(&[7; 32]).open(&token, &user(1), SESSION, 1);
        }
    }

    fn user(number: u128) -> Identity {
        Identity {
            subject: Some(UserId(Uuid::from_u128(number))),
            role: Role::Authenticated,
            ..Identity::anonymous()
        }
    }

    fn revoked(revocations: &Revocations, grant: &Grant) -> bool {
        revocations.judge(grant) == GrantVerdict::Revoked
    }
}
