//! One simulated run: a database, gateways and clients, in random steps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use usher_core::auth::identity::{Identity, Role};
use usher_core::limits::{PAGE_BYTES_MAX, RING_BYTES_MAX};
use usher_core::protocol::client;
use usher_core::protocol::id::{Seq, SessionId, VotingId};
use usher_core::protocol::notify::{AccessChange, Notice};
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::{self, Can};
use usher_core::relay::PeerId;
use usher_core::relay::delivery::{LogPage, Refill};
use usher_core::relay::message::{Effect, Query, QueryResult};
use usher_core::relay::peer::Peer;
use usher_core::relay::peer_context::{Moment, Rules};
use usher_core::relay::snapshot::Admission;
use usher_core::relay::tally::Tally;
use uuid::Uuid;

use crate::client::{SimClient, ViewState, ensure};
use crate::database::{self, Database, Heads, session_id, session_of, user_id};
use crate::dice::Dice;
use crate::gateway::{
    Heard, LoopCommand, LoopQuery, SimConnection, SimGateway, SocketBuffer, SocketBuffers,
};

/// Steps within which a calm world must come to rest.
const CALM_STEPS_MAX: usize = 20_000;
/// Failing steps after each of the last commits, at most.
const EBB_STEPS_MAX: usize = 60;

/// The kinds of steps that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All kinds of steps.
    Storm,
    /// All kinds except writes, so that no later event repairs a loss.
    Ebb,
    /// Pending work ends, and nothing fails.
    Calm,
}

/// The random parameters of one run, so that rare combinations also occur.
#[derive(Debug)]
pub(crate) struct Weather {
    /// Steps before the calm phase.
    pub(crate) steps: usize,
    ring_events_max: usize,
    page_events_max: usize,
    stalls: u64,
    failures: u64,
    commits: u64,
    outages: u64,
    access_changes: u64,
    restores: u64,
    trims: u64,
    drops: u64,
    hear: u64,
    /// How much more likely pending work is than something new.
    pace: u64,
}

/// The whole simulated world.
pub(crate) struct World {
    dice: Dice,
    weather: Weather,
    base: Instant,
    unix_ms: u64,
    rules: Arc<Rules>,
    db: Database,
    gateways: Vec<SimGateway>,
    clients: Vec<SimClient>,
    connections: BTreeMap<PeerId, SimConnection>,
    tasks: Vec<Task>,
    next_peer: u64,
    phase: Phase,
    trace: bool,
    /// A broken promise, found where no error could be returned.
    broken: Option<String>,
}

/// A query to the database, in its steps: asked, read, answered.
#[derive(Debug)]
enum Task {
    Admit {
        peer: PeerId,
        session: SessionId,
        attempt: u32,
        is_check: bool,
        user: Option<usize>,
        read: Option<Result<Can, Refusal>>,
        answer: Option<Option<Result<Admission, Refusal>>>,
    },
    Page {
        peer: PeerId,
        session: SessionId,
        attempt: u32,
        after: Seq,
        heads: Option<Heads>,
        answer: Option<Option<LogPage>>,
    },
    Refill {
        gateway: usize,
        lane: usize,
        refill: Refill,
        heads: Option<Heads>,
        answer: Option<LogPage>,
    },
    Tally {
        gateway: usize,
        lane: usize,
        voting: VotingId,
        answer: Option<Tally>,
    },
}

impl Task {
    /// Returns the task for a peer's query.
    fn of(peer: PeerId, user: Option<usize>, query: Query) -> Self {
        let is_check = matches!(query, Query::CheckAccess { .. });
        match query {
            Query::Admit { session, attempt }
            | Query::CheckAccess {
                session, attempt, ..
            } => Self::Admit {
                peer,
                session,
                attempt,
                is_check,
                user,
                read: None,
                answer: None,
            },
            Query::ReadPage {
                session,
                attempt,
                after,
            } => Self::Page {
                peer,
                session,
                attempt,
                after,
                heads: None,
                answer: None,
            },
        }
    }
}

/// A possible next step.
#[derive(Clone, Copy, Debug)]
enum WorldEvent {
    Commit,
    Vote,
    Trim,
    Restore,
    FalseHint,
    ChangeAccess,
    DropListen(usize),
    Listen(usize),
    Restart(usize),
    Deliver(usize),
    Hear(usize, usize),
    Obey(usize, usize),
    Work(usize),
    TakeNote(PeerId),
    Stall(PeerId),
    Flow(PeerId),
    Read(PeerId),
    Connect(usize),
    SignIn(PeerId),
    Vanish(PeerId),
    Subscribe(PeerId, usize),
    Unsubscribe(PeerId, usize),
    Wait,
    Sweep,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        steps: Option<usize>,
        rules: Arc<Rules>,
        base: Instant,
        trace: bool,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let weather = Weather::draw(&mut dice, steps);
        let sessions = dice.pick(&[1, 1, 2, 3]);
        let gateways = dice.pick(&[1, 1, 2]);
        let lanes = dice.pick(&[1, 1, 2]);
        let clients = dice.pick(&[1, 2, 4, 6]);
        let event_bytes = if dice.chance(2) { 20_000 } else { 1 };
        let users: Vec<Option<usize>> = (0..clients)
            .map(|user| dice.chance(80).then_some(user / 2))
            .collect();
        if trace {
            eprintln!(
                "{sessions} sessions, {gateways} gateways of {lanes}, clients {users:?}, {weather:?}"
            );
        }
        Self {
            gateways: (0..gateways)
                .map(|_| SimGateway::new(lanes, weather.ring_events_max))
                .collect(),
            clients: users
                .into_iter()
                .map(|user| SimClient::new(user, sessions))
                .collect(),
            db: Database::new(sessions, event_bytes),
            dice,
            weather,
            base,
            unix_ms: 1_790_000_000_000,
            rules,
            connections: BTreeMap::new(),
            tasks: Vec::new(),
            next_peer: 0,
            phase: Phase::Storm,
            trace,
            broken: None,
        }
    }

    /// Runs the storm, then the calm. At the end every client must have every event that it may see,
    /// including later ones.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.weather.steps {
            let acts = self.acts();
            let act = self.draw(&acts);
            self.act(act)?;
        }
        self.phase = Phase::Calm;
        for client in &mut self.clients {
            // A client that was refused subscribes once more, with any token it has.
            for view in client
                .views
                .iter_mut()
                .filter(|view| view.state == ViewState::Refused)
            {
                view.state = ViewState::Idle;
            }
        }
        self.calm_down()?;
        self.check_rest(false)?;
        // Later events must also arrive, and only at clients that may see them. No event after them could
        // repair a loss.
        for _ in 0..3 {
            if self.weather.outages > 0 && self.dice.chance(40) {
                let gateway = self.dice.below(self.gateways.len());
                self.gateways[gateway].network = None;
            }
            if self.weather.restores > 0 && self.dice.chance(20) {
                self.restore();
            }
            for session in 0..self.db.sessions.len() {
                self.commit_some(session);
                self.vote(session);
            }
            self.phase = Phase::Ebb;
            for _ in 0..self.dice.below(EBB_STEPS_MAX) {
                let acts = self.acts();
                let act = self.draw(&acts);
                self.act(act)?;
            }
        }
        self.phase = Phase::Calm;
        self.calm_down()?;
        self.check_rest(true)
    }

    fn is_calm(&self) -> bool {
        self.phase == Phase::Calm
    }

    pub(crate) fn recovered(&self) -> u32 {
        self.clients
            .iter()
            .flat_map(|client| &client.views)
            .map(|view| view.recovered)
            .sum()
    }

    pub(crate) fn steps(&self) -> usize {
        self.weather.steps
    }

    fn calm_down(&mut self) -> Result<(), String> {
        let mut steps = 0;
        // The core pauses for about a second, and two pauses may follow each other. A recheck of all receivers is
        // spread over five seconds.
        for _ in 0..9 {
            loop {
                let acts = self.acts();
                if acts.is_empty() {
                    break;
                }
                let act = self.draw(&acts);
                self.act(act)?;
                steps += 1;
                ensure(steps < CALM_STEPS_MAX, "the world does not come to rest")?;
            }
            self.wait(1_100)?;
        }
        Ok(())
    }

    fn check_rest(&self, is_last: bool) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            for (session, view) in client.views.iter().enumerate() {
                let whose = format!("client {number} session {session}");
                let head = self.db.head(session);
                match self.db.may_watch(session, client.user) {
                    Ok(can) => {
                        ensure(
                            view.state == ViewState::Watching,
                            &format!("{whose} is {:?} at rest", view.state),
                        )?;
                        let position = view.position.as_ref().ok_or("no position")?;
                        ensure(
                            *position == (head, self.db.epoch_name()),
                            &format!("{whose} ends at {position:?}, the log at {head}"),
                        )?;
                        ensure(
                            view.can == Some(can),
                            &format!(
                                "{whose} has the permissions {:?}, the database {can:?}",
                                view.can
                            ),
                        )?;
                        let version = self.db.sessions[session].version;
                        ensure(
                            view.version == version,
                            &format!(
                                "{whose} has tally version {}, the database {version}",
                                view.version
                            ),
                        )?;
                        ensure(
                            view.unanswered.is_empty(),
                            &format!("{whose} has no answer to {:?}", view.unanswered),
                        )?;
                    }
                    Err(_) => {
                        let saw = view
                            .position
                            .as_ref()
                            .is_some_and(|position| *position == (head, self.db.epoch_name()));
                        ensure(
                            view.state == ViewState::Refused && !(is_last && saw),
                            &format!(
                                "{whose} is not allowed, but {:?} at {:?}",
                                view.state, view.position
                            ),
                        )?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the possible next steps with their weights.
    fn acts(&self) -> Vec<(u64, WorldEvent)> {
        let mut acts = Vec::new();
        let pace = self.weather.pace;
        let weather = &self.weather;
        if self.phase == Phase::Storm {
            acts.extend([
                (weather.commits * pace.div_ceil(2), WorldEvent::Commit),
                (2, WorldEvent::Vote),
                (1, WorldEvent::FalseHint),
                (weather.access_changes, WorldEvent::ChangeAccess),
            ]);
        }
        if !self.is_calm() {
            acts.extend([
                (weather.trims, WorldEvent::Trim),
                (weather.restores, WorldEvent::Restore),
                (3, WorldEvent::Wait),
                (1, WorldEvent::Sweep),
            ]);
        }
        for (number, gateway) in self.gateways.iter().enumerate() {
            match &gateway.network {
                None => acts.push((4 * pace, WorldEvent::Listen(number))),
                Some(network) if !network.is_empty() => {
                    acts.push((8 * pace, WorldEvent::Deliver(number)))
                }
                Some(_) => {}
            }
            if !self.is_calm() {
                acts.push((
                    u64::from(self.weather.outages > 1),
                    WorldEvent::Restart(number),
                ));
                if gateway.network.is_some() {
                    acts.push((self.weather.outages, WorldEvent::DropListen(number)));
                }
            }
            for (lane, one) in gateway.loops.iter().enumerate() {
                if !one.heard.is_empty() {
                    acts.push((self.weather.hear * pace, WorldEvent::Hear(number, lane)));
                }
                if !one.commands.is_empty() {
                    acts.push((20 * pace, WorldEvent::Obey(number, lane)));
                }
            }
        }
        for (place, task) in self.tasks.iter().enumerate() {
            if !self.must_wait(task) {
                acts.push((6 * pace, WorldEvent::Work(place)));
            }
        }
        for (id, connection) in &self.connections {
            self.connection_acts(*id, connection, &mut acts);
        }
        for (number, client) in self.clients.iter().enumerate() {
            let is_open = self
                .connections
                .values()
                .any(|connection| connection.client == number);
            let wants = client
                .views
                .iter()
                .enumerate()
                .any(|(session, view)| self.wants(number, session, view.state));
            if !is_open && wants {
                acts.push((5, WorldEvent::Connect(number)));
            }
        }
        acts
    }

    fn connection_acts(
        &self,
        id: PeerId,
        connection: &SimConnection,
        acts: &mut Vec<(u64, WorldEvent)>,
    ) {
        let pace = self.weather.pace;
        if !connection.notes.is_empty() {
            acts.push((10 * pace, WorldEvent::TakeNote(id)));
        }
        if !connection.line.wire.is_empty() {
            acts.push((6 * pace, WorldEvent::Read(id)));
        }
        if connection.line.is_stalled {
            acts.push((
                if self.is_calm() { 3 * pace } else { 1 },
                WorldEvent::Flow(id),
            ));
        }
        let client = &self.clients[connection.client];
        if client.user.is_some() && connection.peer.identity().subject.is_none() {
            acts.push((4, WorldEvent::SignIn(id)));
        }
        for (session, view) in client.views.iter().enumerate() {
            if self.wants(connection.client, session, view.state) {
                acts.push((6, WorldEvent::Subscribe(id, session)));
            } else if !self.is_calm()
                && matches!(view.state, ViewState::Watching | ViewState::Asked)
            {
                acts.push((1, WorldEvent::Subscribe(id, session)));
                acts.push((1, WorldEvent::Unsubscribe(id, session)));
            }
        }
        if !self.is_calm() {
            acts.push((self.weather.drops, WorldEvent::Vanish(id)));
            acts.push((self.weather.stalls.min(2), WorldEvent::Stall(id)));
        }
    }

    fn wants(&self, client: usize, session: usize, state: ViewState) -> bool {
        let user = self.clients[client].user;
        match state {
            ViewState::Idle => true,
            ViewState::Refused => !self.is_calm() || self.db.may_watch(session, user).is_ok(),
            ViewState::Asked | ViewState::Watching | ViewState::Leaving => false,
        }
    }

    /// Whether a page must wait, because the client has not taken the previous one.
    fn must_wait(&self, task: &Task) -> bool {
        let Task::Page {
            peer,
            heads: None,
            answer: None,
            ..
        } = task
        else {
            return false;
        };
        self.connections
            .get(peer)
            .is_some_and(|connection| !connection.line.held.is_empty())
    }

    fn draw(&mut self, acts: &[(u64, WorldEvent)]) -> WorldEvent {
        let total: u64 = acts.iter().map(|(weight, _)| weight).sum();
        let mut rest = self.dice.below(usize::try_from(total).expect("small")) as u64;
        for (weight, act) in acts {
            if rest < *weight {
                return *act;
            }
            rest -= weight;
        }
        unreachable!("the rest is below the total")
    }

    fn act(&mut self, act: WorldEvent) -> Result<(), String> {
        if self.trace {
            self.tell_story(act);
        }
        let session = self.dice.below(self.db.sessions.len());
        match act {
            WorldEvent::Commit => self.commit_some(session),
            WorldEvent::Vote => self.vote(session),
            WorldEvent::Trim => {
                let (head, one) = (self.db.head(session), &mut self.db.sessions[session]);
                one.floor = (one.floor + self.dice.below(4) as u64).min(head);
            }
            WorldEvent::Restore => self.restore(),
            WorldEvent::FalseHint => {
                let seq = Seq(self.db.head(session) + 3);
                self.say(&Heard::Notices(vec![Notice {
                    session: session_id(session),
                    seq,
                    event: None,
                }]));
            }
            WorldEvent::ChangeAccess => self.change_access(session),
            WorldEvent::DropListen(gateway) => self.gateways[gateway].network = None,
            WorldEvent::Listen(gateway) => {
                let back = Heard::Back {
                    epoch: self.db.epoch_name(),
                };
                self.gateways[gateway].network = Some(VecDeque::from([back]));
            }
            WorldEvent::Restart(gateway) => self.restart(gateway),
            WorldEvent::Deliver(gateway) => self.deliver(gateway),
            WorldEvent::Hear(gateway, lane) => self.hear(gateway, lane),
            WorldEvent::Obey(gateway, lane) => self.obey(gateway, lane),
            WorldEvent::Work(task) => self.work(task),
            WorldEvent::TakeNote(peer) => self.take_note(peer),
            WorldEvent::Stall(peer) => self.line(peer).is_stalled = true,
            WorldEvent::Flow(peer) => {
                let SimConnection { gateway, lane, .. } = self.connections[&peer];
                self.gateways[gateway].loops[lane]
                    .commands
                    .push_back((peer, LoopCommand::Writable));
                // The loop is notified once, and the socket stays stalled until it handles the command.
                self.obey_all(gateway, lane);
            }
            WorldEvent::Read(peer) => self.read(peer)?,
            WorldEvent::Connect(client) => self.connect(client),
            WorldEvent::SignIn(peer) => self.sign_in(peer),
            WorldEvent::Vanish(peer) => self.vanish(peer),
            WorldEvent::Subscribe(peer, session) => {
                let client = self.connections[&peer].client;
                let frame = self.clients[client].subscribe(session, &mut self.dice, &self.db);
                self.on_text(peer, &frame);
            }
            WorldEvent::Unsubscribe(peer, session) => {
                let client = self.connections[&peer].client;
                let frame = self.clients[client].unsubscribe(session);
                self.on_text(peer, &frame);
            }
            WorldEvent::Wait => {
                let pause = self.dice.pick(&[1, 50, 400, 1_100]);
                self.wait(pause)?;
            }
            WorldEvent::Sweep => self.sweep(),
        }
        self.check_bounds()
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most acts are printed by their name"
    )]
    fn tell_story(&self, act: WorldEvent) {
        match act {
            WorldEvent::Work(task) => eprintln!("{act:?} {:?}", self.tasks[task]),
            WorldEvent::TakeNote(peer) => {
                eprintln!("{act:?} {:?}", self.connections[&peer].notes.front())
            }
            WorldEvent::Hear(gateway, lane) => {
                eprintln!("{act:?} {:?}", self.gateways[gateway].loops[lane].heard)
            }
            WorldEvent::Obey(gateway, lane) => eprintln!(
                "{act:?} {:?}",
                self.gateways[gateway].loops[lane].commands.front()
            ),
            WorldEvent::Read(peer) => eprintln!(
                "{act:?} {}",
                String::from_utf8_lossy(&self.connections[&peer].line.wire)
            ),
            _ => eprintln!("{act:?}"),
        }
    }

    fn check_bounds(&mut self) -> Result<(), String> {
        if let Some(why) = self.broken.take() {
            return Err(why);
        }
        let windows = self
            .gateways
            .iter()
            .flat_map(|gateway| &gateway.loops)
            .map(|one| one.router.window_bytes())
            .max();
        ensure(
            windows.is_none_or(|bytes| bytes <= self.db.sessions.len() * RING_BYTES_MAX),
            "a ring exceeds its bound",
        )?;
        let held = self
            .connections
            .values()
            .map(|one| one.line.held.iter().map(bytes::Bytes::len).sum::<usize>())
            .max();
        ensure(
            held.is_none_or(|bytes| bytes <= 2 * PAGE_BYTES_MAX),
            "too many bytes wait for a stalled socket",
        )
    }

    // The database.

    fn commit_some(&mut self, session: usize) {
        let is_chat = self.dice.chance(85);
        if self.dice.chance(10) {
            let count = 2 + self.dice.below(6);
            self.commit(session, count, is_chat);
        } else {
            self.commit(session, 1, is_chat);
        }
    }

    /// Commits events together. Only the first ones are notified with their event, and the last one with its number.
    fn commit(&mut self, session: usize, count: usize, is_chat: bool) {
        let told = 1 + self.dice.below(3);
        let mut notices = Vec::new();
        for place in 0..count {
            let event = self.db.commit(session, is_chat);
            let is_oversized = self.dice.chance(15);
            let event_told = (place < told && !is_oversized).then(|| event.clone());
            if place < told || place + 1 == count {
                notices.push(Notice {
                    session: session_id(session),
                    seq: event.seq,
                    event: event_told,
                });
            }
        }
        self.say(&Heard::Notices(notices));
    }

    fn vote(&mut self, session: usize) {
        self.db.sessions[session].version += 1;
        self.say(&Heard::Votes(database::voting_id(session)));
    }

    fn restore(&mut self) {
        let kept = self.dice.below(4) as u64;
        self.db.restore(|head| head.saturating_sub(kept));
        for gateway in &mut self.gateways {
            gateway.network = None;
        }
    }

    fn change_access(&mut self, session: usize) {
        let users = self.clients.len();
        let user = self.dice.below(users);
        let key = (session, user);
        let is_private = &mut self.db.sessions[session].is_private;
        let set = match self.dice.below(5) {
            0 | 1 => Some(&mut self.db.banned),
            2 => Some(&mut self.db.muted),
            3 => {
                self.db.moderated.insert(key);
                Some(&mut self.db.moderators)
            }
            _ => None,
        };
        let whose = match set {
            Some(set) => {
                if !set.remove(&key) {
                    set.insert(key);
                }
                Some(user_id(user))
            }
            None => {
                *is_private = !*is_private;
                None
            }
        };
        self.say(&Heard::Access(AccessChange {
            session: Some(session_id(session)),
            user: whose,
        }));
    }

    fn say(&mut self, heard: &Heard) {
        for gateway in &mut self.gateways {
            if let Some(network) = &mut gateway.network {
                network.push_back(heard.clone());
            }
        }
    }

    /// Advances a query by one step.
    #[expect(
        clippy::too_many_lines,
        reason = "a table: one line or two for each case"
    )]
    fn work(&mut self, place: usize) {
        let fails = !self.is_calm() && self.dice.chance(self.weather.failures);
        let count = 1 + self.dice.below(self.weather.page_events_max);
        let db = &self.db;
        match &mut self.tasks[place] {
            Task::Admit {
                answer: answer @ None,
                ..
            } if fails => *answer = Some(None),
            Task::Admit {
                session,
                user,
                read: read @ None,
                answer: None,
                ..
            } => {
                *read = Some(db.may_watch(session_of(*session), *user));
            }
            Task::Admit {
                session,
                read: Some(read),
                answer: answer @ None,
                ..
            } => {
                let session = session_of(*session);
                let admit = |can: &Can| database::admission(session, *can, db.snapshot(session));
                *answer = Some(Some(read.as_ref().map(admit).map_err(Clone::clone)));
            }
            Task::Page {
                answer: answer @ None,
                ..
            } if fails => *answer = Some(None),
            Task::Page {
                session,
                heads: heads @ None,
                ..
            } => *heads = Some(db.heads(session_of(*session))),
            Task::Page {
                session,
                heads: Some(heads),
                after,
                answer: answer @ None,
                ..
            } => {
                *answer = Some(db.page(session_of(*session), heads, *after, count));
            }
            Task::Refill {
                heads,
                answer: None,
                ..
            } if fails => *heads = None,
            Task::Refill {
                refill,
                heads: heads @ None,
                ..
            } => *heads = Some(db.heads(session_of(refill.session))),
            Task::Refill {
                refill,
                heads,
                answer: answer @ None,
                ..
            } => {
                let read = heads.take().expect("matched above");
                *answer = db.page(session_of(refill.session), &read, refill.after, count);
                if answer.is_some() {
                    *heads = Some(read);
                }
            }
            Task::Tally { answer: None, .. } if fails => {}
            Task::Tally {
                voting,
                answer: answer @ None,
                ..
            } => {
                let session =
                    usize::try_from(voting.0.as_u128() - 200).expect("a poll of the simulation");
                *answer = Some(db.tally(session));
            }
            Task::Admit { .. } | Task::Page { .. } | Task::Refill { .. } | Task::Tally { .. } => {
                self.answer(place)
            }
        }
    }

    fn pass_on(&mut self, peer: PeerId, result: QueryResult) {
        let now = self.now();
        self.tell(peer, |peer| peer.on_query_result(result, now));
    }

    #[expect(clippy::too_many_lines, reason = "a table: one task after the other")]
    fn answer(&mut self, place: usize) {
        match self.tasks.swap_remove(place) {
            Task::Admit {
                peer,
                session,
                attempt,
                is_check: true,
                answer,
                ..
            } => {
                let answer = answer
                    .expect("read before it is answered")
                    .map(|answer| answer.map(|admission| admission.access));
                let result = QueryResult::Checked {
                    session,
                    attempt,
                    answer,
                };
                self.pass_on(peer, result);
            }
            Task::Admit {
                peer,
                session,
                attempt,
                answer,
                ..
            } => {
                let answer = answer.expect("read before it is answered");
                let result = QueryResult::Admitted {
                    session,
                    attempt,
                    answer,
                };
                self.pass_on(peer, result);
            }
            Task::Page {
                peer,
                session,
                attempt,
                answer,
                ..
            } => {
                let answer = answer.expect("read before it is answered");
                let result = QueryResult::Page {
                    session,
                    attempt,
                    page: answer,
                };
                self.pass_on(peer, result);
            }
            Task::Refill {
                gateway,
                lane,
                refill,
                answer,
                ..
            } => {
                let page = answer.expect("read before it is answered");
                let (one, mut lines) = self.lane(gateway, lane);
                let questions = one.on_page(&refill, &page, &mut lines);
                self.ask(gateway, lane, questions);
            }
            Task::Tally {
                gateway,
                lane,
                answer,
                ..
            } => {
                let tally = answer.expect("read before it is answered");
                let (one, mut lines) = self.lane(gateway, lane);
                one.on_tally(&tally, &mut lines);
            }
        }
    }

    fn ask(&mut self, gateway: usize, lane: usize, questions: Vec<LoopQuery>) {
        self.tasks
            .extend(questions.into_iter().map(|question| match question {
                LoopQuery::Refill(refill) => Task::Refill {
                    gateway,
                    lane,
                    refill,
                    heads: None,
                    answer: None,
                },
                LoopQuery::Tally(voting) => Task::Tally {
                    gateway,
                    lane,
                    voting,
                    answer: None,
                },
            }));
    }

    // The gateways.

    /// Ends the process with all its sockets, and starts it again.
    fn restart(&mut self, number: usize) {
        let lanes = self.gateways[number].loops.len();
        let peers: Vec<PeerId> = self
            .connections
            .iter()
            .filter(|(_, one)| one.gateway == number)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in peers {
            self.vanish(peer);
        }
        self.gateways[number] = SimGateway::new(lanes, self.weather.ring_events_max);
        self.tasks.retain(|task| match task {
            Task::Refill { gateway, .. } | Task::Tally { gateway, .. } => *gateway != number,
            Task::Admit { .. } | Task::Page { .. } => true,
        });
    }

    fn deliver(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        if let Some(heard) = gateway.network.as_mut().and_then(VecDeque::pop_front) {
            for one in &mut gateway.loops {
                one.heard.push_back(heard.clone());
            }
        }
    }

    fn hear(&mut self, gateway: usize, lane: usize) {
        let (count, now) = (1 + self.dice.below(4), self.now());
        let (one, mut lines) = self.lane(gateway, lane);
        let questions = one.on_heard(count, now, &mut lines);
        self.ask(gateway, lane, questions);
    }

    fn obey(&mut self, gateway: usize, lane: usize) {
        let now = self.now();
        let (one, mut lines) = self.lane(gateway, lane);
        if let Some((peer, command)) = one.commands.pop_front() {
            let questions = one.on_command(peer, command, now, &mut lines);
            self.ask(gateway, lane, questions);
        }
    }

    fn obey_all(&mut self, gateway: usize, lane: usize) {
        while !self.gateways[gateway].loops[lane].commands.is_empty() {
            self.obey(gateway, lane);
        }
    }

    fn sweep(&mut self) {
        let later = self.now().at + Duration::from_secs(self.dice.pick(&[0, 100]));
        for one in self
            .gateways
            .iter_mut()
            .flat_map(|gateway| &mut gateway.loops)
        {
            one.router.sweep(later);
        }
    }

    fn lane(
        &mut self,
        gateway: usize,
        lane: usize,
    ) -> (&mut crate::gateway::Loop, SocketBuffers<'_>) {
        let stalls = if self.is_calm() {
            0
        } else {
            self.weather.stalls
        };
        let lines = SocketBuffers {
            connections: &mut self.connections,
            dice: &mut self.dice,
            stalls,
        };
        (&mut self.gateways[gateway].loops[lane], lines)
    }

    // The connections.

    fn connect(&mut self, client: usize) {
        self.next_peer += 1;
        let (id, now) = (PeerId(self.next_peer), self.now());
        let gateway = self.dice.below(self.gateways.len());
        if self.gateways[gateway]
            .loops
            .iter()
            .any(|one| !one.has_heard)
        {
            // The gateway is not ready and refuses the client.
            return;
        }
        let signed_in = self.clients[client]
            .user
            // After the storm no user connects anonymously, because an anonymous viewer may see sessions that a banned
            // user may not.
            .filter(|_| self.phase != Phase::Storm || self.dice.chance(85))
            .map(|user| Arc::new(identity(user)));
        let peer = Peer::new(Arc::clone(&self.rules), signed_in, Uuid::nil(), now);
        let lane = self.dice.below(self.gateways[gateway].loops.len());
        let connection = SimConnection {
            client,
            gateway,
            lane,
            peer,
            notes: VecDeque::new(),
            line: SocketBuffer::default(),
        };
        self.connections.insert(id, connection);
        self.tell(id, |_| ());
    }

    fn sign_in(&mut self, id: PeerId) {
        let client = self.connections[&id].client;
        let user = self.clients[client]
            .user
            .expect("an act of signed-in users");
        // The token is the user's number, because the simulation does not cover token verification.
        self.on_text(id, &format!(r#"{{"type":"auth","token":"{user}"}}"#));
    }

    fn on_text(&mut self, id: PeerId, text: &str) {
        if self.trace {
            eprintln!("{id:?} {text}");
        }
        let now = self.now();
        self.tell(id, |peer| {
            peer.on_heard(now);
            peer.on_frame(client::decode(text), now);
        });
    }

    fn take_note(&mut self, id: PeerId) {
        let now = self.now();
        let note = self
            .connections
            .get_mut(&id)
            .and_then(|connection| connection.notes.pop_front());
        self.tell(id, |peer| {
            if let Some(reply) = note {
                peer.on_router_reply(reply, now);
            }
        });
    }

    /// Calls a peer and carries out its effects.
    fn tell(&mut self, id: PeerId, what: impl FnOnce(&mut Peer)) {
        if let Some(connection) = self.connections.get_mut(&id) {
            what(&mut connection.peer);
            self.carry_out(id);
        }
    }

    fn carry_out(&mut self, id: PeerId) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let user = connection.peer.identity().subject;
        let user = user.map(|user| {
            usize::try_from(user.0.as_u128() - 1_000).expect("a user of the simulation")
        });
        for effect in connection.peer.take_effects() {
            let command = match effect {
                Effect::Router(request) => LoopCommand::Request(request),
                Effect::Refuse { id, refusal } => {
                    LoopCommand::Frame(server::error(id.as_ref(), &refusal).bytes)
                }
                Effect::Answer(frame) | Effect::Send(frame) => LoopCommand::Frame(frame.bytes),
                Effect::Query(query) => {
                    self.tasks.push(Task::of(id, user, query));
                    continue;
                }
                Effect::Close(_) => {
                    // Bytes that were written before the close frame arrive.
                    let (gateway, lane) = (connection.gateway, connection.lane);
                    self.obey_all(gateway, lane);
                    return self.part(id);
                }
                Effect::Prove { id: frame, token } => {
                    let user = token.parse().expect("the token of the simulation");
                    let outcome = Ok(identity(user));
                    let result = QueryResult::Proven { id: frame, outcome };
                    connection.peer.on_query_result(result, now);
                    return self.carry_out(id);
                }
                Effect::Began(_) | Effect::Write { .. } => continue,
            };
            self.gateways[connection.gateway].loops[connection.lane]
                .commands
                .push_back((id, command));
        }
    }

    /// Closes a connection. Bytes that were written before still reach the client.
    fn part(&mut self, id: PeerId) {
        let client = self.connections[&id].client;
        let line = self.line(id);
        let held = std::mem::take(&mut line.held);
        let mut wire = std::mem::take(&mut line.wire);
        wire.extend(held.into_iter().flatten());
        let read = self.clients[client].on_bytes(&wire, &self.db);
        self.broken = self.broken.take().or(read.err());
        self.vanish(id);
    }

    fn vanish(&mut self, id: PeerId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.clients[connection.client].on_dropped();
            self.tasks.retain(|task| match task {
                Task::Admit { peer, .. } | Task::Page { peer, .. } => *peer != id,
                Task::Refill { .. } | Task::Tally { .. } => true,
            });
            self.gateways[connection.gateway].loops[connection.lane]
                .commands
                .push_back((id, LoopCommand::Close));
        }
    }

    fn read(&mut self, id: PeerId) -> Result<(), String> {
        let client = self.connections[&id].client;
        let wire = std::mem::take(&mut self.line(id).wire);
        // The delivered bytes may end within a frame.
        let cut = if self.is_calm() {
            wire.len()
        } else {
            self.dice.below(wire.len()) + 1
        };
        self.line(id).wire = wire[cut..].to_vec();
        self.clients[client].on_bytes(&wire[..cut], &self.db)
    }

    fn line(&mut self, id: PeerId) -> &mut SocketBuffer {
        &mut self
            .connections
            .get_mut(&id)
            .expect("an act of an open connection")
            .line
    }

    // The time.

    fn wait(&mut self, ms: u64) -> Result<(), String> {
        self.unix_ms += ms;
        self.base += Duration::from_millis(ms);
        let now = self.now();
        let due: Vec<PeerId> = self
            .connections
            .iter()
            .filter(|(_, one)| one.peer.deadline(now) <= now.at)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.tell(id, |peer| {
                peer.on_heard(now);
                peer.on_deadline(now);
            });
            if let Some(connection) = self.connections.get(&id) {
                ensure(
                    connection.peer.deadline(now) > now.at,
                    "a deadline stays due",
                )?;
            }
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment {
            at: self.base,
            unix_ms: self.unix_ms,
        }
    }
}

impl Weather {
    fn draw(dice: &mut Dice, steps: Option<usize>) -> Self {
        let drawn = dice.pick(&[30, 100, 300, 600]);
        Self {
            steps: steps.unwrap_or(drawn),
            ring_events_max: dice.pick(&[1, 2, 3, 64]),
            page_events_max: dice.pick(&[1, 2, 5]),
            stalls: dice.pick(&[0, 0, 5, 30]),
            failures: dice.pick(&[0, 0, 10, 40]),
            commits: dice.pick(&[4, 10, 25]),
            outages: dice.pick(&[0, 1, 2]),
            access_changes: dice.pick(&[0, 0, 1, 4]),
            restores: dice.pick(&[0, 0, 0, 1]),
            trims: dice.pick(&[0, 1, 4]),
            drops: dice.pick(&[0, 1, 3]),
            hear: dice.pick(&[2, 10, 30]),
            pace: dice.pick(&[1, 5, 20]),
        }
    }
}

fn identity(user: usize) -> Identity {
    Identity {
        subject: Some(user_id(user)),
        role: Role::Authenticated,
        ..Identity::anonymous()
    }
}
