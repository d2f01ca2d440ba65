//! Finds event numbers and due times in frames without parsing them.
//!
//! Most frames are event frames. They are searched for two texts: the start of an event (`{"seq":`, which cannot occur
//! inside a JSON string, because its quotes would be escaped), and the mark that this run puts into its messages,
//! followed by the due time. Other frames are rare and parsed.

use std::borrow::Cow;

use memchr::memmem::Finder;
use serde::Deserialize;
use uuid::Uuid;

const EVENT: &[u8] = br#"{"seq":"#;

/// A classified text frame.
#[derive(Debug)]
pub(crate) enum Text<'a> {
    /// Events, to scan.
    Events,
    /// Counts, which have no number and are ignored.
    Counts,
    /// Any other frame, parsed.
    Said(Box<ReceivedFrame<'a>>),
    /// Not an object with a type.
    Unknown,
}

/// The fields of a frame that the load tester uses.
#[derive(Debug, Deserialize)]
pub(crate) struct ReceivedFrame<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    pub(crate) id: Option<u64>,
    pub(crate) server: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) epoch: Option<String>,
    pub(crate) recovered: Option<bool>,
    pub(crate) reason: Option<String>,
    pub(crate) resume_token: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) after_ms: Option<u64>,
    pub(crate) info: Option<Info>,
    #[serde(default)]
    pub(crate) votings: Vec<VotingOptions>,
}

/// A session's info.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) slow_mode_seconds: u32,
    pub(crate) chat_enabled: Option<bool>,
}

/// A poll in `subscribed`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VotingOptions {
    pub voting: Uuid,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) options: Vec<Choice>,
}

/// One option of a poll.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) movie: Uuid,
}

/// An event in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundEvent {
    pub seq: u64,
    /// Its due time, if this run wrote the message.
    pub(crate) due_us: Option<u64>,
}

/// Scans event frames for the mark of one run.
#[derive(Debug)]
pub(crate) struct Scanner {
    event: Finder<'static>,
    mark: Finder<'static>,
}

impl Scanner {
    pub(crate) fn new(run: &str) -> Self {
        Self {
            event: Finder::new(EVENT),
            mark: Finder::new(mark(run).as_bytes()).into_owned(),
        }
    }

    /// Passes on the events of a frame in order.
    pub(crate) fn events(&self, frame: &[u8], mut on_event: impl FnMut(FoundEvent)) {
        let mut rest = frame;
        let Some(start) = self.event.find(rest) else {
            return;
        };
        rest = &rest[start + EVENT.len()..];
        loop {
            let next = self.event.find(rest);
            let event = &rest[..next.unwrap_or(rest.len())];
            let marked = self
                .mark
                .find(event)
                .map(|at| &event[at + self.mark.needle().len()..]);
            on_event(FoundEvent {
                seq: leading_number(event),
                due_us: marked.map(leading_number),
            });
            match next {
                Some(next) => rest = &rest[next + EVENT.len()..],
                None => return,
            }
        }
    }
}

/// Classifies a text frame.
pub(crate) fn read(text: &[u8]) -> Text<'_> {
    if text.starts_with(br#"{"type":"events","#) {
        return Text::Events;
    }
    if text.starts_with(br#"{"type":"tally","#) || text.starts_with(br#"{"type":"viewers","#) {
        return Text::Counts;
    }
    match serde_json::from_slice::<ReceivedFrame<'_>>(text) {
        Ok(said) if said.kind == "events" => Text::Events,
        Ok(said) if said.kind == "tally" || said.kind == "viewers" => Text::Counts,
        Ok(said) => Text::Said(Box::new(said)),
        Err(_) => Text::Unknown,
    }
}

/// Returns the text of a message: the run's mark, the due time, and filler up to the wanted length.
pub(crate) fn body(run: &str, number: u64, due_us: u64, characters: usize) -> String {
    let mut body = format!("{}{due_us} #{number} ", mark(run));
    while body.len() < characters {
        body.push_str("and so the reel turns, ");
    }
    body.truncate(characters.max(mark(run).len() + 20));
    body.truncate(body.trim_end().len());
    body
}

fn mark(run: &str) -> String {
    format!("load {run} ")
}

fn leading_number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_u64, |number, digit| {
        number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn events_are_found_with_their_numbers_and_times() {
        let mine = body("abc", 7, 123_456, 120);
        assert_eq!(mine.len(), 120);
        let frame = frame(&[
            (41, json!({"body": mine, "author": {"username": "nora"}})),
            (42, json!({"body": body("other", 8, 9, 60)})),
            (
                43,
                json!({"body": r#"a quote: {"seq":99,"x":"load abc 5""#}),
            ),
            (44, json!({"question": "What next?"})),
        ]);
        assert!(matches!(read(frame.as_bytes()), Text::Events));
        let mut found = Vec::new();
        Scanner::new("abc").events(frame.as_bytes(), |event| {
            found.push((event.seq, event.due_us))
        });
        // A quoted mark of this run counts as ours. That does not happen in practice, because marks are random.
        assert_eq!(
            found,
            [(41, Some(123_456)), (42, None), (43, Some(5)), (44, None)]
        );
    }

    #[test]
    fn a_frame_without_events_has_none() {
        let scanner = Scanner::new("abc");
        scanner.events(br#"{"type":"events","events":[]}"#, |event| {
            panic!("{event:?}")
        });
        scanner.events(b"", |event| panic!("{event:?}"));
    }

    #[test]
    fn other_frames_are_parsed_and_unknown_keys_ignored() {
        let frame =
            br#"{"type":"subscribed","id":2,"session":"x","epoch":"k3","seq":1300,"recovered":true,
            "reason":null,"resume_token":"t","viewers":8,"info":{"title":"a","slow_mode_seconds":5},
            "votings":[{"voting":"b0115000-0000-4000-8000-000000000001","status":"open","later":1,
            "options":[{"movie":"f1100000-0000-4000-8000-000000000001","title":"a"}]}]}"#;
        let Text::Said(said) = read(frame) else {
            panic!("the frame is not parsed")
        };
        assert_eq!(
            (said.kind.as_ref(), said.seq, said.recovered),
            ("subscribed", Some(1300), Some(true))
        );
        assert_eq!(said.info.unwrap().slow_mode_seconds, 5);
        assert_eq!(
            (
                said.votings[0].options.len(),
                said.votings[0].status.as_str()
            ),
            (1, "open")
        );

        let turned = br#"{"events":[{"seq":1}],"type":"events"}"#;
        assert!(matches!(read(turned), Text::Events));
        assert!(matches!(
            read(br#"{"type":"tally","version":1}"#),
            Text::Counts
        ));
        assert!(matches!(read(b"[1]"), Text::Unknown));
    }

    #[test]
    fn a_short_body_still_has_its_time() {
        let text = body("0a1b2c3d", 1, 9_999_999_999, 1);
        assert!(text.starts_with("load 0a1b2c3d 9999999999"), "{text}");
    }

    fn frame(events: &[(u64, Value)]) -> String {
        let events: Vec<String> = events
            .iter()
            .map(|(seq, data)| {
                format!(r#"{{"seq":{seq},"type":"chat.created","at":"now","data":{data}}}"#)
            })
            .collect();
        format!(
            r#"{{"type":"events","session":"x","events":[{}]}}"#,
            events.join(",")
        )
    }
}
