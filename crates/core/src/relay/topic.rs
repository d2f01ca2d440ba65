//! One session as a router sees it: its ring, its receivers and the reads of the log that are due.
//!
//! The rules for a notification with number `s`, where `h` is the newest stored number:
//!
//! - `s ≤ h`: ignore the duplicate.
//! - `s = h + 1`, with its event and no refill running: append the event.
//! - otherwise: remember only the number, and ask the log for the events after `h` (a refill).
//!
//! A refill is repeated if the log has more events than the page brought, if a higher number was seen, or if a resync
//! arrived in the meantime.
//!
//! If two notifications carry different events for one stored number, one of them is forged. The topic then asks the
//! log for that number. If the log's event differs from the stored one, every receiver starts over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::limits::{FLUSH_BYTES_MAX, RING_BYTES_MAX};
use crate::protocol::id::{Seq, SessionId, UserId, VotingId};
use crate::protocol::notify::{Event, Notice};
use crate::protocol::server::{self, Frames, StartReason};
use crate::relay::PeerId;
use crate::relay::backlog::Backlog;
use crate::relay::delivery::{
    Attached, CachedState, LogPage, Position, Refill, RefillCause, Sink, TurnKind,
};
use crate::relay::history::{History, Origin};
use crate::relay::kept_tallies::KeptTallies;
use crate::relay::redaction::is_same_or_redacted;
use crate::relay::snapshot::Snapshot;
use crate::relay::tally::Tally;

/// A connection that watches a session.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// The connection that delivers to it.
    pub peer: PeerId,
    /// The attempt of its subscription.
    pub attempt: u32,
    /// Its user, if the user is signed in.
    pub(crate) user: Option<UserId>,
    /// Whether it sees counts that are hidden until the poll closes.
    pub(crate) sees_hidden: bool,
    /// The newest delivered number; `None` before it is attached.
    cursor: Option<Seq>,
    /// Whether it missed a tally while it could take nothing.
    missed_tally: bool,
    /// Whether it may have missed changes of counts before it attached.
    missed_resync: bool,
}

impl Receiver {
    /// Creates a receiver that is not attached yet.
    #[must_use]
    pub fn new(peer: PeerId, attempt: u32, user: Option<UserId>) -> Self {
        Self {
            peer,
            attempt,
            user,
            sees_hidden: false,
            cursor: None,
            missed_tally: false,
            missed_resync: false,
        }
    }
}

/// The state of a receiver after everything it lacks was offered to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// It has everything, or is stalled and will report when it can take bytes again.
    Served,
    /// The ring does not reach back to its position.
    Behind {
        /// The attempt of its subscription.
        attempt: u32,
        /// The newest delivered number.
        position: Seq,
    },
}

/// The reason why the stored numbers are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The database went back in time.
    Ahead,
    /// The log no longer reaches back to the ring's newest event, only to `floor`.
    Trimmed { floor: Seq },
    /// The ring holds an event that the log does not have.
    Forged,
}

/// One session as a router sees it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) generation: u64,
    history: Option<History>,
    /// The newest number that was offered to the receivers.
    flushed: Seq,
    /// The highest number in a notification since the last read of the log. It starts over with each read, because one
    /// false notification would otherwise cause reads without end.
    seen: Seq,
    is_refilling: bool,
    /// The lowest stored number for which two notifications differ. The log decides which one is true.
    doubted: Option<Seq>,
    /// Whether to read the log once more, after the running refill or once the newest number is known.
    owes_refill: bool,
    receivers: Vec<Receiver>,
    places: FxHashMap<PeerId, usize>,
    idle_since: Option<Instant>,
    snapshot: Option<Arc<Snapshot>>,
    /// Whether the snapshot is up to date. Its counts are useful even if it is not.
    is_current: bool,
    /// The number of the newest event that outdated earlier snapshots.
    changed_at: Seq,
    tallies: KeptTallies,
    /// The last backlog. Clients that reconnect from the same position share it.
    backlog: Option<Backlog>,
}

impl Topic {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation,
            history: None,
            flushed: Seq(0),
            seen: Seq(0),
            is_refilling: false,
            doubted: None,
            owes_refill: false,
            receivers: Vec::new(),
            places: FxHashMap::default(),
            idle_since: None,
            snapshot: None,
            is_current: false,
            changed_at: Seq(0),
            tallies: KeptTallies::default(),
            backlog: None,
        }
    }

    /// Handles a notification. Returns the reason to read the log, or `None`.
    pub(crate) fn on_notice(&mut self, notice: &Notice) -> Option<RefillCause> {
        self.seen = self.seen.max(notice.seq);
        let Some(history) = &mut self.history else {
            // Without an event the ring cannot start. A receiver that attaches later finds `seen` ahead and
            // asks the log.
            let event = notice.event.as_ref()?;
            self.begin(Seq(event.seq.0.saturating_sub(1)));
            self.append(event, Origin::Hint);
            return None;
        };
        if notice.seq <= history.head() {
            let held = history.unconfirmed(notice.seq)?;
            // A true event is notified only once, either with its text or without.
            if notice
                .event
                .as_ref()
                .is_some_and(|event| event.json == *held)
            {
                return None;
            }
            self.doubted = Some(self.doubted.map_or(notice.seq, |seq| seq.min(notice.seq)));
            return Some(RefillCause::Conflict);
        }
        if self.is_refilling {
            return None;
        }
        match &notice.event {
            Some(event) if notice.seq == history.head().next() => {
                self.append(event, Origin::Hint);
                None
            }
            None if notice.seq == history.head().next() => Some(RefillCause::Oversized),
            Some(_) | None => Some(RefillCause::Gap),
        }
    }

    /// Handles a page of the log. Returns whether to read the log again, or why the stored numbers are invalid.
    pub(crate) fn on_page(&mut self, page: &LogPage, same_epoch: bool) -> Result<bool, Broken> {
        self.is_refilling = false;
        let Some(history) = &mut self.history else {
            return Ok(false);
        };
        if !same_epoch {
            // The resync that follows the new epoch reads the log again. Until then no event of the page may be shown.
            self.owes_refill = true;
            return Ok(false);
        }
        let held = history.head();
        if page.head < held {
            return Err(Broken::Ahead);
        }
        for event in &page.events {
            match history.unconfirmed(event.seq) {
                Some(heard) if !is_same_or_redacted(heard, &event.json) => {
                    return Err(Broken::Forged);
                }
                Some(_) => history.confirm(event.seq),
                None => {}
            }
        }
        for event in &page.events {
            if event.seq == self.head().next() {
                self.append(event, Origin::Log);
            }
        }
        let is_past = page.events.last().is_some_and(|last| last.seq < held);
        if self.head() == held && page.head > held && !is_past {
            // The events after the newest stored number were trimmed.
            return Err(Broken::Trimmed { floor: page.floor });
        }
        let owed = std::mem::take(&mut self.owes_refill);
        Ok(owed || self.seen.max(page.head) > self.head())
    }

    /// Offers the new events to every receiver that has all earlier ones, then drops old events.
    pub(crate) fn flush(
        &mut self,
        session: SessionId,
        ring_events_max: usize,
        sink: &mut impl Sink,
    ) {
        let Some(history) = &mut self.history else {
            return;
        };
        let (from, head) = (self.flushed, history.head());
        if from < head && !self.receivers.is_empty() {
            let news = history
                .after(from)
                .expect("the ring keeps unflushed events");
            let chunk = server::events(session, from, news);
            for receiver in &mut self.receivers {
                let Some(cursor) = receiver.cursor else {
                    continue;
                };
                let taken = if cursor == from {
                    sink.offer(receiver.peer, &chunk)
                } else if from < cursor && cursor < head {
                    let rest = history
                        .after(cursor)
                        .expect("the ring keeps unflushed events");
                    sink.offer(receiver.peer, &server::events(session, cursor, rest))
                } else {
                    false
                };
                if taken {
                    receiver.cursor = Some(head);
                }
            }
        }
        self.flushed = head;
        self.backlog = None;
        history.trim(ring_events_max, RING_BYTES_MAX, head);
    }

    pub(crate) fn join(&mut self, receiver: Receiver) {
        self.idle_since = None;
        match self.places.get(&receiver.peer) {
            Some(place) => self.receivers[*place] = receiver,
            None => {
                self.places.insert(receiver.peer, self.receivers.len());
                self.receivers.push(receiver);
            }
        }
    }

    pub(crate) fn leave(&mut self, peer: PeerId, now: Instant) {
        let Some(place) = self.places.remove(&peer) else {
            return;
        };
        self.receivers.swap_remove(place);
        if let Some(moved) = self.receivers.get(place) {
            self.places.insert(moved.peer, place);
        }
        if self.receivers.is_empty() {
            self.receivers = Vec::new();
            self.places = FxHashMap::default();
            self.idle_since = Some(now);
        }
    }

    pub(crate) fn attach(
        &mut self,
        session: SessionId,
        peer: PeerId,
        from: &Position,
        recounts: &mut VecDeque<VotingId>,
        sink: &mut impl Sink,
    ) -> Attached {
        let position = from.seq;
        if !self.places.contains_key(&peer) {
            return Attached::Stale;
        }
        if self.history.is_none() {
            self.begin(position);
        }
        if let Some(snapshot) = &from.snapshot {
            self.remember(snapshot);
        }
        if self
            .history
            .as_ref()
            .is_some_and(|history| position < history.reach())
        {
            return Attached::Behind;
        }
        if let Some(receiver) = self.receiver(peer) {
            receiver.cursor = Some(position);
            receiver.sees_hidden = from.sees_hidden;
            if std::mem::take(&mut receiver.missed_resync) {
                let votings = from.snapshot.iter().flat_map(|snapshot| &snapshot.votings);
                recounts.extend(votings.map(|voting| voting.voting));
            }
        }
        let level = self.level(session, peer, recounts, sink);
        assert_eq!(
            level,
            Level::Served,
            "the ring reaches back to the position, as checked above"
        );
        Attached::Live
    }

    /// Offers a receiver everything that it lacks.
    pub(crate) fn level(
        &mut self,
        session: SessionId,
        peer: PeerId,
        recounts: &mut VecDeque<VotingId>,
        sink: &mut impl Sink,
    ) -> Level {
        let (Some(place), Some(history)) = (self.places.get(&peer), &self.history) else {
            return Level::Served;
        };
        let receiver = &mut self.receivers[*place];
        let Some(cursor) = receiver.cursor else {
            return Level::Served;
        };
        let mut cursor = cursor;
        while cursor < history.head() {
            let Some(rest) = history.after(cursor) else {
                receiver.cursor = None;
                return Level::Behind {
                    attempt: receiver.attempt,
                    position: cursor,
                };
            };
            if self
                .backlog
                .as_ref()
                .is_none_or(|backlog| backlog.from != cursor)
            {
                self.backlog = Some(Backlog::new(session, cursor, rest));
            }
            let backlog = self.backlog.as_ref().expect("created above");
            if !sink.offer(peer, &backlog.frames) {
                return Level::Served;
            }
            cursor = backlog.to;
            receiver.cursor = Some(cursor);
        }
        if receiver.missed_tally {
            receiver.missed_tally = !self
                .tallies
                .iter()
                .all(|tally| sink.offer(peer, tally.frame(receiver.sees_hidden)));
            if !receiver.missed_tally {
                recounts.extend(self.tallies.forgotten());
            }
        }
        Level::Served
    }

    pub(crate) fn on_tally(&mut self, tally: &Tally, sink: &mut impl Sink) {
        let read = self.snapshot.iter().flat_map(|snapshot| &snapshot.votings);
        let told = read
            .map(|voting| (voting.voting, voting.version))
            .chain(self.tallies.iter().map(|kept| (kept.voting, kept.version)));
        if told
            .into_iter()
            .any(|(voting, version)| voting == tally.voting && version > tally.version)
        {
            return;
        }
        if let Some(snapshot) = &mut self.snapshot {
            Arc::make_mut(snapshot).update(tally);
        }
        let has_missed = |receiver: &Receiver| receiver.missed_tally;
        self.tallies
            .push(tally, self.receivers.iter().any(has_missed));
        for receiver in &mut self.receivers {
            let frame = tally.frame(receiver.sees_hidden);
            if receiver.cursor.is_none() || !sink.offer(receiver.peer, frame) {
                receiver.missed_tally = true;
            }
        }
    }

    pub(crate) fn broadcast(&mut self, frame: &Frames, sink: &mut impl Sink) {
        for receiver in self
            .receivers
            .iter()
            .filter(|receiver| receiver.cursor.is_some())
        {
            // A stalled receiver gets the state with its next change.
            sink.offer(receiver.peer, frame);
        }
    }

    /// Forgets all numbers, and after a change of epoch the counts, too. Returns the resulting change for each attached
    /// receiver. A receiver at or after the log's floor can still continue from the log.
    pub(crate) fn restart(
        &mut self,
        generation: u64,
        broken: Broken,
    ) -> Vec<(PeerId, u32, TurnKind)> {
        let kept = std::mem::replace(self, Self::new(generation));
        self.receivers = kept.receivers;
        self.places = kept.places;
        self.idle_since = kept.idle_since;
        // Numbers that were seen are forgotten here. The next attach therefore asks the log.
        self.owes_refill = true;
        if broken != Broken::Ahead {
            self.snapshot = kept.snapshot;
            self.tallies = kept.tallies;
        }
        let attached = |receiver: &mut Receiver| {
            let position = receiver.cursor.take()?;
            let kind = match broken {
                Broken::Ahead | Broken::Forged => TurnKind::Lost(StartReason::Ahead),
                Broken::Trimmed { floor } if position < floor => {
                    TurnKind::Lost(StartReason::TooOld)
                }
                Broken::Trimmed { .. } => TurnKind::Behind(position),
            };
            Some((receiver.peer, receiver.attempt, kind))
        };
        self.receivers.iter_mut().filter_map(attached).collect()
    }

    /// Keeps the snapshot that a subscriber received. Its info is kept while no newer event changes the session. Its
    /// counts are kept in any case, so that no older counts are sent after them.
    fn remember(&mut self, told: &Arc<Snapshot>) {
        let is_current = told.head >= self.changed_at;
        match &mut self.snapshot {
            Some(kept) => {
                let is_newer = is_current && (!self.is_current || kept.head < told.head);
                let (mut base, other) = if is_newer {
                    (Arc::clone(told), Arc::clone(kept))
                } else {
                    (Arc::clone(kept), Arc::clone(told))
                };
                if base.has_older_votings(&other) {
                    Arc::make_mut(&mut base).take_newer_votings(&other);
                }
                *kept = base;
                self.is_current |= is_newer;
            }
            None => {
                self.snapshot = Some(Arc::clone(told));
                self.is_current = is_current;
            }
        }
        let Some(kept) = &mut self.snapshot else {
            return;
        };
        // A tally older than counts that were sent is outdated. The newer tally is about to arrive.
        self.tallies.retain(|tally| !kept.is_ahead_of(tally));
        for tally in self.tallies.iter() {
            if kept.is_behind(tally) {
                Arc::make_mut(kept).update(tally);
            }
        }
    }

    pub(crate) fn forget_snapshot(&mut self) {
        self.is_current = false;
    }

    /// Marks receivers that are not attached yet: they may have been sent counts before changes were lost.
    pub(crate) fn on_resync(&mut self) {
        self.forget_snapshot();
        for receiver in &mut self.receivers {
            receiver.missed_resync = receiver.cursor.is_none();
        }
    }

    /// Asks the log for the events after the newest stored number. If a refill is running or no number is known yet,
    /// remembers to ask later.
    pub(crate) fn ask(
        &mut self,
        session: SessionId,
        cause: RefillCause,
        refills: &mut VecDeque<Refill>,
    ) {
        match &self.history {
            Some(history) if !self.is_refilling => {
                self.is_refilling = true;
                self.seen = history.head();
                let doubted = self.doubted.take();
                refills.push_back(Refill {
                    session,
                    generation: self.generation,
                    after: doubted.map_or(history.head(), |seq| Seq(seq.0 - 1)),
                    cause,
                });
            }
            _ => self.owes_refill = true,
        }
    }

    pub(crate) fn ask_if_owed(&mut self, session: SessionId, refills: &mut VecDeque<Refill>) {
        if !self.is_refilling && (self.owes_refill || self.seen > self.head()) {
            self.owes_refill = false;
            self.ask(session, RefillCause::Gap, refills);
        }
    }

    pub(crate) fn receiver(&mut self, peer: PeerId) -> Option<&mut Receiver> {
        let place = *self.places.get(&peer)?;
        self.receivers.get_mut(place)
    }

    pub(crate) fn cached(&self) -> Option<CachedState> {
        let history = self.history.as_ref().filter(|_| self.is_current)?;
        Some(CachedState {
            snapshot: Arc::clone(self.snapshot.as_ref()?),
            reach: history.reach(),
            head: history.head(),
        })
    }

    pub(crate) fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.flushed < self.head()
    }

    /// Whether so many events wait for a flush that the ring is about to exceed its bound.
    pub(crate) fn is_full(&self) -> bool {
        self.window_bytes() > RING_BYTES_MAX + FLUSH_BYTES_MAX
    }

    pub(crate) fn has_window(&self) -> bool {
        self.history.is_some()
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, History::bytes)
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    pub(crate) fn votings(&self) -> impl Iterator<Item = VotingId> {
        let told = self
            .snapshot
            .iter()
            .flat_map(|snapshot| snapshot.votings.iter().map(|voting| voting.voting));
        told.chain(self.tallies.iter().map(|tally| tally.voting))
    }

    fn begin(&mut self, head: Seq) {
        self.history = Some(History::new(head));
        self.flushed = head;
        // Earlier events were not seen, so a snapshot from before may be outdated.
        self.changed_at = head;
    }

    fn append(&mut self, event: &Event, origin: Origin) {
        let history = self
            .history
            .as_mut()
            .expect("the newest number is known before an event is appended");
        history.append(event, origin);
        if event.changes_snapshot {
            self.changed_at = event.seq;
            self.is_current = false;
        }
    }

    fn head(&self) -> Seq {
        self.history.as_ref().map_or(Seq(0), History::head)
    }
}
