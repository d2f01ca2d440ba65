//! The faults: each breaks one thing for some time and then repairs it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;
use tokio_postgres::Client;
use usher_devdb::cluster::StopMode;

use crate::fault_run::FaultRun;
use crate::netfilter::Silence;
use crate::stage::{Gateway, PATIENCE};
use crate::viewer::Order;

/// Longer than the gateway waits for its own NOTIFY echo: it probes every 5 s and waits at most 5 s.
const LONGER_THAN_PROBE: Duration = Duration::from_secs(11);
/// How long a long fault lasts.
const LONG_FAULT: Duration = Duration::from_secs(2);
/// How long a short fault lasts. A twentieth of it separates two steps of a fault.
const SHORT_FAULT: Duration = Duration::from_millis(500);
/// Messages that a stalled viewer misses. They exceed the buffers of any socket.
const FLOOD_ROWS: i32 = 4_000;

/// What a fault needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// A network namespace, to drop packets.
    Namespace,
    /// A separate disk, mounted in a namespace.
    SmallDisk,
    /// The library libfaketime, to change the gateway's clock.
    FakeClock,
}

/// The kind of viewers and gateway that a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    Usual,
    /// Two thousand viewers.
    Herd,
    /// Tokens that expire after a few seconds.
    ShortTokens,
    /// Viewers that may have to start over.
    MayRestart,
    /// A gateway with a long heartbeat timeout.
    Patient,
}

type Run = for<'e> fn(&'e mut FaultRun<'_>) -> BoxFuture<'e, anyhow::Result<()>>;

/// One way to break things.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) need: Need,
    pub(crate) crowd: Crowd,
    /// Whether it also runs without `--all`.
    pub(crate) is_short: bool,
    pub(crate) run: Run,
}

const fn fault(name: &'static str, about: &'static str, run: Run) -> Fault {
    Fault {
        name,
        about,
        need: Need::Nothing,
        crowd: Crowd::Usual,
        is_short: false,
        run,
    }
}

impl Fault {
    const fn short(mut self) -> Self {
        self.is_short = true;
        self
    }

    const fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    const fn before(mut self, crowd: Crowd) -> Self {
        self.crowd = crowd;
        self
    }
}

/// All faults, in the order of their runs.
pub(crate) const FAULTS: &[Fault] = &[
    fault("nothing", "no fault, for comparison", |fault_run| {
        Box::pin(nothing(fault_run))
    }),
    fault(
        "gateway-killed",
        "kill -9 of the gateway, started again after 0.5 s",
        |fault_run| Box::pin(gateway_killed(fault_run)),
    )
    .short(),
    fault(
        "gateway-stopped",
        "SIGTERM of the gateway, started again",
        |fault_run| Box::pin(gateway_stopped(fault_run)),
    ),
    fault(
        "gateway-frozen",
        "SIGSTOP of the gateway for 5 s",
        |fault_run| Box::pin(gateway_frozen(fault_run)),
    ),
    fault(
        "node-lost",
        "kill -9 of one of two gateways: its clients move to the other",
        |fault_run| Box::pin(node_lost(fault_run)),
    ),
    fault(
        "listen-ended",
        "the LISTEN backend is terminated, three times",
        |fault_run| Box::pin(listen_ended(fault_run)),
    )
    .short(),
    fault(
        "backends-ended",
        "every backend of the gateway is terminated",
        |fault_run| Box::pin(backends_ended(fault_run)),
    ),
    fault(
        "postgres-stopped",
        "Postgres is stopped (fast) for 2 s",
        |fault_run| Box::pin(postgres_away(fault_run, StopMode::Fast)),
    ),
    fault(
        "postgres-crashed",
        "Postgres is stopped (immediate) and recovers",
        |fault_run| Box::pin(postgres_away(fault_run, StopMode::Immediate)),
    )
    .short(),
    fault(
        "postgres-killed",
        "kill -9 of Postgres, which recovers",
        |fault_run| Box::pin(postgres_away(fault_run, StopMode::Crash)),
    ),
    fault(
        "postgres-frozen",
        "SIGSTOP of every Postgres process for 11 s",
        |fault_run| Box::pin(postgres_frozen(fault_run)),
    ),
    fault(
        "database-half-open",
        "packets of the gateway's connections to Postgres vanish for 11 s",
        |fault_run| Box::pin(database_half_open(fault_run)),
    )
    .needs(Need::Namespace),
    fault(
        "connections-exhausted",
        "other programs use every connection of Postgres for 4 s",
        |fault_run| Box::pin(connections_exhausted(fault_run)),
    ),
    fault(
        "disk-full",
        "the disk under Postgres is full for 3 s",
        |fault_run| Box::pin(disk_full(fault_run)),
    )
    .needs(Need::SmallDisk),
    fault(
        "notify-queue-held",
        "an idle transaction that listens holds the NOTIFY queue for 6 s",
        |fault_run| Box::pin(notify_queue_held(fault_run)),
    ),
    fault(
        "log-held",
        "an open transaction holds a session's log for 5 s, then rolls back",
        |fault_run| Box::pin(log_held(fault_run)),
    ),
    fault(
        "went-back",
        "Postgres is restored to a copy from 2 s ago, on a new timeline",
        |fault_run| Box::pin(went_back(fault_run)),
    )
    .before(Crowd::MayRestart),
    fault(
        "tokens-expire",
        "every token expires within seconds, repeatedly",
        |fault_run| Box::pin(tokens_expire(fault_run)),
    )
    .before(Crowd::ShortTokens),
    fault(
        "clock-jumps",
        "the gateway's clock jumps two hours ahead, and back",
        |fault_run| Box::pin(clock_jumps(fault_run)),
    )
    .needs(Need::FakeClock),
    fault(
        "clients-stall",
        "half of the viewers read nothing while 4,000 messages pass",
        |fault_run| Box::pin(clients_stall(fault_run)),
    )
    .before(Crowd::Patient),
    fault(
        "clients-half-close",
        "half of the viewers close their sending direction",
        |fault_run| Box::pin(clients_do(fault_run, Order::HalfClose)),
    ),
    fault(
        "clients-reset",
        "half of the viewers reset their connection (RST)",
        |fault_run| Box::pin(clients_do(fault_run, Order::Reset)),
    )
    .short(),
    fault(
        "clients-half-open",
        "packets of half of the viewers vanish for 5 s",
        |fault_run| Box::pin(clients_half_open(fault_run, Order::Watch)),
    )
    .needs(Need::Namespace),
    fault(
        "clients-vanish",
        "half of the viewers vanish without closing, and reconnect",
        |fault_run| Box::pin(clients_half_open(fault_run, Order::Vanish)),
    )
    .needs(Need::Namespace),
    fault(
        "herd-dropped",
        "2,000 viewers are disconnected together",
        |fault_run| Box::pin(herd_dropped(fault_run)),
    )
    .before(Crowd::Herd),
];

async fn nothing(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    sleep(LONG_FAULT).await;
    fault_run.mark_fault_end();
    Ok(())
}

async fn gateway_killed(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    fault_run.gateways.remove(0);
    sleep(SHORT_FAULT).await;
    fault_run.restart_gateway().await?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn gateway_stopped(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    let mut gateway = fault_run.gateways.remove(0);
    gateway.signal(Signal::TERM)?;
    gateway.ended().await?;
    fault_run.restart_gateway().await?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn gateway_frozen(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    fault_run.gateways[0].signal(Signal::STOP)?;
    sleep(LONGER_THAN_PROBE / 2).await;
    fault_run.gateways[0].signal(Signal::CONT)?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn node_lost(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.add_gateway().await?;
    fault_run.mark_fault_start();
    // Clients keep trying it for a while, in turn with the other, as behind a load balancer that notices late.
    drop::<Gateway>(fault_run.gateways.remove(0));
    sleep(SHORT_FAULT).await;
    fault_run.forget_lost();
    fault_run.mark_fault_end();
    Ok(())
}

async fn listen_ended(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    fault_run.mark_fault_start();
    for _ in 0..3 {
        // The last query of that backend before it began to listen.
        end_backends(
            &client,
            "query = 'select usher.epoch(), (usher.channel_names()).*'",
        )
        .await?;
        sleep(SHORT_FAULT / 20).await;
        fault_run.write_to_quiet_session(&client).await?;
        sleep(SHORT_FAULT).await;
    }
    fault_run.mark_fault_end();
    Ok(())
}

async fn backends_ended(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    fault_run.mark_fault_start();
    end_backends(&client, "true").await?;
    sleep(SHORT_FAULT / 20).await;
    fault_run.write_to_quiet_session(&client).await?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn end_backends(client: &Client, which: &str) -> anyhow::Result<()> {
    let sql = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where usename = 'usher_gateway' and datname = current_database() and {which}"
    );
    let mut tries = 0;
    while client.query_one(&sql, &[]).await?.get::<_, i64>(0) == 0 {
        tries += 1;
        if tries > 200 {
            bail!("no such backend to terminate: {which}");
        }
        sleep(SHORT_FAULT / 20).await;
    }
    Ok(())
}

async fn postgres_away(fault_run: &mut FaultRun<'_>, mode: StopMode) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    fault_run.postgres.cluster.stop_server(mode).await?;
    sleep(LONG_FAULT).await;
    fault_run.postgres.cluster.start_server().await?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn postgres_frozen(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let processes = fault_run.postgres.processes()?;
    fault_run.mark_fault_start();
    for process in &processes {
        kill_process(*process, Signal::STOP).context("freeze postgres")?;
    }
    sleep(LONGER_THAN_PROBE).await;
    for process in &processes {
        kill_process(*process, Signal::CONT).context("thaw postgres")?;
    }
    fault_run.mark_fault_end();
    Ok(())
}

async fn database_half_open(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let sql = "select client_port from pg_stat_activity where usename = 'usher_gateway' and client_port > 0";
    let client = fault_run.database.connect().await?;
    let rows = client.query(sql, &[]).await?;
    let port = |row: &tokio_postgres::Row| u16::try_from(row.get::<_, i32>(0)).ok();
    let ports: Vec<u16> = rows.iter().filter_map(port).collect();
    fault_run.mark_fault_start();
    let silence = Silence::over(&ports).context("drop packets")?;
    fault_run.write_to_quiet_session(&client).await?;
    sleep(LONGER_THAN_PROBE).await;
    drop(silence);
    fault_run.mark_fault_end();
    Ok(())
}

async fn connections_exhausted(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    let sql = "alter role postgres connection limit -1; create role greedy login password 'greedy'";
    // Fails if an earlier run of this fault has created the role in this cluster.
    let _ = client.batch_execute(sql).await;
    let name = fault_run
        .database
        .url
        .rsplit('/')
        .next()
        .context("a database has a name")?;
    let url = fault_run.postgres.cluster.url_for("greedy", "greedy", name);
    fault_run.mark_fault_start();
    let mut greedy = Vec::new();
    end_backends(&client, "true").await?;
    for _ in 0..8 {
        // The gateway immediately takes some back. These get terminated too, until it has none left.
        while let Ok(connection) = crate::stage::connect(&url).await {
            greedy.push(connection);
        }
        let _ = end_backends(&client, "true").await;
        sleep(SHORT_FAULT).await;
    }
    let taken = greedy.len();
    drop(greedy);
    fault_run.remark(format!("{taken} connections taken"));
    fault_run.mark_fault_end();
    Ok(())
}

async fn disk_full(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let filler = fault_run.postgres.home.join("filler");
    fault_run.mark_fault_start();
    let fill = tokio::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", filler.display()))
        .stderr(std::process::Stdio::null())
        .status();
    let status = fill.await?;
    if status.success() {
        bail!("the small disk cannot be filled");
    }
    sleep(LONG_FAULT * 3 / 2).await;
    let refused = match fault_run.database.connect().await {
        Ok(client) => {
            let write = "create table disk_full as select repeat('x', 1000) from generate_series(1, 100000)";
            client.batch_execute(write).await.is_err()
        }
        Err(_) => true,
    };
    if !refused {
        bail!("the disk is not full");
    }
    std::fs::remove_file(&filler)?;
    // If Postgres could not write its WAL, it has stopped, and an operator starts it again.
    if fault_run.database.connect().await.is_err() {
        fault_run
            .postgres
            .cluster
            .stop_server(StopMode::Immediate)
            .await?;
        fault_run.postgres.cluster.start_server().await?;
        fault_run.remark("Postgres had stopped and was started again".to_owned());
    }
    fault_run.mark_fault_end();
    Ok(())
}

async fn notify_queue_held(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    let row = client
        .query_one("select events from usher.channels", &[])
        .await?;
    let channel: String = row.get(0);
    client.batch_execute(&format!("listen {channel}")).await?;
    fault_run.mark_fault_start();
    client.batch_execute("begin; select 1").await?;
    sleep(LONGER_THAN_PROBE / 2).await;
    let held: f64 = fault_run
        .database
        .connect()
        .await?
        .query_one("select pg_notification_queue_usage()", &[])
        .await?
        .get(0);
    client.batch_execute("rollback").await?;
    if held == 0.0 {
        bail!("the queue was not held");
    }
    fault_run.mark_fault_end();
    Ok(())
}

async fn log_held(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    fault_run.mark_fault_start();
    client.batch_execute("begin").await?;
    let sql = "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, 'never committed')";
    client
        .execute(sql, &[&fault_run.shared.sessions[0], &fault_run.author])
        .await?;
    sleep(LONGER_THAN_PROBE / 2).await;
    client.batch_execute("rollback").await?;
    fault_run.mark_fault_end();
    Ok(())
}

async fn went_back(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let (data, copy) = (
        fault_run.postgres.home.join("data"),
        fault_run.postgres.home.join("copy"),
    );
    fault_run
        .postgres
        .cluster
        .stop_server(StopMode::Fast)
        .await?;
    copy_tree(&data, &copy).await?;
    fault_run.postgres.cluster.start_server().await?;
    // Brings all viewers ahead of the copy.
    fault_run
        .write_to_quiet_session(&fault_run.database.connect().await?)
        .await?;
    sleep(LONG_FAULT).await;
    fault_run.mark_fault_start();
    fault_run
        .postgres
        .cluster
        .stop_server(StopMode::Fast)
        .await?;
    tokio::fs::remove_dir_all(&data).await?;
    tokio::fs::rename(&copy, &data).await?;
    // Makes Postgres recover to the end of the copy and begin a new timeline, like any point-in-time recovery.
    let signal = data.join("recovery.signal");
    tokio::fs::write(&signal, "").await?;
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data)?);
    std::os::unix::fs::chown(&signal, Some(owner), Some(owner))?;
    let restore = "\nrestore_command = '/bin/false'\n";
    let mut settings = tokio::fs::read_to_string(data.join("postgresql.auto.conf")).await?;
    settings.push_str(restore);
    tokio::fs::write(data.join("postgresql.auto.conf"), settings).await?;
    fault_run.forget_positions();
    fault_run.postgres.cluster.start_server().await?;
    // Writes as soon as the server accepts it, if possible before the gateway has looked. The new event then has a
    // number that all viewers already have for another event.
    let client = fault_run.database.connect().await?;
    let writing_quietly = async {
        while fault_run.write_to_quiet_session(&client).await.is_err() {
            sleep(SHORT_FAULT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, writing_quietly)
        .await
        .context("write to the restored server")?;
    fault_run.forgive_what_was_undone();
    fault_run.mark_fault_end();
    Ok(())
}

async fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let copied = tokio::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .await?;
    if !copied.success() {
        bail!("cp -a failed: {copied}");
    }
    Ok(())
}

async fn tokens_expire(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    sleep(LONGER_THAN_PROBE).await;
    fault_run.mark_fault_end();
    Ok(())
}

async fn clock_jumps(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    const TWO_HOURS: i64 = 2 * 3_600;
    fault_run.mark_fault_start();
    for ahead in [TWO_HOURS, 0] {
        // The clock of the auth server moves with the gateway's.
        fault_run.keys.ahead.store(ahead, Ordering::Relaxed);
        fault_run.set_clock(ahead)?;
        sleep(LONG_FAULT * 2).await;
    }
    fault_run.mark_fault_end();
    Ok(())
}

async fn clients_stall(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    fault_run.order(half(fault_run), Order::Stall);
    let client = fault_run.database.connect().await?;
    let sql = "insert into public.chat_messages (session_id, user_id, body)
        select $1, $2, repeat('flood ', 300) from generate_series(1, $3::int)";
    for session in fault_run.shared.busy().to_vec() {
        client
            .execute(sql, &[&session, &fault_run.author, &(FLOOD_ROWS / 2)])
            .await?;
    }
    sleep(LONGER_THAN_PROBE / 2).await;
    fault_run.mark_fault_end();
    fault_run.order(half(fault_run), Order::Watch);
    Ok(())
}

#[expect(
    clippy::unused_async,
    reason = "all faults have the same async signature"
)]
async fn clients_do(fault_run: &mut FaultRun<'_>, order: Order) -> anyhow::Result<()> {
    fault_run.mark_fault_start();
    fault_run.order(half(fault_run), order);
    fault_run.mark_fault_end();
    Ok(())
}

async fn clients_half_open(fault_run: &mut FaultRun<'_>, order: Order) -> anyhow::Result<()> {
    let ports = half(fault_run).map(|viewer_state| {
        fault_run.shared.viewer_states[viewer_state]
            .port
            .load(Ordering::Relaxed)
    });
    let ports: Vec<u16> = ports.filter(|port| *port > 0).collect();
    fault_run.mark_fault_start();
    let silence = Silence::over(&ports).context("drop packets")?;
    fault_run.order(half(fault_run), order);
    sleep(LONGER_THAN_PROBE / 2).await;
    drop(silence);
    fault_run.mark_fault_end();
    Ok(())
}

async fn herd_dropped(fault_run: &mut FaultRun<'_>) -> anyhow::Result<()> {
    let client = fault_run.database.connect().await?;
    let before = questions(&client).await?;
    fault_run.mark_fault_start();
    fault_run.order(0..fault_run.shared.viewer_states.len(), Order::Reset);
    sleep(SHORT_FAULT).await;
    fault_run.mark_fault_end();
    fault_run.recover().await?;
    let asked = questions(&client).await? - before;
    fault_run.remark(format!("{asked} queries to Postgres"));
    if asked > 0 {
        bail!("resuming cost {asked} queries to Postgres");
    }
    Ok(())
}

/// Returns the number of admissions and log reads that Postgres has counted.
async fn questions(client: &Client) -> anyhow::Result<i64> {
    // The gateway queries every second, so its backends report their counts within a second.
    sleep(LONG_FAULT).await;
    let sql = "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions
        where funcname in ('admit', 'session_snapshot', 'events_after', 'heads')";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Selects half of the viewers, both with and without an account.
fn half(fault_run: &FaultRun<'_>) -> impl Iterator<Item = usize> + use<> {
    (0..fault_run.shared.viewer_states.len()).filter(|viewer_state| viewer_state % 4 < 2)
}
