//! Parses the payloads of NOTIFY: hints that carry a number. The log is the source of truth.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::protocol::id::{Seq, SessionId, UserId, VotingId};

/// The names of the NOTIFY channels, as stored in the database. Each ends in a random suffix: a role that knew the
/// names could forge events and read the events of private sessions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Channels {
    /// The channel of session events.
    pub events: String,
    /// The channel of polls whose tally changed.
    pub votes: String,
    /// The channel of access changes.
    pub control: String,
}

impl Channels {
    /// Whether the names are safe in a LISTEN statement, which takes no parameters: lower-case letters, digits and
    /// underscores, at most 63 of them.
    #[must_use]
    pub fn are_plain(&self) -> bool {
        let is_plain = |name: &String| {
            (1..=63).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        [&self.events, &self.votes, &self.control]
            .into_iter()
            .all(is_plain)
    }
}

/// Hides the names, which are secret.
impl fmt::Debug for Channels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Channels(***)")
    }
}

/// One event of a log, as the bytes that clients receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's number.
    pub seq: Seq,
    /// The JSON object `{"seq":…,"type":…,"at":…,"data":…}`, which is never parsed again.
    pub json: Bytes,
    /// Whether the event changes a session's snapshot, which new subscribers receive beside the log.
    pub changes_snapshot: bool,
    /// The poll that the event is about, if any.
    pub(crate) voting: Option<VotingId>,
    /// The database's time of the event, in milliseconds since 1970.
    pub at_ms: Option<u64>,
}

impl Event {
    /// Creates an event from the database's JSON. An event whose type cannot be read counts as a change
    /// of the snapshot.
    #[must_use]
    pub fn new(seq: Seq, json: &str) -> Self {
        #[derive(Deserialize)]
        struct EventHead<'a> {
            r#type: &'a str,
            #[serde(borrow, default)]
            at: Option<&'a str>,
        }
        #[derive(Deserialize)]
        struct About {
            data: VotingRef,
        }
        #[derive(Deserialize)]
        struct VotingRef {
            id: VotingId,
        }
        let kind: Option<EventHead<'_>> = serde_json::from_str(json).ok();
        let is_of = |prefix| {
            kind.as_ref()
                .is_some_and(|kind| kind.r#type.starts_with(prefix))
        };
        let about: Option<About> = is_of("voting.")
            .then(|| serde_json::from_str(json).ok())
            .flatten();
        Self {
            seq,
            json: Bytes::copy_from_slice(json.as_bytes()),
            changes_snapshot: !is_of("chat."),
            voting: about.map(|about| about.data.id),
            at_ms: kind.and_then(|kind| unix_ms(kind.at?)),
        }
    }
}

/// Parses a time of the log, such as `2026-11-22T20:00:00.123Z`, into milliseconds since 1970.
fn unix_ms(at: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| at.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Gregorian days. A year starts on 1 March here, so that the leap day is a year's last.
    let (years, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    const DAYS_BEFORE_1970: u64 = 719_469;
    let hours = 24 * days.checked_sub(DAYS_BEFORE_1970)? + number(11..13)?;
    let seconds = (60 * hours + number(14..16)?) * 60 + number(17..19)?;
    Some(1_000 * seconds + number(20..23)?)
}

/// A notification that a session's log has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The session whose log has grown.
    pub session: SessionId,
    /// The newest number that this notification knows.
    pub seq: Seq,
    /// The event itself, if it fits into a NOTIFY.
    pub event: Option<Event>,
}

/// A notification of an access change. Without a session it concerns every session, without a user every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct AccessChange {
    /// The only session concerned.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// The only user concerned.
    #[serde(default)]
    pub user: Option<UserId>,
}

/// Parses a payload of the event channel. Returns `None` for a payload that our triggers did not write.
#[must_use]
pub fn parse_notice(payload: &str) -> Option<Notice> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        s: Uuid,
        q: u64,
        #[serde(borrow, default)]
        e: Option<&'a RawValue>,
    }
    let envelope: Envelope<'_> = serde_json::from_str(payload).ok()?;
    let seq = Seq(envelope.q);
    Some(Notice {
        session: SessionId(envelope.s),
        seq,
        event: envelope.e.map(|event| Event::new(seq, event.get())),
    })
}

/// Parses a payload of the vote channel.
#[must_use]
pub fn parse_voting(payload: &str) -> Option<VotingId> {
    payload.parse().ok()
}

/// Parses a payload of the control channel. Ignores kinds that only a newer database knows.
#[must_use]
pub fn parse_access_change(payload: &str) -> Option<AccessChange> {
    #[derive(Deserialize)]
    struct Control<'a> {
        kind: &'a str,
        #[serde(flatten)]
        change: AccessChange,
    }
    let control: Control<'_> = serde_json::from_str(payload).ok()?;
    (control.kind == "access").then_some(control.change)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: &str = "00000000-0000-4000-8000-000000000007";

    #[test]
    fn the_time_of_an_event_is_parsed() {
        for (at, ms) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2000-02-29T23:59:59.999Z", Some(951_868_799_999)),
            ("2024-03-01T00:00:00.001Z", Some(1_709_251_200_001)),
            ("2026-11-22T20:00:00.123Z", Some(1_795_377_600_123)),
            ("1969-12-31T23:59:59.999Z", None),
            ("soon", None),
            ("2026-1é-22T20:00:00.123Z", None),
        ] {
            assert_eq!(unix_ms(at), ms, "{at}");
        }
    }

    #[test]
    fn the_event_is_kept_unchanged() {
        let event = r#"{"seq":5,"type":"chat.created","at":"…","data":{"body": "a\u0000 b"}}"#;
        let notice =
            parse_notice(&format!(r#"{{"s":"{SESSION}","q":5,"e":{event}}}"#)).expect("a notice");
        assert_eq!(notice.seq, Seq(5));
        let taken = notice.event.expect("an event");
        assert_eq!(taken.json, event.as_bytes());
        assert!(!taken.changes_snapshot);
    }

    #[test]
    fn an_event_may_be_missing() {
        let notice = parse_notice(&format!(r#"{{"s":"{SESSION}","q":9}}"#)).expect("a notice");
        assert_eq!((notice.seq, notice.event), (Seq(9), None));
    }

    #[test]
    fn an_event_of_a_poll_names_it() {
        let json = format!(r#"{{"seq":1,"type":"voting.opened","data":{{"id":"{SESSION}"}}}}"#);
        assert_eq!(Event::new(Seq(1), &json).voting, SESSION.parse().ok());
        let json = format!(r#"{{"seq":1,"type":"chat.created","data":{{"id":"{SESSION}"}}}}"#);
        assert_eq!(Event::new(Seq(1), &json).voting, None);
    }

    #[test]
    fn only_chat_events_do_not_change_the_snapshot() {
        assert!(
            Event::new(Seq(1), r#"{"seq":1,"type":"voting.opened","data":{}}"#).changes_snapshot
        );
        assert!(Event::new(Seq(1), r#"{"seq":1}"#).changes_snapshot);
    }

    #[test]
    fn an_access_change_may_lack_the_user() {
        let change = parse_access_change(&format!(r#"{{"kind":"access","session":"{SESSION}"}}"#));
        assert_eq!(
            change.and_then(|change| change.session),
            SESSION.parse().ok()
        );
        assert_eq!(parse_access_change(r#"{"kind":"later","x":1}"#), None);
    }

    proptest! {
        #[test]
        fn parsing_any_payload_does_not_panic(payload in ".*") {
            let _ = (parse_notice(&payload), parse_voting(&payload), parse_access_change(&payload));
        }
    }
}
