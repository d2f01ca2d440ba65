//! The run of one fault: a gateway with viewers and writers, the measured times, and the audit at the end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::ledger::{Flaws, Row};
use crate::stage::{
    Database, Gateway, GatewayOptions, Keys, PATIENCE, Postgres, connect, free_port,
};
use crate::viewer::{Order, Report, SharedState, Viewer, ViewerState};
use crate::writer::{Acked, WriterContext};

/// Viewers watch all of them. The last one is quiet: only faults write there, with [`FaultRun::write_to_quiet_session`].
const SESSIONS: usize = 3;
const SENDERS: usize = 3;
const VOTERS: usize = 3;
/// How long traffic flows before the fault, and after all viewers have caught up.
const CALM: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// The longest that a viewer may take to catch up.
const WHOLE_MAX: Duration = Duration::from_secs(60);

/// The settings of a run.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) viewers: usize,
    pub(crate) token_ttl: Duration,
    /// Additional environment variables of the gateway.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether viewers may have to start over.
    pub(crate) may_restart: bool,
    /// Whether other writers use SQL during the run.
    pub(crate) is_busy: bool,
}

/// The run of one fault.
pub(crate) struct FaultRun<'a> {
    pub(crate) postgres: &'a mut Postgres,
    pub(crate) database: Database,
    pub(crate) options: GatewayOptions,
    /// The gateways. A fault breaks the first one.
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) orders: Vec<watch::Sender<Order>>,
    pub(crate) author: Uuid,
    setting: Setting,
    nodes: watch::Sender<Vec<SocketAddr>>,
    viewers: Vec<JoinHandle<Report>>,
    senders: Vec<JoinHandle<anyhow::Result<Vec<Acked>>>>,
    others: Vec<JoinHandle<anyhow::Result<u64>>>,
    is_over: watch::Sender<bool>,
    voting: Uuid,
    lifted: Option<Instant>,
    forgiven_until: Option<Instant>,
    /// The time that each viewer took to catch up, sorted.
    whole: Vec<Duration>,
    remarks: Vec<String>,
}

/// The result of a run.
pub(crate) struct Outcome {
    /// The longest time without an event per viewer: median and maximum.
    pub(crate) outage: (Duration, Duration),
    /// The time from the end of the fault until a viewer has caught up: median and maximum.
    pub(crate) whole: (Duration, Duration),
    pub(crate) flaws: Flaws,
    /// The number of checked deliveries.
    pub(crate) deliveries: u64,
    pub(crate) resumes: u64,
    pub(crate) restarts: u64,
    /// Other facts for the reader of the table.
    pub(crate) remarks: Vec<String>,
    /// Errors that the flaws do not count.
    pub(crate) complaints: Vec<String>,
}

impl<'a> FaultRun<'a> {
    /// Starts a gateway, viewers and writers, and waits until all viewers watch and traffic flows.
    pub(crate) async fn open(
        postgres: &'a mut Postgres,
        log: &Path,
        setting: Setting,
    ) -> anyhow::Result<Self> {
        let database = postgres.database().await?;
        let cast = Cast::invite(&database, setting.viewers).await?;
        let options = GatewayOptions {
            at: free_port()?,
            database_url: database.gateway_url.clone(),
            log: log.to_owned(),
            environment: setting.environment.clone(),
        };
        let gateway = Gateway::start(&options).await?;
        let (nodes, known_nodes) = watch::channel(vec![gateway.at]);
        let viewer_state = |_| ViewerState {
            positions: (0..SESSIONS).map(|_| AtomicU64::new(0)).collect(),
            port: AtomicU16::new(0),
        };
        let shared = Arc::new(SharedState {
            sessions: cast.sessions.clone(),
            nodes: known_nodes,
            is_armed: AtomicBool::new(false),
            viewer_states: (0..setting.viewers).map(viewer_state).collect(),
        });
        let keys = Arc::new(Keys {
            ttl: setting.token_ttl,
            ahead: AtomicI64::new(0),
        });
        let (is_over, over) = watch::channel(false);
        let mut fault_run = Self {
            postgres,
            database: database.clone(),
            options,
            gateways: vec![gateway],
            orders: Vec::new(),
            author: cast.author,
            setting,
            nodes,
            viewers: Vec::new(),
            senders: Vec::new(),
            others: Vec::new(),
            is_over,
            voting: cast.voting,
            lifted: None,
            forgiven_until: None,
            whole: Vec::new(),
            remarks: Vec::new(),
            shared: Arc::clone(&shared),
            keys: Arc::clone(&keys),
        };
        fault_run.seat_viewers(&cast);
        fault_run.wait_for_viewers().await?;
        let context = WriterContext {
            shared,
            keys,
            database,
            is_over: over,
        };
        fault_run.begin_to_write(&context, &cast);
        sleep(CALM).await;
        Ok(fault_run)
    }

    fn seat_viewers(&mut self, cast: &Cast) {
        for number in 0..self.setting.viewers {
            let (order, orders) = watch::channel(Order::Watch);
            let user = number.is_multiple_of(2).then(|| cast.audience[number / 2]);
            let shared = Arc::clone(&self.shared);
            let viewer = Viewer::new(number, shared, user, Arc::clone(&self.keys), orders);
            self.viewers.push(tokio::spawn(viewer.run()));
            self.orders.push(order);
        }
    }

    /// Waits until every viewer has received an event in every session.
    async fn wait_for_viewers(&self) -> anyhow::Result<()> {
        let client = self.database.connect().await?;
        let has_received_everywhere = |viewer_state: &ViewerState| {
            let mut positions = viewer_state.positions.iter();
            positions.all(|position| position.load(Ordering::Relaxed) > 0)
        };
        let all_receive = async {
            while !self
                .shared
                .viewer_states
                .iter()
                .all(has_received_everywhere)
            {
                for session in &self.shared.sessions {
                    self.mark(&client, session).await?;
                }
                sleep(PATIENCE / 600).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, all_receive)
            .await
            .context("not all viewers receive events")?
    }

    fn begin_to_write(&mut self, context: &WriterContext, cast: &Cast) {
        for sender in &cast.senders {
            self.senders
                .push(tokio::spawn(context.clone().send(*sender)));
        }
        for voter in &cast.voters {
            let voting = context
                .clone()
                .vote(*voter, cast.voting, cast.movies.clone());
            self.others.push(tokio::spawn(voting));
        }
        if self.setting.is_busy {
            self.others
                .push(tokio::spawn(context.clone().insert(cast.author)));
        }
    }

    /// Marks the start of the fault.
    pub(crate) fn mark_fault_start(&self) {
        self.shared.is_armed.store(true, Ordering::Relaxed);
    }

    /// Marks the end of the fault: from here, viewers should catch up.
    pub(crate) fn mark_fault_end(&mut self) {
        self.lifted = Some(Instant::now());
    }

    /// Writes a message to the quiet session. No later message follows there that would reveal a gap.
    pub(crate) async fn write_to_quiet_session(
        &self,
        client: &tokio_postgres::Client,
    ) -> anyhow::Result<()> {
        self.mark(client, &self.shared.quiet()).await?;
        Ok(())
    }

    /// Adds a fact for the reader of the table.
    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Gives some viewers an order.
    pub(crate) fn order(&self, viewers: impl Iterator<Item = usize>, order: Order) {
        for viewer in viewers {
            self.orders[viewer].send_replace(order);
        }
    }

    /// Starts another gateway for the same database.
    pub(crate) async fn add_gateway(&mut self) -> anyhow::Result<()> {
        let options = GatewayOptions {
            at: free_port()?,
            ..self.options.clone()
        };
        self.gateways.push(Gateway::start(&options).await?);
        self.nodes
            .send_replace(self.gateways.iter().map(|gateway| gateway.at).collect());
        Ok(())
    }

    /// Removes gateways that are gone from the list that clients try.
    pub(crate) fn forget_lost(&mut self) {
        self.nodes
            .send_replace(self.gateways.iter().map(|gateway| gateway.at).collect());
    }

    /// Starts the gateway again at the same address.
    pub(crate) async fn restart_gateway(&mut self) -> anyhow::Result<()> {
        let options = self.options.clone();
        self.gateways.insert(0, Gateway::start(&options).await?);
        Ok(())
    }

    /// Excuses the loss of messages acknowledged so far, because the database was restored to an earlier state.
    pub(crate) fn forgive_what_was_undone(&mut self) {
        self.forgiven_until = Some(Instant::now());
    }

    /// Sets the gateway's clock ahead by some seconds.
    pub(crate) fn set_clock(&self, ahead: i64) -> anyhow::Result<()> {
        Ok(std::fs::write(
            clock_file(&self.options.log),
            format!("+{ahead}s"),
        )?)
    }

    /// Waits until every viewer has caught up, for a fault that measures the cost of that.
    pub(crate) async fn recover(&mut self) -> anyhow::Result<()> {
        let lifted = self.lifted.unwrap_or_else(Instant::now);
        self.whole = self.times_to_whole(lifted).await?;
        Ok(())
    }

    /// Resets the published positions of all viewers, because they must start over.
    pub(crate) fn forget_positions(&self) {
        for viewer_state in &self.shared.viewer_states {
            for position in &viewer_state.positions {
                position.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Lets all viewers catch up, stops everything and audits the result.
    pub(crate) async fn close(mut self) -> anyhow::Result<Outcome> {
        if self.whole.is_empty() {
            self.recover().await?;
        }
        sleep(CALM).await;
        self.shared.is_armed.store(false, Ordering::Relaxed);
        self.is_over.send_replace(true);
        let mut complaints = Vec::new();
        let mut acked = Vec::new();
        for sender in std::mem::take(&mut self.senders) {
            match timeout(PATIENCE, sender)
                .await
                .context("wait for a sender to finish")??
            {
                Ok(some) => acked.extend(some),
                Err(error) => complaints.push(error.to_string()),
            }
        }
        for other in std::mem::take(&mut self.others) {
            if let Err(error) = timeout(PATIENCE, other)
                .await
                .context("wait for a writer to finish")??
            {
                complaints.push(error.to_string());
            }
        }
        self.times_to_whole(Instant::now()).await?;
        // The last tally is sent within a second of the last vote.
        sleep(CALM).await;
        self.order(0..self.setting.viewers, Order::Stop);
        let mut reports = Vec::new();
        for viewer in std::mem::take(&mut self.viewers) {
            reports.push(
                timeout(PATIENCE, viewer)
                    .await
                    .context("wait for a viewer to stop")??,
            );
        }
        self.audit(&reports, &acked, complaints).await
    }

    /// Writes to each session and waits until every viewer has received that. Then it has everything before it too.
    async fn times_to_whole(&self, since: Instant) -> anyhow::Result<Vec<Duration>> {
        let deadline = Instant::now() + WHOLE_MAX;
        let marks = loop {
            match timeout(PATIENCE, self.marks()).await? {
                Ok(marks) => break marks,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(POLL).await,
            }
        };
        let mut times: Vec<Option<Duration>> = vec![None; self.shared.viewer_states.len()];
        while times.iter().any(Option::is_none) {
            for (time, viewer_state) in times.iter_mut().zip(&self.shared.viewer_states) {
                let mut positions = viewer_state.positions.iter().zip(&marks);
                if time.is_none() && positions.all(|(at, mark)| at.load(Ordering::Relaxed) >= *mark)
                {
                    *time = Some(since.elapsed());
                }
            }
            if Instant::now() > deadline {
                let missing = times.iter().filter(|time| time.is_none()).count();
                bail!("{missing} viewers have not caught up after {WHOLE_MAX:?}");
            }
            sleep(POLL).await;
        }
        let mut times: Vec<Duration> = times.into_iter().flatten().collect();
        times.sort_unstable();
        Ok(times)
    }

    /// Writes a message to each busy session. Returns the newest number of every session. It does not write to the
    /// quiet session, because that message would reveal an earlier gap.
    async fn marks(&self) -> anyhow::Result<Vec<u64>> {
        let client = self.database.connect().await?;
        let mut marks = Vec::new();
        for session in self.shared.busy() {
            marks.push(self.mark(&client, session).await?);
        }
        let sql = "select max(seq) from usher.session_events where session_id = $1";
        let end = client.query_one(sql, &[&self.shared.quiet()]).await?;
        marks.push(end.get::<_, i64>(0).cast_unsigned());
        Ok(marks)
    }

    /// Writes a message to a session. Returns its number.
    async fn mark(&self, client: &tokio_postgres::Client, session: &Uuid) -> anyhow::Result<u64> {
        let sql =
            "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, 'mark')
            returning id";
        let row = client.query_one(sql, &[session, &self.author]).await?;
        let message: Uuid = row.get(0);
        let sql = "select seq from usher.session_events where message_id = $1";
        let row = client.query_one(sql, &[&message]).await?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
    }

    async fn audit(
        self,
        reports: &[Report],
        acked: &[Acked],
        mut complaints: Vec<String>,
    ) -> anyhow::Result<Outcome> {
        let mut flaws = Flaws::default();
        let mut deliveries = 0;
        for (place, session) in self.shared.sessions.iter().enumerate() {
            let log = self.database.log(*session).await?;
            for report in reports {
                flaws.add(report.ledgers[place].audit(&log));
                deliveries += report.ledgers[place].received();
            }
            flaws.add(self.audit_table(*session, &log, acked).await?);
        }
        flaws.tallies += self.wrong_tallies(reports).await?;
        complaints.extend(reports.iter().flat_map(|report| report.refusals.clone()));
        let restarts = reports
            .iter()
            .flat_map(|report| report.restarts.values())
            .sum();
        if restarts > 0 && !self.setting.may_restart {
            complaints.push(format!("{restarts} subscriptions had to start over"));
        }
        let mut silences: Vec<Duration> = reports
            .iter()
            .map(|report| report.longest_silence)
            .collect();
        silences.sort_unstable();
        Ok(Outcome {
            outage: spread(&silences),
            whole: spread(&self.whole),
            flaws,
            deliveries,
            resumes: reports.iter().map(|report| report.resumes).sum(),
            restarts,
            remarks: self.remarks.clone(),
            complaints,
        })
    }

    /// Checks that every message is in the log exactly once, and that every acknowledged message has the acknowledged
    /// id and number.
    async fn audit_table(
        &self,
        session: Uuid,
        log: &[Row],
        acked: &[Acked],
    ) -> anyhow::Result<Flaws> {
        let client = self.database.connect().await?;
        let mut flaws = Flaws::default();
        let sql = "select m.id, m.user_id, m.nonce, count(e.seq), min(e.seq)
            from public.chat_messages m
            left join usher.session_events e on e.message_id = m.id and e.type = 'chat.created'
            where m.session_id = $1
            group by m.id";
        let mut by_nonce: HashMap<(Uuid, Uuid), (Uuid, Option<i64>)> = HashMap::new();
        for row in client.query(sql, &[&session]).await? {
            let (message, author): (Uuid, Uuid) = (row.get(0), row.get(1));
            let events: i64 = row.get(3);
            flaws.lost += u64::from(events == 0);
            flaws.doubled += u64::try_from(events - 1).unwrap_or_default();
            if let Some(nonce) = row.get::<_, Option<Uuid>>(2)
                && by_nonce
                    .insert((author, nonce), (message, row.get(4)))
                    .is_some()
            {
                flaws.doubled += 1;
            }
        }
        let is_due = |ack: &&Acked| ack.session == session && Some(ack.at) > self.forgiven_until;
        for ack in acked.iter().filter(is_due) {
            let found = by_nonce.get(&(ack.author, ack.nonce));
            let is_there = found.is_some_and(|(message, seq)| {
                *message == ack.message && seq.map(i64::cast_unsigned) == Some(ack.seq)
            });
            flaws.lost += u64::from(!is_there);
        }
        let numbers = log.iter().zip(1..);
        flaws.gaps += numbers.filter(|((seq, _), due)| seq != due).count() as u64;
        Ok(flaws)
    }

    /// Counts the viewers whose last tally differs from the table.
    async fn wrong_tallies(&self, reports: &[Report]) -> anyhow::Result<u64> {
        let sql =
            "select movie_id, count(*) from public.votes where voting_session_id = $1 group by 1";
        let rows = self
            .database
            .connect()
            .await?
            .query(sql, &[&self.voting])
            .await?;
        let counted: HashMap<String, i64> = rows
            .iter()
            .map(|row| (row.get::<_, Uuid>(0).to_string(), row.get(1)))
            .collect();
        let is_right = |tally: &Value| {
            let counts = tally["counts"].as_array().into_iter().flatten();
            let counts = counts.filter_map(|count| {
                Some((
                    count["movie"].as_str()?.to_owned(),
                    count["votes"].as_i64()?,
                ))
            });
            counts
                .filter(|(_, votes)| *votes > 0)
                .collect::<HashMap<_, _>>()
                == counted
        };
        let wrong = reports.iter().filter(|report| {
            let tally = report.tallies.get(&self.voting);
            !tally.is_some_and(is_right)
        });
        Ok(wrong.count() as u64)
    }
}

/// Returns the environment that makes a gateway read its clock from a file.
pub(crate) fn fake_clock(log: &Path) -> Vec<(&'static str, String)> {
    let library = fake_clock_library().unwrap_or_default();
    vec![
        ("LD_PRELOAD", library),
        (
            "FAKETIME_TIMESTAMP_FILE",
            clock_file(log).display().to_string(),
        ),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// Returns the path of the library from Debian's package `libfaketime`.
pub(crate) fn fake_clock_library() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists())?;
    Some(found.display().to_string())
}

fn clock_file(log: &Path) -> PathBuf {
    log.with_extension("clock")
}

/// The users, sessions and the poll of a run.
struct Cast {
    sessions: Vec<Uuid>,
    author: Uuid,
    senders: Vec<Uuid>,
    voters: Vec<Uuid>,
    audience: Vec<Uuid>,
    voting: Uuid,
    movies: Vec<Uuid>,
}

impl Cast {
    async fn invite(database: &Database, viewers: usize) -> anyhow::Result<Self> {
        let client = connect(&database.url).await?;
        let ids = |count: usize| (0..count).map(|_| Uuid::new_v4()).collect::<Vec<_>>();
        let cast = Self {
            sessions: ids(SESSIONS),
            author: Uuid::new_v4(),
            senders: ids(SENDERS),
            voters: ids(VOTERS),
            audience: ids(viewers.div_ceil(2)),
            voting: Uuid::new_v4(),
            movies: ids(3),
        };
        let mut users = vec![cast.author];
        users.extend(
            cast.senders
                .iter()
                .chain(&cast.voters)
                .chain(&cast.audience),
        );
        let sql = "insert into auth.users (id, aud, role) select u, 'authenticated', 'authenticated' from unnest($1::uuid[]) u";
        client.execute(sql, &[&users]).await?;
        let sql = "insert into public.movie_sessions (id, streamer_id, title, status)
            select s, $2, 'An evening of faults', 'live' from unnest($1::uuid[]) s";
        client.execute(sql, &[&cast.sessions, &cast.author]).await?;
        let sql =
            "insert into public.movies (id, title) select m, 'A movie' from unnest($1::uuid[]) m";
        client.execute(sql, &[&cast.movies]).await?;
        let sql = "insert into public.voting_sessions (id, session_id, question) values ($1, $2, 'Which?')";
        client
            .execute(sql, &[&cast.voting, &cast.sessions[0]])
            .await?;
        let sql = "insert into public.voting_options (voting_session_id, movie_id) select $1, m from unnest($2::uuid[]) m";
        client.execute(sql, &[&cast.voting, &cast.movies]).await?;
        let sql = "update public.voting_sessions set state = 'open' where id = $1";
        client.execute(sql, &[&cast.voting]).await?;
        Ok(cast)
    }
}

/// Returns the median and the maximum of a sorted list.
fn spread(times: &[Duration]) -> (Duration, Duration) {
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}
