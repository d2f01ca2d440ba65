//! The faults: each breaks one thing for some time and then repairs it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;
use tokio_postgres::Client;
use usher_devdb::cluster::StopMode;

use crate::evening::Evening;
use crate::netfilter::Silence;
use crate::stage::{Gateway, PATIENCE};
use crate::viewer::Order;

/// Longer than the gateway waits for its own NOTIFY echo: it probes every 5 s and waits at most 5 s.
const PAST_THE_PROBE: Duration = Duration::from_secs(11);
const A_WHILE: Duration = Duration::from_secs(2);
const A_MOMENT: Duration = Duration::from_millis(500);
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

type Run = for<'e> fn(&'e mut Evening<'_>) -> BoxFuture<'e, anyhow::Result<()>>;

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
    fault("nothing", "no fault, for comparison", |evening| {
        Box::pin(nothing(evening))
    }),
    fault(
        "gateway-killed",
        "kill -9 of the gateway, started again after 0.5 s",
        |evening| Box::pin(gateway_killed(evening)),
    )
    .short(),
    fault(
        "gateway-stopped",
        "SIGTERM of the gateway, started again",
        |evening| Box::pin(gateway_stopped(evening)),
    ),
    fault(
        "gateway-frozen",
        "SIGSTOP of the gateway for 5 s",
        |evening| Box::pin(gateway_frozen(evening)),
    ),
    fault(
        "node-lost",
        "kill -9 of one of two gateways: its clients move to the other",
        |evening| Box::pin(node_lost(evening)),
    ),
    fault(
        "listen-ended",
        "the LISTEN backend is terminated, three times",
        |evening| Box::pin(listen_ended(evening)),
    )
    .short(),
    fault(
        "backends-ended",
        "every backend of the gateway is terminated",
        |evening| Box::pin(backends_ended(evening)),
    ),
    fault(
        "postgres-stopped",
        "Postgres is stopped (fast) for 2 s",
        |evening| Box::pin(postgres_away(evening, StopMode::Fast)),
    ),
    fault(
        "postgres-crashed",
        "Postgres is stopped (immediate) and recovers",
        |evening| Box::pin(postgres_away(evening, StopMode::Immediate)),
    )
    .short(),
    fault(
        "postgres-killed",
        "kill -9 of Postgres, which recovers",
        |evening| Box::pin(postgres_away(evening, StopMode::Crash)),
    ),
    fault(
        "postgres-frozen",
        "SIGSTOP of every Postgres process for 11 s",
        |evening| Box::pin(postgres_frozen(evening)),
    ),
    fault(
        "database-half-open",
        "packets of the gateway's connections to Postgres vanish for 11 s",
        |evening| Box::pin(database_half_open(evening)),
    )
    .needs(Need::Namespace),
    fault(
        "connections-exhausted",
        "other programs use every connection of Postgres for 4 s",
        |evening| Box::pin(connections_exhausted(evening)),
    ),
    fault(
        "disk-full",
        "the disk under Postgres is full for 3 s",
        |evening| Box::pin(disk_full(evening)),
    )
    .needs(Need::SmallDisk),
    fault(
        "notify-queue-held",
        "an idle transaction that listens holds the NOTIFY queue for 6 s",
        |evening| Box::pin(notify_queue_held(evening)),
    ),
    fault(
        "log-held",
        "an open transaction holds a session's log for 5 s, then rolls back",
        |evening| Box::pin(log_held(evening)),
    ),
    fault(
        "went-back",
        "Postgres is restored to a copy from 2 s ago, on a new timeline",
        |evening| Box::pin(went_back(evening)),
    )
    .before(Crowd::MayRestart),
    fault(
        "tokens-expire",
        "every token expires within seconds, repeatedly",
        |evening| Box::pin(tokens_expire(evening)),
    )
    .before(Crowd::ShortTokens),
    fault(
        "clock-jumps",
        "the gateway's clock jumps two hours ahead, and back",
        |evening| Box::pin(clock_jumps(evening)),
    )
    .needs(Need::FakeClock),
    fault(
        "clients-stall",
        "half of the viewers read nothing while 4,000 messages pass",
        |evening| Box::pin(clients_stall(evening)),
    )
    .before(Crowd::Patient),
    fault(
        "clients-half-close",
        "half of the viewers close their sending direction",
        |evening| Box::pin(clients_do(evening, Order::HalfClose)),
    ),
    fault(
        "clients-reset",
        "half of the viewers reset their connection (RST)",
        |evening| Box::pin(clients_do(evening, Order::Reset)),
    )
    .short(),
    fault(
        "clients-half-open",
        "packets of half of the viewers vanish for 5 s",
        |evening| Box::pin(clients_half_open(evening, Order::Watch)),
    )
    .needs(Need::Namespace),
    fault(
        "clients-vanish",
        "half of the viewers vanish without closing, and reconnect",
        |evening| Box::pin(clients_half_open(evening, Order::Vanish)),
    )
    .needs(Need::Namespace),
    fault(
        "herd-dropped",
        "2,000 viewers are disconnected together",
        |evening| Box::pin(herd_dropped(evening)),
    )
    .before(Crowd::Herd),
];

async fn nothing(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    sleep(A_WHILE).await;
    evening.lift();
    Ok(())
}

async fn gateway_killed(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    evening.gateways.remove(0);
    sleep(A_MOMENT).await;
    evening.restart_gateway().await?;
    evening.lift();
    Ok(())
}

async fn gateway_stopped(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    let mut gateway = evening.gateways.remove(0);
    gateway.signal(Signal::TERM)?;
    gateway.ended().await?;
    evening.restart_gateway().await?;
    evening.lift();
    Ok(())
}

async fn gateway_frozen(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    evening.gateways[0].signal(Signal::STOP)?;
    sleep(PAST_THE_PROBE / 2).await;
    evening.gateways[0].signal(Signal::CONT)?;
    evening.lift();
    Ok(())
}

async fn node_lost(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.add_gateway().await?;
    evening.strike();
    // Clients keep trying it for a while, in turn with the other, as behind a load balancer that notices late.
    drop::<Gateway>(evening.gateways.remove(0));
    sleep(A_MOMENT).await;
    evening.forget_lost();
    evening.lift();
    Ok(())
}

async fn listen_ended(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    evening.strike();
    for _ in 0..3 {
        // The last query of that backend before it began to listen.
        end_backends(
            &client,
            "query = 'select usher.epoch(), (usher.channel_names()).*'",
        )
        .await?;
        sleep(A_MOMENT / 20).await;
        evening.whisper(&client).await?;
        sleep(A_MOMENT).await;
    }
    evening.lift();
    Ok(())
}

async fn backends_ended(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    evening.strike();
    end_backends(&client, "true").await?;
    sleep(A_MOMENT / 20).await;
    evening.whisper(&client).await?;
    evening.lift();
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
        sleep(A_MOMENT / 20).await;
    }
    Ok(())
}

async fn postgres_away(evening: &mut Evening<'_>, mode: StopMode) -> anyhow::Result<()> {
    evening.strike();
    evening.postgres.cluster.stop_server(mode).await?;
    sleep(A_WHILE).await;
    evening.postgres.cluster.start_server().await?;
    evening.lift();
    Ok(())
}

async fn postgres_frozen(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let processes = evening.postgres.processes()?;
    evening.strike();
    for process in &processes {
        kill_process(*process, Signal::STOP).context("freeze postgres")?;
    }
    sleep(PAST_THE_PROBE).await;
    for process in &processes {
        kill_process(*process, Signal::CONT).context("thaw postgres")?;
    }
    evening.lift();
    Ok(())
}

async fn database_half_open(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let sql = "select client_port from pg_stat_activity where usename = 'usher_gateway' and client_port > 0";
    let client = evening.database.connect().await?;
    let rows = client.query(sql, &[]).await?;
    let port = |row: &tokio_postgres::Row| u16::try_from(row.get::<_, i32>(0)).ok();
    let ports: Vec<u16> = rows.iter().filter_map(port).collect();
    evening.strike();
    let silence = Silence::over(&ports).context("drop packets")?;
    evening.whisper(&client).await?;
    sleep(PAST_THE_PROBE).await;
    drop(silence);
    evening.lift();
    Ok(())
}

async fn connections_exhausted(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    let sql = "alter role postgres connection limit -1; create role greedy login password 'greedy'";
    // Fails if an earlier run of this fault has created the role in this cluster.
    let _ = client.batch_execute(sql).await;
    let name = evening
        .database
        .url
        .rsplit('/')
        .next()
        .context("a database has a name")?;
    let url = evening.postgres.cluster.url_for("greedy", "greedy", name);
    evening.strike();
    let mut greedy = Vec::new();
    end_backends(&client, "true").await?;
    for _ in 0..8 {
        // The gateway immediately takes some back. These get terminated too, until it has none left.
        while let Ok(connection) = crate::stage::connect(&url).await {
            greedy.push(connection);
        }
        let _ = end_backends(&client, "true").await;
        sleep(A_MOMENT).await;
    }
    let taken = greedy.len();
    drop(greedy);
    evening.remark(format!("{taken} connections taken"));
    evening.lift();
    Ok(())
}

async fn disk_full(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let filler = evening.postgres.home.join("filler");
    evening.strike();
    let fill = tokio::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", filler.display()))
        .stderr(std::process::Stdio::null())
        .status();
    let status = fill.await?;
    if status.success() {
        bail!("the small disk cannot be filled");
    }
    sleep(A_WHILE * 3 / 2).await;
    let refused = match evening.database.connect().await {
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
    if evening.database.connect().await.is_err() {
        evening
            .postgres
            .cluster
            .stop_server(StopMode::Immediate)
            .await?;
        evening.postgres.cluster.start_server().await?;
        evening.remark("Postgres had stopped and was started again".to_owned());
    }
    evening.lift();
    Ok(())
}

async fn notify_queue_held(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    let row = client
        .query_one("select events from usher.channels", &[])
        .await?;
    let channel: String = row.get(0);
    client.batch_execute(&format!("listen {channel}")).await?;
    evening.strike();
    client.batch_execute("begin; select 1").await?;
    sleep(PAST_THE_PROBE / 2).await;
    let held: f64 = evening
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
    evening.lift();
    Ok(())
}

async fn log_held(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    evening.strike();
    client.batch_execute("begin").await?;
    let sql = "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, 'never committed')";
    client
        .execute(sql, &[&evening.board.sessions[0], &evening.author])
        .await?;
    sleep(PAST_THE_PROBE / 2).await;
    client.batch_execute("rollback").await?;
    evening.lift();
    Ok(())
}

async fn went_back(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let (data, copy) = (
        evening.postgres.home.join("data"),
        evening.postgres.home.join("copy"),
    );
    evening.postgres.cluster.stop_server(StopMode::Fast).await?;
    copy_tree(&data, &copy).await?;
    evening.postgres.cluster.start_server().await?;
    // Brings all viewers ahead of the copy.
    evening.whisper(&evening.database.connect().await?).await?;
    sleep(A_WHILE).await;
    evening.strike();
    evening.postgres.cluster.stop_server(StopMode::Fast).await?;
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
    evening.forget_positions();
    evening.postgres.cluster.start_server().await?;
    // Writes as soon as the server accepts it, if possible before the gateway has looked. The new event then has a
    // number that all viewers already have for another event.
    let client = evening.database.connect().await?;
    let whispered = async {
        while evening.whisper(&client).await.is_err() {
            sleep(A_MOMENT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, whispered)
        .await
        .context("write to the restored server")?;
    evening.forgive_what_was_undone();
    evening.lift();
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

async fn tokens_expire(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    sleep(PAST_THE_PROBE).await;
    evening.lift();
    Ok(())
}

async fn clock_jumps(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    const TWO_HOURS: i64 = 2 * 3_600;
    evening.strike();
    for ahead in [TWO_HOURS, 0] {
        // The clock of the auth server moves with the gateway's.
        evening.keys.ahead.store(ahead, Ordering::Relaxed);
        evening.set_clock(ahead)?;
        sleep(A_WHILE * 2).await;
    }
    evening.lift();
    Ok(())
}

async fn clients_stall(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    evening.strike();
    evening.order(half(evening), Order::Stall);
    let client = evening.database.connect().await?;
    let sql = "insert into public.chat_messages (session_id, user_id, body)
        select $1, $2, repeat('flood ', 300) from generate_series(1, $3::int)";
    for session in evening.board.busy().to_vec() {
        client
            .execute(sql, &[&session, &evening.author, &(FLOOD_ROWS / 2)])
            .await?;
    }
    sleep(PAST_THE_PROBE / 2).await;
    evening.lift();
    evening.order(half(evening), Order::Watch);
    Ok(())
}

#[expect(
    clippy::unused_async,
    reason = "all faults have the same async signature"
)]
async fn clients_do(evening: &mut Evening<'_>, order: Order) -> anyhow::Result<()> {
    evening.strike();
    evening.order(half(evening), order);
    evening.lift();
    Ok(())
}

async fn clients_half_open(evening: &mut Evening<'_>, order: Order) -> anyhow::Result<()> {
    let ports = half(evening).map(|seat| evening.board.seats[seat].port.load(Ordering::Relaxed));
    let ports: Vec<u16> = ports.filter(|port| *port > 0).collect();
    evening.strike();
    let silence = Silence::over(&ports).context("drop packets")?;
    evening.order(half(evening), order);
    sleep(PAST_THE_PROBE / 2).await;
    drop(silence);
    evening.lift();
    Ok(())
}

async fn herd_dropped(evening: &mut Evening<'_>) -> anyhow::Result<()> {
    let client = evening.database.connect().await?;
    let before = questions(&client).await?;
    evening.strike();
    evening.order(0..evening.board.seats.len(), Order::Reset);
    sleep(A_MOMENT).await;
    evening.lift();
    evening.recover().await?;
    let asked = questions(&client).await? - before;
    evening.remark(format!("{asked} queries to Postgres"));
    if asked > 0 {
        bail!("resuming cost {asked} queries to Postgres");
    }
    Ok(())
}

/// Returns the number of admissions and log reads that Postgres has counted.
async fn questions(client: &Client) -> anyhow::Result<i64> {
    // The gateway queries every second, so its backends report their counts within a second.
    sleep(A_WHILE).await;
    let sql = "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions
        where funcname in ('admit', 'session_snapshot', 'events_after', 'heads')";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Selects half of the viewers, both with and without an account.
fn half(evening: &Evening<'_>) -> impl Iterator<Item = usize> + use<> {
    (0..evening.board.seats.len()).filter(|seat| seat % 4 < 2)
}
