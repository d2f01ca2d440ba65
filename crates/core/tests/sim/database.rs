//! The model of Postgres: its committed state, and its answers at any moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use usher_core::protocol::id::{Seq, SessionId, UserId, VotingId};
use usher_core::protocol::notify::Event;
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::Can;
use usher_core::relay::delivery::LogPage;
use usher_core::relay::snapshot::{Access, Admission, Snapshot};
use usher_core::relay::tally::Tally;
use uuid::Uuid;

/// The sessions with their logs, and the permissions of users.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) epoch: usize,
    pub(crate) sessions: Vec<Session>,
    /// The logs of earlier epochs, as they were before each restore.
    past: Vec<Vec<Vec<Event>>>,
    written: u64,
    pub(crate) banned: BTreeSet<(usize, usize)>,
    pub(crate) muted: BTreeSet<(usize, usize)>,
    pub(crate) moderators: BTreeSet<(usize, usize)>,
    /// The session and user of every moderator so far.
    pub(crate) moderated: BTreeSet<(usize, usize)>,
    pub(crate) event_bytes: usize,
}

/// A session's log and state.
#[derive(Debug)]
pub(crate) struct Session {
    /// All committed events. Those up to `floor` can no longer be read.
    pub(crate) log: Vec<Event>,
    pub(crate) floor: u64,
    pub(crate) version: u64,
    pub(crate) is_private: bool,
}

/// The result of the first statement of a page read.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    epoch: usize,
    head: u64,
    floor: u64,
}

impl Database {
    pub(crate) fn new(sessions: usize, event_bytes: usize) -> Self {
        let empty = || Session {
            log: Vec::new(),
            floor: 0,
            version: 1,
            is_private: false,
        };
        Self {
            epoch: 0,
            sessions: (0..sessions).map(|_| empty()).collect(),
            past: Vec::new(),
            written: 0,
            banned: BTreeSet::new(),
            muted: BTreeSet::new(),
            moderators: BTreeSet::new(),
            moderated: BTreeSet::new(),
            event_bytes,
        }
    }

    /// Commits one event. An event that is not chat changes the session's snapshot.
    pub(crate) fn commit(&mut self, session: usize, is_chat: bool) -> Event {
        self.written += 1;
        let seq = self.head(session) + 1;
        let kind = if is_chat {
            "chat.created"
        } else {
            "session.updated"
        };
        let pad = "x".repeat(self.event_bytes);
        let json = format!(
            r#"{{"seq":{seq},"type":"{kind}","at":"-","data":{{"n":{},"pad":"{pad}"}}}}"#,
            self.written
        );
        let event = Event::new(Seq(seq), &json);
        self.sessions[session].log.push(event.clone());
        event
    }

    /// Restores the database from a backup: it goes back in time and starts a new epoch.
    pub(crate) fn restore(&mut self, kept: impl Fn(u64) -> u64) {
        self.past.push(
            self.sessions
                .iter()
                .map(|session| session.log.clone())
                .collect(),
        );
        self.epoch += 1;
        for session in &mut self.sessions {
            let head = kept(session.log.len() as u64).max(session.floor);
            session
                .log
                .truncate(usize::try_from(head).expect("a length"));
            session.version = session.version.saturating_sub(3).max(1);
        }
    }

    pub(crate) fn head(&self, session: usize) -> u64 {
        self.sessions[session].log.len() as u64
    }

    pub(crate) fn epoch_name(&self) -> String {
        format!("e{}", self.epoch)
    }

    /// Returns an event as it was committed in an epoch.
    pub(crate) fn event(&self, epoch: &str, session: usize, seq: u64) -> Option<&Event> {
        let epoch: usize = epoch.strip_prefix('e')?.parse().ok()?;
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        if epoch == self.epoch {
            self.sessions[session].log.get(place)
        } else {
            self.past.get(epoch)?[session].get(place)
        }
    }

    /// Returns the newest number up to `seq` whose event changed the session's snapshot.
    pub(crate) fn revision(&self, epoch: &str, session: usize, seq: u64) -> u64 {
        (1..=seq)
            .rev()
            .find(|seq| {
                self.event(epoch, session, *seq)
                    .is_some_and(|e| e.changes_snapshot)
            })
            .unwrap_or(0)
    }

    pub(crate) fn ever_moderated(&self, session: usize, user: Option<usize>) -> bool {
        user.is_some_and(|user| self.moderated.contains(&(session, user)))
    }

    pub(crate) fn may_watch(&self, session: usize, user: Option<usize>) -> Result<Can, Refusal> {
        let Some(user) = user else {
            if self.sessions[session].is_private {
                return Err(Refusal::new(RefusalCode::NotFound, "no such session"));
            }
            return Ok(Can::default());
        };
        if self.banned.contains(&(session, user)) {
            return Err(Refusal::new(RefusalCode::Banned, "banned"));
        }
        let muted = self.muted.contains(&(session, user));
        let moderate = self.moderators.contains(&(session, user));
        Ok(Can {
            send: !muted,
            vote: !muted,
            moderate,
        })
    }

    pub(crate) fn snapshot(&self, session: usize) -> Arc<Snapshot> {
        let Session { floor, .. } = &self.sessions[session];
        let (head, epoch) = (self.head(session), self.epoch_name());
        let revision = self.revision(&epoch, session, head);
        let json = format!(
            r#"{{"epoch":"{epoch}","head":{head},"floor":{floor},"info":{{"revision":{revision}}},"votings":[{{{},
            "question":"?","results_visibility":"after_close","allow_change":true,"options":[]}}]}}"#,
            self.tally_fields(session, true)
        );
        Arc::new(serde_json::from_str(&json).expect("a snapshot"))
    }

    pub(crate) fn tally(&self, session: usize) -> Tally {
        let frame = |counts| {
            let head = format!(r#""type":"tally","session":"{}""#, session_id(session));
            format!("{{{head},{}}}", self.tally_fields(session, counts))
        };
        Tally::parse(&self.epoch_name(), &frame(true), Some(&frame(false))).expect("a tally")
    }

    pub(crate) fn heads(&self, session: usize) -> Heads {
        let floor = self.sessions[session].floor;
        Heads {
            epoch: self.epoch,
            head: self.head(session),
            floor,
        }
    }

    /// Reads at most `count` events after a position, some time after the heads. Returns `None` if the database
    /// restarted in between.
    pub(crate) fn page(
        &self,
        session: usize,
        heads: &Heads,
        after: Seq,
        count: usize,
    ) -> Option<LogPage> {
        if heads.epoch != self.epoch {
            return None;
        }
        let log = &self.sessions[session];
        let skipped = usize::try_from(after.0).ok()?;
        let events = if after.0 < log.floor {
            Vec::new()
        } else {
            log.log.iter().skip(skipped).take(count).cloned().collect()
        };
        let (head, floor) = (Seq(heads.head), Seq(heads.floor));
        Some(LogPage {
            epoch: self.epoch_name(),
            head,
            floor,
            events,
        })
    }

    fn tally_fields(&self, session: usize, counts: bool) -> String {
        let version = self.sessions[session].version;
        let counts = if counts { "[]" } else { "null" };
        let voting = voting_id(session);
        format!(
            r#""voting":"{voting}","status":"open","version":{version},"total":{version},"counts":{counts},"closes_at":null"#
        )
    }
}

/// Combines an admission's two statements, which read the database at two moments.
pub(crate) fn admission(session: usize, can: Can, snapshot: Arc<Snapshot>) -> Admission {
    Admission {
        session: session_id(session),
        access: Access {
            can,
            mine: HashMap::new(),
            ask_again: None,
        },
        snapshot,
    }
}

pub(crate) fn session_id(session: usize) -> SessionId {
    SessionId(Uuid::from_u128(100 + session as u128))
}

pub(crate) fn session_of(id: SessionId) -> usize {
    usize::try_from(id.0.as_u128() - 100).expect("a session of the simulation")
}

pub(crate) fn voting_id(session: usize) -> VotingId {
    VotingId(Uuid::from_u128(200 + session as u128))
}

pub(crate) fn user_id(user: usize) -> UserId {
    UserId(Uuid::from_u128(1_000 + user as u128))
}
