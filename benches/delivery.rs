//! Measures the time from the INSERT of a row until every viewer has it, and the memory of an idle viewer.
//!
//! Starts `usher dev` as a separate process, connects viewers and inserts chat messages with plain SQL at a steady
//! rate. Prints percentiles over all deliveries, and the INSERT's own round trip for comparison. Open loop: each row is
//! due at its time, even if earlier ones have not arrived. Prints loss, duplicates and order errors also when they are
//! zero.
//!
//! ```text
//! cargo bench --bench delivery                           500 viewers, 20 rows a second, 15 s
//! cargo bench --bench delivery -- --viewers 2000 --rate 20 --seconds 30 --idle 2000
//! ```

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use futures::{SinkExt as _, StreamExt as _};
use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::NoTls;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use usher_load::proc;
use usher_load::process_usage::ProcessUsage;

#[derive(Parser)]
struct Arguments {
    /// Viewers that watch the session.
    #[arg(long, default_value_t = 500)]
    viewers: u32,
    /// Rows per second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds to measure, after two seconds of warm-up.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Idle viewers for the measurement of memory.
    #[arg(long, default_value_t = 1_000)]
    idle: u32,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The line that `usher dev --json` prints.
#[derive(Deserialize)]
struct Ready {
    socket: String,
    database_url: String,
    session: String,
    users: Vec<User>,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

/// The arrival of one row at one viewer.
struct Delivery {
    row: u64,
    at: Instant,
}

#[derive(Default)]
struct Faults {
    lost: AtomicU64,
    doubled: AtomicU64,
}

const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (mut gateway, ready) = start()?;
    let outcome = measure(&arguments, &gateway, &ready).await;
    let pid = Pid::from_child(&gateway);
    kill_process(pid, Signal::TERM)?;
    gateway.wait()?;
    outcome
}

fn start() -> anyhow::Result<(Child, Ready)> {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(["dev", "--listen", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start usher dev")?;
    let mut line = String::new();
    let out = gateway.stdout.take().context("usher's output")?;
    BufReader::new(out).read_line(&mut line)?;
    let ready = serde_json::from_str(&line)
        .context("usher dev did not start: run it by hand to see why")?;
    Ok((gateway, ready))
}

async fn measure(arguments: &Arguments, gateway: &Child, ready: &Ready) -> anyhow::Result<()> {
    let (deliveries, mut delivered) = mpsc::unbounded_channel();
    let faults = Arc::new(Faults::default());

    // The first connections allocate arenas and pools that later ones share, so they do not count.
    let mut idle = connect_all(100, ready, &deliveries, &faults).await?;
    sleep(Duration::from_secs(1)).await;
    let before = usage(gateway)?.resident_bytes as f64;
    idle.extend(connect_all(arguments.idle, ready, &deliveries, &faults).await?);
    sleep(Duration::from_secs(2)).await;
    let held = usage(gateway)?.resident_bytes as f64 - before;
    let per_viewer = held / 1024.0 / f64::from(arguments.idle);
    println!(
        "\n  memory of an idle subscribed viewer, in the process: {per_viewer:.2} KiB (of {})",
        arguments.idle
    );
    drop(idle);
    sleep(Duration::from_secs(1)).await;
    while delivered.try_recv().is_ok() {}

    let viewers = connect_all(arguments.viewers, ready, &deliveries, &faults).await?;
    println!(
        "  {} viewers, {} rows a second, {} s",
        arguments.viewers, arguments.rate, arguments.seconds
    );
    let cpu_before_us = usage(gateway)?.cpu_us;
    let rows = write_rows(arguments, ready).await?;
    sleep(Duration::from_secs(1)).await;
    let cpu = (usage(gateway)?.cpu_us - cpu_before_us) as f64 / 1e6;
    drop(viewers);
    drop(deliveries);

    let mut to_client = Histogram::<u64>::new(3)?;
    let mut counts = vec![0_u64; rows.len()];
    while let Ok(Delivery { row, at }) = delivered.try_recv() {
        let index = usize::try_from(row)?;
        counts[index] += 1;
        let sent = rows[index].sent;
        if rows[index].is_measured {
            to_client.record(u64::try_from((at - sent).as_micros())?)?;
        }
    }
    let mut round_trip = Histogram::<u64>::new(3)?;
    for row in rows.iter().filter(|row| row.is_measured) {
        round_trip.record(u64::try_from((row.acknowledged - row.sent).as_micros())?)?;
    }
    let expected = rows.len() as u64 * u64::from(arguments.viewers);
    let got: u64 = counts.iter().sum();
    print_row("INSERT's own round trip", &round_trip);
    print_row("INSERT sent to client", &to_client);
    println!(
        "  deliveries {got} of {expected}   lost {}   doubled {}   gateway CPU {:.1} µs a delivery\n",
        faults.lost.load(Ordering::Relaxed) + expected.saturating_sub(got),
        faults.doubled.load(Ordering::Relaxed),
        cpu * 1e6 / expected as f64,
    );
    if got != expected {
        bail!("{got} deliveries instead of {expected}");
    }
    Ok(())
}

fn print_row(name: &str, histogram: &Histogram<u64>) {
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "  {name:<26} p50 {:>7.2} ms   p90 {:>7.2} ms   p99 {:>7.2} ms   max {:>7.2} ms",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        histogram.max() as f64 / 1e3,
    );
}

struct Row {
    sent: Instant,
    acknowledged: Instant,
    is_measured: bool,
}

async fn write_rows(arguments: &Arguments, ready: &Ready) -> anyhow::Result<Vec<Row>> {
    let (client, connection) = tokio_postgres::connect(&ready.database_url, NoTls).await?;
    let driver = tokio::spawn(connection);
    let author = &ready.users.first().context("a user")?.id;
    let insert = client
        .prepare(
            "insert into public.chat_messages (session_id, user_id, body) \
             select $1::text::uuid, $2::text::uuid, $3",
        )
        .await?;
    let interval = Duration::from_secs(1) / arguments.rate;
    let warm_up = WARM_UP.as_secs() * u64::from(arguments.rate);
    let count = warm_up + u64::from(arguments.rate) * u64::from(arguments.seconds);
    let start = Instant::now();
    let mut rows = Vec::new();
    for row in 0..count {
        sleep_until(start + interval * u32::try_from(row)?).await;
        let body = format!("bench {row:06} {}", "x".repeat(120));
        let sent = Instant::now();
        client
            .execute(&insert, &[&ready.session, author, &body])
            .await?;
        rows.push(Row {
            sent,
            acknowledged: Instant::now(),
            is_measured: row >= warm_up,
        });
    }
    drop(client);
    driver.await??;
    Ok(rows)
}

async fn connect_all(
    count: u32,
    ready: &Ready,
    deliveries: &mpsc::UnboundedSender<Delivery>,
    faults: &Arc<Faults>,
) -> anyhow::Result<Vec<Viewer>> {
    let connecting = (0..count).map(|_| connect(ready));
    let sockets: Vec<_> = futures::stream::iter(connecting)
        .buffer_unordered(32)
        .collect()
        .await;
    let mut viewers = Vec::new();
    for socket in sockets {
        let watching = watch(socket?, deliveries.clone(), Arc::clone(faults));
        viewers.push(Viewer(tokio::spawn(watching).abort_handle()));
    }
    Ok(viewers)
}

async fn connect(ready: &Ready) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let request = ready.socket.as_str().into_client_request()?;
    let address = request
        .uri()
        .authority()
        .context("an address")?
        .as_str()
        .to_owned();
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4_096);
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(request, socket, Some(config)).await?;
    let subscribe = format!(
        r#"{{"type":"subscribe","session":"{}","history":0}}"#,
        ready.session
    );
    socket.send(Message::text(subscribe)).await?;
    while let Some(message) = socket.next().await {
        if message?.to_text()?.contains(r#""type":"subscribed""#) {
            return Ok(socket);
        }
    }
    bail!("the gateway closed before it answered")
}

async fn watch(
    mut socket: WebSocketStream<TcpStream>,
    deliveries: mpsc::UnboundedSender<Delivery>,
    faults: Arc<Faults>,
) {
    let mut last = None;
    while let Some(Ok(message)) = socket.next().await {
        let at = Instant::now();
        let Ok(text) = message.to_text() else {
            continue;
        };
        // Searches for the two fields that the bench needs; a real client parses.
        for event in text.split(r#"{"seq":"#).skip(1) {
            let seq: u64 = leading_number(event);
            if let Some(last) = last {
                faults
                    .lost
                    .fetch_add(seq.saturating_sub(last + 1), Ordering::Relaxed);
                faults
                    .doubled
                    .fetch_add(u64::from(seq <= last), Ordering::Relaxed);
            }
            last = Some(seq);
            if let Some((_, row)) = event.split_once(r#""body":"bench "#) {
                let _ = deliveries.send(Delivery {
                    row: leading_number(row),
                    at,
                });
            }
        }
    }
}

fn leading_number(text: &str) -> u64 {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().unwrap_or(0)
}

/// The task of a viewer. Dropping it aborts the task.
struct Viewer(AbortHandle);

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads what the gateway has used so far.
fn usage(gateway: &Child) -> anyhow::Result<ProcessUsage> {
    proc::process(gateway.id()).context("read the gateway's CPU time and memory")
}
