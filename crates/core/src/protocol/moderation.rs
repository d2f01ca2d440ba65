//! Parses the calls of streamers and moderators into types that hold only valid values.
//!
//! The rules are those of client frames: an unknown key is ignored, and a value of the wrong type or out of range
//! causes a refusal that names the field. The database decides whether a caller may make a call.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::limits::{
    BALLOT_MOVIES, BAN_REASON_CHARS_MAX, BAN_SECONDS_MAX, QUESTION_CHARS_MAX,
    SLOW_MODE_SECONDS_MAX, VOTING_SECONDS,
};
use crate::protocol::client::{Fields, missing};
use crate::protocol::id::{MessageId, MovieId, SessionId, UserId, VotingId};
use crate::protocol::refusal::Refusal;
use crate::protocol::text::is_line;

/// An action of a streamer or moderator.
#[derive(Debug, PartialEq)]
pub enum Act {
    /// Opens a poll in a session immediately.
    OpenVoting(NewVoting),
    /// Opens or closes a poll, or shows or hides its counts.
    ChangeVoting(VotingId, VotingChange),
    /// Changes the settings of a session's chat.
    ChangeSession(SessionId, SessionChange),
    /// Deletes a message.
    DeleteMessage(MessageId),
    /// Times a user out, or bans the user.
    Ban(SessionId, UserId, NewBan),
    /// Ends a ban or time-out.
    LiftBan(SessionId, UserId),
}

/// A poll to open.
#[derive(Debug, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewVoting {
    /// The session that gets the poll.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub session: SessionId,
    /// The question, one line of text.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 300,
            pattern = r"^[^\u0000]+$",
            examples("What next?")
        )
    )]
    pub question: String,
    /// The movies on the ballot, in order, each once.
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = Vec<uuid::Uuid>, min_items = 2, max_items = 20)
    )]
    pub movies: Vec<MovieId>,
    /// Seconds until the poll closes automatically. Without it, somebody has to close the poll.
    #[cfg_attr(feature = "openapi", schema(minimum = 5, maximum = 604_800))]
    pub closes_in_seconds: Option<u32>,
    /// When viewers see the counts; `live` by default.
    #[cfg_attr(
        feature = "openapi",
        schema(rename = "results_visibility", required = false)
    )]
    pub visibility: ResultsVisibility,
    /// Whether a voter may change their vote; true by default.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub allow_change: bool,
}

/// When viewers see a poll's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(rename_all = "snake_case")
)]
pub enum ResultsVisibility {
    /// While the poll is open.
    Live,
    /// After the poll closes.
    AfterClose,
}

/// A change of a poll: at least one of the fields.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VotingChange {
    /// The new state: `closed` ends the poll, `open` opens a draft.
    pub state: Option<VotingState>,
    /// When viewers see the counts.
    #[cfg_attr(feature = "openapi", schema(rename = "results_visibility"))]
    pub visibility: Option<ResultsVisibility>,
}

/// A state that a call can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(rename_all = "snake_case")
)]
pub enum VotingState {
    /// Open a draft.
    Open,
    /// Close the poll with its final result.
    Closed,
}

/// A change of a session's chat settings: at least one of the fields.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionChange {
    /// Seconds between two messages of one viewer; 0 turns slow mode off.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 21_600))]
    pub slow_mode_seconds: Option<u32>,
    /// Whether viewers may write.
    pub chat_enabled: Option<bool>,
}

/// A ban or time-out.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewBan {
    /// The length of a time-out in seconds; null for a ban without an end. The user of a time-out reads on.
    #[cfg_attr(
        feature = "openapi",
        schema(required = true, minimum = 1, maximum = 31_536_000, examples(600))
    )]
    pub seconds: Option<u32>,
    /// The reason, which other moderators see, in one line of visible text.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000]+$")
    )]
    pub reason: Option<String>,
}

impl ResultsVisibility {
    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::AfterClose => "after_close",
        }
    }
}

impl VotingState {
    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Parses a poll to open in a session.
///
/// # Errors
/// `bad_request` that names the field.
pub fn new_voting(session: SessionId, json: &[u8]) -> Result<NewVoting, Refusal> {
    let mut fields = Fields::parse(json)?;
    let question = words(&mut fields, "question", QUESTION_CHARS_MAX)?;
    Ok(NewVoting {
        session,
        question: question.ok_or_else(|| missing("question", "a string"))?,
        movies: ballot(fields.take("movies"))?,
        closes_in_seconds: number(&mut fields, "closes_in_seconds", VOTING_SECONDS)?,
        visibility: visibility(&mut fields)?.unwrap_or(ResultsVisibility::Live),
        allow_change: flag(&mut fields, "allow_change")?.unwrap_or(true),
    })
}

/// Parses a change of a poll.
///
/// # Errors
/// `bad_request` that names the field.
pub fn voting_change(json: &[u8]) -> Result<VotingChange, Refusal> {
    let mut fields = Fields::parse(json)?;
    let state = match fields.text("state", usize::MAX)?.as_deref() {
        None => None,
        Some("open") => Some(VotingState::Open),
        Some("closed") => Some(VotingState::Closed),
        Some(_) => return Err(Refusal::bad_request("state must be open or closed")),
    };
    let visibility = visibility(&mut fields)?;
    if state.is_none() && visibility.is_none() {
        return Err(nothing("state or results_visibility"));
    }
    Ok(VotingChange { state, visibility })
}

/// Parses a change of a session's chat settings.
///
/// # Errors
/// `bad_request` that names the field.
pub fn session_change(json: &[u8]) -> Result<SessionChange, Refusal> {
    let mut fields = Fields::parse(json)?;
    let slow_mode_seconds = number(&mut fields, "slow_mode_seconds", 0..=SLOW_MODE_SECONDS_MAX)?;
    let chat_enabled = flag(&mut fields, "chat_enabled")?;
    if slow_mode_seconds.is_none() && chat_enabled.is_none() {
        return Err(nothing("slow_mode_seconds or chat_enabled"));
    }
    Ok(SessionChange {
        slow_mode_seconds,
        chat_enabled,
    })
}

/// Parses a ban. The length is required, so that an omitted field does not ban a user permanently.
///
/// # Errors
/// `bad_request` that names the field.
pub fn new_ban(json: &[u8]) -> Result<NewBan, Refusal> {
    let mut fields = Fields::parse(json)?;
    if !fields.has("seconds") {
        return Err(missing("seconds", "a number, or null for a permanent ban"));
    }
    Ok(NewBan {
        seconds: number(&mut fields, "seconds", 1..=BAN_SECONDS_MAX)?,
        reason: words(&mut fields, "reason", BAN_REASON_CHARS_MAX)?,
    })
}

fn ballot(value: Option<Value>) -> Result<Vec<MovieId>, Refusal> {
    let (min, max) = (BALLOT_MOVIES.start(), BALLOT_MOVIES.end());
    let refusal = || Refusal::bad_request(format!("movies must be {min} to {max} different uuids"));
    let Some(Value::Array(items)) = value else {
        return Err(refusal());
    };
    if !BALLOT_MOVIES.contains(&items.len()) {
        return Err(refusal());
    }
    let movie = |item: &Value| item.as_str()?.parse().ok();
    let movies: Option<Vec<MovieId>> = items.iter().map(movie).collect();
    let movies = movies.ok_or_else(refusal)?;
    let different: BTreeSet<_> = movies.iter().collect();
    if different.len() < movies.len() {
        return Err(refusal());
    }
    Ok(movies)
}

fn visibility(fields: &mut Fields) -> Result<Option<ResultsVisibility>, Refusal> {
    match fields.text("results_visibility", usize::MAX)?.as_deref() {
        None => Ok(None),
        Some("live") => Ok(Some(ResultsVisibility::Live)),
        Some("after_close") => Ok(Some(ResultsVisibility::AfterClose)),
        Some(_) => {
            let message = "results_visibility must be live or after_close";
            Err(Refusal::bad_request(message))
        }
    }
}

/// Parses a one-line text that a person wrote.
fn words(fields: &mut Fields, name: &str, chars_max: usize) -> Result<Option<String>, Refusal> {
    let Some(text) = fields.text(name, usize::MAX)? else {
        return Ok(None);
    };
    if !(1..=chars_max).contains(&text.chars().count()) || text.contains('\0') {
        return Err(Refusal::bad_request(format!(
            "{name} must have 1 to {chars_max} characters, none of them U+0000"
        )));
    }
    if !is_line(&text) {
        return Err(Refusal::bad_request(format!(
            "{name} must be one line of visible text"
        )));
    }
    Ok(Some(text))
}

fn number(
    fields: &mut Fields,
    name: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Refusal> {
    let Some(value) = fields.take(name) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (min, max) = (range.start(), range.end());
        Refusal::bad_request(format!("{name} must be a whole number from {min} to {max}"))
    })
}

fn flag(fields: &mut Fields, name: &str) -> Result<Option<bool>, Refusal> {
    match fields.take(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(Refusal::bad_request(format!(
            "{name} must be true or false"
        ))),
    }
}

fn nothing(fields: &str) -> Refusal {
    Refusal::bad_request(format!("nothing to change: give {fields}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVIES: &str =
        r#"["00000000-0000-4000-8000-000000000001","00000000-0000-4000-8000-000000000002"]"#;

    #[test]
    fn a_poll_needs_only_a_question_and_a_ballot() {
        let voting = voting(&format!(r#"{{"question":"Which?","movies":{MOVIES}}}"#)).unwrap();
        assert_eq!(voting.movies.len(), 2);
        assert_eq!(voting.visibility, ResultsVisibility::Live);
        assert!(voting.allow_change && voting.closes_in_seconds.is_none());
    }

    #[test]
    fn a_refusal_names_the_field() {
        let with = |more: &str| format!(r#"{{"question":"Which?","movies":{MOVIES}{more}}}"#);
        for (json, name) in [
            (format!(r#"{{"movies":{MOVIES}}}"#), "question"),
            (
                format!(r#"{{"question":"","movies":{MOVIES}}}"#),
                "question",
            ),
            (
                format!(r#"{{"question":"a\u0000","movies":{MOVIES}}}"#),
                "question",
            ),
            (
                format!(r#"{{"question":"a\nb","movies":{MOVIES}}}"#),
                "question must be one line",
            ),
            (
                format!(r#"{{"question":" \u200b","movies":{MOVIES}}}"#),
                "question must be one line",
            ),
            (r#"{"question":"Which?"}"#.to_owned(), "movies"),
            (
                r#"{"question":"Which?","movies":["x","y"]}"#.to_owned(),
                "movies",
            ),
            (with(r#","closes_in_seconds":4"#), "closes_in_seconds"),
            (
                with(r#","results_visibility":"never""#),
                "results_visibility",
            ),
            (with(r#","allow_change":1"#), "allow_change"),
        ] {
            let refusal = voting(&json).unwrap_err();
            assert!(
                refusal.message.starts_with(name),
                "{json}: {}",
                refusal.message
            );
        }
        let refusal = |refusal: Refusal| refusal.message.into_owned();
        assert!(refusal(voting_change(b"{}").unwrap_err()).contains("state or"));
        assert!(refusal(voting_change(br#"{"state":"draft"}"#).unwrap_err()).contains("state"));
        assert!(refusal(session_change(b"{}").unwrap_err()).contains("chat_enabled"));
        assert!(refusal(new_ban(b"{}").unwrap_err()).starts_with("seconds is missing"));
    }

    #[test]
    fn bounds_hold() {
        let movies = |count: usize| {
            let ids: Vec<String> = (0..count)
                .map(|n| format!(r#""00000000-0000-4000-8000-{n:012}""#))
                .collect();
            format!(r#"{{"question":"Which?","movies":[{}]}}"#, ids.join(","))
        };
        assert!(voting(&movies(*BALLOT_MOVIES.end())).is_ok());
        assert!(voting(&movies(BALLOT_MOVIES.end() + 1)).is_err());
        assert!(voting(&movies(1)).is_err());
        let twice = MOVIES.replace('2', "1");
        assert!(voting(&format!(r#"{{"question":"Which?","movies":{twice}}}"#)).is_err());

        let question = |chars: usize| {
            let text = "é".repeat(chars);
            voting(&format!(r#"{{"question":"{text}","movies":{MOVIES}}}"#))
        };
        assert!(question(QUESTION_CHARS_MAX).is_ok() && question(QUESTION_CHARS_MAX + 1).is_err());

        let closes = |seconds: u32| {
            voting(&format!(
                r#"{{"question":"Which?","movies":{MOVIES},"closes_in_seconds":{seconds}}}"#
            ))
        };
        assert!(closes(*VOTING_SECONDS.start()).is_ok() && closes(*VOTING_SECONDS.end()).is_ok());
        assert!(closes(VOTING_SECONDS.start() - 1).is_err());
        assert!(closes(VOTING_SECONDS.end() + 1).is_err());

        let slow = |seconds: u32| {
            session_change(format!(r#"{{"slow_mode_seconds":{seconds}}}"#).as_bytes())
        };
        assert!(slow(SLOW_MODE_SECONDS_MAX).is_ok() && slow(SLOW_MODE_SECONDS_MAX + 1).is_err());

        let ban = |seconds: u32, reason: usize| {
            let reason = "x".repeat(reason);
            new_ban(format!(r#"{{"seconds":{seconds},"reason":"{reason}"}}"#).as_bytes())
        };
        assert!(ban(BAN_SECONDS_MAX, BAN_REASON_CHARS_MAX).is_ok());
        assert!(ban(BAN_SECONDS_MAX + 1, 1).is_err() && ban(0, 1).is_err());
        assert!(ban(1, BAN_REASON_CHARS_MAX + 1).is_err());
        assert_eq!(new_ban(br#"{"seconds":null}"#).unwrap().seconds, None);
    }

    fn voting(json: &str) -> Result<NewVoting, Refusal> {
        new_voting(SessionId(uuid::Uuid::nil()), json.as_bytes())
    }
}
