//! A client that trusts no answer: it decodes the bytes from the wire and checks every promise of the protocol.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use usher_core::protocol::id::SessionId;
use usher_core::protocol::server::Can;
use usher_core::protocol::websocket;

use crate::database::{self, Database};
use crate::dice::Dice;

/// One client, over all its sockets.
#[derive(Debug)]
pub(crate) struct SimClient {
    pub(crate) user: Option<usize>,
    pub(crate) views: Vec<View>,
    /// The bytes of an incomplete frame.
    partial: Vec<u8>,
}

/// A client's view of one session.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) state: ViewState,
    /// The last number received and its epoch. It outlives the socket.
    pub(crate) position: Option<(u64, String)>,
    tokens: Vec<String>,
    pub(crate) can: Option<Can>,
    pub(crate) version: u64,
    wish: Option<Wish>,
    asked: u32,
    /// The ids of frames that have no answer yet.
    pub(crate) unanswered: BTreeSet<String>,
    pub(crate) recovered: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ViewState {
    #[default]
    Idle,
    Asked,
    Watching,
    Leaving,
    Refused,
}

#[derive(Clone, Debug)]
struct Wish {
    resume: Option<(u64, Option<String>)>,
    history: u64,
    head: u64,
    epoch: String,
}

/// An `events` frame. Its events are compared with the committed ones byte by byte.
#[derive(Deserialize)]
struct Events<'a> {
    session: SessionId,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

impl SimClient {
    pub(crate) fn new(user: Option<usize>, sessions: usize) -> Self {
        let views = (0..sessions).map(|_| View::default()).collect();
        Self {
            user,
            views,
            partial: Vec::new(),
        }
    }

    /// Handles the loss of the socket. Positions and tokens stay.
    pub(crate) fn on_dropped(&mut self) {
        self.partial.clear();
        for view in &mut self.views {
            view.unanswered.clear();
            if view.state != ViewState::Refused {
                view.state = ViewState::Idle;
            }
        }
    }

    /// Builds a subscribe frame: without a position, or from the last position with any earlier token.
    pub(crate) fn subscribe(&mut self, session: usize, dice: &mut Dice, db: &Database) -> String {
        let view = &mut self.views[session];
        let history = dice.pick(&[0, 1, 2, 5, 50]);
        view.asked += 1;
        let id = format!("{session}/{}", view.asked);
        let mut frame = json!({"type": "subscribe", "id": &id, "session": database::session_id(session), "history": history});
        let mut resume = None;
        if let Some((seq, epoch)) = view.position.clone()
            && dice.chance(85)
        {
            let epoch = dice.chance(90).then_some(epoch);
            frame["resume"] = json!({"seq": seq});
            if let Some(epoch) = &epoch {
                frame["resume"]["epoch"] = json!(epoch);
            }
            if !view.tokens.is_empty() && dice.chance(80) {
                let token = if dice.chance(80) {
                    view.tokens.len() - 1
                } else {
                    dice.below(view.tokens.len())
                };
                frame["resume"]["token"] = json!(view.tokens[token]);
            }
            resume = Some((seq, epoch));
        }
        view.unanswered.insert(id);
        view.wish = Some(Wish {
            resume,
            history,
            head: db.head(session),
            epoch: db.epoch_name(),
        });
        view.state = ViewState::Asked;
        frame.to_string()
    }

    /// Builds an unsubscribe frame.
    pub(crate) fn unsubscribe(&mut self, session: usize) -> String {
        self.views[session].state = ViewState::Leaving;
        json!({"type": "unsubscribe", "session": database::session_id(session)}).to_string()
    }

    /// Decodes bytes from the wire.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], db: &Database) -> Result<(), String> {
        self.partial.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.partial);
        let mut rest = bytes.as_slice();
        while let Some((header, payload, after)) = websocket::split(rest) {
            let is_whole_and_plain = header.first() & 0xf0 == 0x80 && !header.is_masked();
            ensure(is_whole_and_plain, "a frame that is cut or masked")?;
            rest = after;
            if header.opcode() == websocket::TEXT {
                let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
                self.on_text(text, db)
                    .map_err(|why| format!("{why}: {text:.300}"))?;
            }
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn on_text(&mut self, text: &str, db: &Database) -> Result<(), String> {
        if text.starts_with(r#"{"type":"events""#) {
            let frame: Events<'_> =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            let session = database::session_of(frame.session);
            return self.views[session].on_events(&frame, session, db);
        }
        let frame = serde_json::from_str(text).map_err(|error| error.to_string())?;
        self.on_frame(&frame, db)
    }

    fn on_frame(&mut self, frame: &Value, db: &Database) -> Result<(), String> {
        let session = frame["session"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .map(database::session_of);
        let user = self.user;
        let view = session.map(|session| &mut self.views[session]);
        match (frame["type"].as_str().unwrap_or_default(), view, session) {
            ("subscribed", Some(view), Some(session)) => view.on_subscribed(frame, session, db)?,
            ("reset", Some(view), Some(session)) => view.on_reset(frame, session, db)?,
            ("tally", Some(view), Some(session)) => {
                let hidden = frame["counts"].is_null();
                ensure(
                    hidden || db.ever_moderated(session, user),
                    "hidden counts were sent to a client that may not see them",
                )?;
                view.on_tally(frame)?;
            }
            ("access", Some(view), Some(_)) => view.can = Some(can(frame)?),
            ("resume_token", Some(view), Some(_)) => view.keep_token(&frame["token"]),
            ("unsubscribed", Some(view), Some(_)) => {
                let withdrawn = frame["reason"].is_string();
                view.state = if withdrawn {
                    ViewState::Refused
                } else {
                    ViewState::Idle
                };
            }
            ("error", _, _) => self.on_error(frame)?,
            (
                "welcome" | "authenticated" | "mine" | "viewers" | "token_expiring" | "pong",
                _,
                _,
            ) => {}
            (other, _, _) => return Err(format!("an unknown frame type: {other:?}")),
        }
        Ok(())
    }

    fn on_error(&mut self, frame: &Value) -> Result<(), String> {
        let id = text(&frame["id"])?;
        let (session, asked) = id
            .split_once('/')
            .ok_or("an error without the id of a subscribe")?;
        let view = &mut self.views[session
            .parse::<usize>()
            .map_err(|error| error.to_string())?];
        ensure(view.unanswered.remove(&id), "a second answer to one frame")?;
        if asked == view.asked.to_string() && view.state != ViewState::Leaving {
            let refused = matches!(
                frame["code"].as_str(),
                Some("banned" | "not_found" | "forbidden")
            );
            view.state = if refused {
                ViewState::Refused
            } else {
                ViewState::Idle
            };
        }
        Ok(())
    }
}

impl View {
    fn on_subscribed(
        &mut self,
        frame: &Value,
        session: usize,
        db: &Database,
    ) -> Result<(), String> {
        let (seq, epoch) = (number(&frame["seq"])?, text(&frame["epoch"])?);
        let id = text(&frame["id"])?;
        ensure(self.unanswered.remove(&id), "a second answer to one frame")?;
        if id != format!("{session}/{}", self.asked) {
            // The answer to a subscribe that a later one has replaced. Its position counts until the
            // later answer arrives.
            self.position = Some((seq, epoch));
            return Ok(());
        }
        let wish = self.wish.clone().ok_or("subscribed without a subscribe")?;
        match (&wish.resume, frame["recovered"] == json!(true)) {
            (Some((given, given_epoch)), true) => {
                ensure(
                    seq == *given,
                    "recovered from another number than the client sent",
                )?;
                ensure(
                    given_epoch.as_ref().is_none_or(|given| *given == epoch),
                    "recovered in another epoch",
                )?;
                self.recovered += 1;
            }
            (None, true) => return Err("recovered although the client sent no position".to_owned()),
            (resume, false) => {
                judge(frame, resume.as_ref(), session, db)?;
                ensure(
                    epoch != wish.epoch
                        || epoch != db.epoch_name()
                        || seq + wish.history >= wish.head.min(db.head(session)),
                    "less history than requested",
                )?;
            }
        }
        self.keep_token(&frame["resume_token"]);
        if self.state != ViewState::Leaving {
            self.state = ViewState::Watching;
        }
        self.begin(frame, session, db)
    }

    fn on_reset(&mut self, frame: &Value, session: usize, db: &Database) -> Result<(), String> {
        ensure(self.is_open(), "reset without a subscription")?;
        let resume = self.position.take().map(|(seq, epoch)| (seq, Some(epoch)));
        judge(frame, resume.as_ref(), session, db)?;
        self.begin(frame, session, db)
    }

    /// Records the state in `subscribed` or `reset`.
    fn begin(&mut self, frame: &Value, session: usize, db: &Database) -> Result<(), String> {
        let (seq, epoch) = (number(&frame["seq"])?, text(&frame["epoch"])?);
        let revision = number(&frame["info"]["revision"])?;
        ensure(
            revision >= db.revision(&epoch, session, seq),
            "the session's info is older than the position",
        )?;
        self.version = number(&frame["votings"][0]["version"])?;
        self.can = Some(can(frame)?);
        self.position = Some((seq, epoch));
        Ok(())
    }

    fn on_events(
        &mut self,
        frame: &Events<'_>,
        session: usize,
        db: &Database,
    ) -> Result<(), String> {
        ensure(self.is_open(), "events without a subscription")?;
        ensure(!frame.events.is_empty(), "an empty frame")?;
        let (position, epoch) = self.position.as_mut().ok_or("events before a position")?;
        for event in &frame.events {
            let next = *position + 1;
            let committed = db
                .event(epoch, session, next)
                .ok_or("an event that was never committed")?;
            if committed.json != event.get().as_bytes() {
                let shown: Value =
                    serde_json::from_str(event.get()).map_err(|error| error.to_string())?;
                let seq = number(&shown["seq"])?;
                ensure(
                    seq == next,
                    &format!("{seq} follows {position} in session {session}"),
                )?;
                return Err("the event differs from the committed one".to_owned());
            }
            *position = next;
        }
        Ok(())
    }

    fn on_tally(&mut self, frame: &Value) -> Result<(), String> {
        if self.state != ViewState::Watching {
            return Ok(());
        }
        let version = number(&frame["version"])?;
        ensure(
            version >= self.version,
            &format!("a tally goes back from {} to {version}", self.version),
        )?;
        self.version = version;
        Ok(())
    }

    /// Whether frames other than answers may arrive.
    fn is_open(&self) -> bool {
        matches!(
            self.state,
            ViewState::Asked | ViewState::Watching | ViewState::Leaving
        )
    }

    fn keep_token(&mut self, token: &Value) {
        self.tokens.extend(token.as_str().map(str::to_owned));
    }
}

/// Checks that the gateway refused continuity for a true reason.
fn judge(
    frame: &Value,
    resume: Option<&(u64, Option<String>)>,
    session: usize,
    db: &Database,
) -> Result<(), String> {
    let is_true = match (frame["reason"].as_str(), resume) {
        (Some("fresh"), None) => true,
        (Some("too_old"), Some((seq, _))) => *seq < db.sessions[session].floor,
        // Another epoch is a reason even if the database lost no event.
        (Some("ahead"), Some(_)) => db.epoch > 0,
        _ => false,
    };
    ensure(
        is_true,
        &format!("continuity is refused for a false reason, {resume:?}"),
    )
}

fn can(frame: &Value) -> Result<Can, String> {
    serde_json::from_value(frame["can"].clone()).map_err(|error| error.to_string())
}

fn number(value: &Value) -> Result<u64, String> {
    value
        .as_u64()
        .ok_or_else(|| format!("{value} is no number"))
}

fn text(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{value} is no text"))
}

pub(crate) fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}
