//! What the database says by NOTIFY: hints with a number, never the truth.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::protocol::id::{Seq, SessionId, UserId, VotingId};

/// The names of the channels, as the database keeps them. They end in a random suffix: a role that knew them could forge
/// events and overhear private sessions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Channels {
    /// The channel of events.
    pub events: String,
    /// The channel of votings whose tally changed.
    pub votes: String,
    /// The channel of changes in who may do what.
    pub control: String,
}

impl Channels {
    /// Whether the names are safe to write into a LISTEN, which takes no parameters: lower-case letters, digits and
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

/// Hides the names: they are a secret.
impl fmt::Debug for Channels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Channels(***)")
    }
}

/// One event of a log, as the bytes that go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: Seq,
    /// The JSON object `{"seq":…,"type":…,"at":…,"data":…}`, never parsed again.
    pub json: Bytes,
    /// Whether it changes what a new subscriber is told about the session, beside the log.
    pub changes_snapshot: bool,
    /// Which voting it is about, if it is about one.
    pub(crate) voting: Option<VotingId>,
    /// When it was made, by the database's clock: milliseconds since 1970.
    pub at_ms: Option<u64>,
}

impl Event {
    /// Takes an event as the database wrote it. An event whose type cannot be read is taken to change everything.
    #[must_use]
    pub fn new(seq: Seq, json: &str) -> Self {
        #[derive(Deserialize)]
        struct Kind<'a> {
            r#type: &'a str,
            #[serde(borrow, default)]
            at: Option<&'a str>,
        }
        #[derive(Deserialize)]
        struct About {
            data: Voting,
        }
        #[derive(Deserialize)]
        struct Voting {
            id: VotingId,
        }
        let kind: Option<Kind<'_>> = serde_json::from_str(json).ok();
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

/// Milliseconds since 1970 of a time as the log writes it: `2026-11-22T20:00:00.123Z`.
fn unix_ms(at: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| at.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days of the Gregorian calendar, counted from a first of March, so that the leap day is a year's last.
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

/// A hint that a session's log has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose log.
    pub session: SessionId,
    /// The number of its newest event as far as this hint knows.
    pub seq: Seq,
    /// The event itself, where it fits into a NOTIFY.
    pub event: Option<Event>,
}

/// A hint that somebody's access changed. Absent fields mean: every session, every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct AccessChange {
    /// In which session.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// Whose.
    #[serde(default)]
    pub user: Option<UserId>,
}

/// Parses a payload of the channel of events; `None` for what no trigger of ours wrote.
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

/// Parses a payload of the channel of votes.
#[must_use]
pub fn parse_voting(payload: &str) -> Option<VotingId> {
    payload.parse().ok()
}

/// Parses a payload of the channel of access changes. Kinds that a newer database knows are ignored.
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
    fn the_time_of_an_event_is_read() {
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
    fn the_event_is_taken_as_it_is() {
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
    fn an_event_of_a_voting_names_it() {
        let json = format!(r#"{{"seq":1,"type":"voting.opened","data":{{"id":"{SESSION}"}}}}"#);
        assert_eq!(Event::new(Seq(1), &json).voting, SESSION.parse().ok());
        let json = format!(r#"{{"seq":1,"type":"chat.created","data":{{"id":"{SESSION}"}}}}"#);
        assert_eq!(Event::new(Seq(1), &json).voting, None);
    }

    #[test]
    fn only_chat_leaves_the_snapshot_as_it_is() {
        assert!(
            Event::new(Seq(1), r#"{"seq":1,"type":"voting.opened","data":{}}"#).changes_snapshot
        );
        assert!(Event::new(Seq(1), r#"{"seq":1}"#).changes_snapshot);
    }

    #[test]
    fn access_changes_may_name_less() {
        let change = parse_access_change(&format!(r#"{{"kind":"access","session":"{SESSION}"}}"#));
        assert_eq!(
            change.and_then(|change| change.session),
            SESSION.parse().ok()
        );
        assert_eq!(parse_access_change(r#"{"kind":"later","x":1}"#), None);
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(payload in ".*") {
            let _ = (parse_notice(&payload), parse_voting(&payload), parse_access_change(&payload));
        }
    }
}
