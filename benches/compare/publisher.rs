//! Publishes messages on a schedule, in the way of each server, on its own thread.
//!
//! Open loop: each message has a due time, even if earlier ones are late, and carries that time. Messages that are due
//! are published together, at most every few milliseconds, so that the publisher's round trips are not the limit.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::clock::{Clock, whole};
use crate::marks::{Stamp, message};

/// Most messages published together.
const BATCH_MAX: u64 = 2_000;

/// Shortest time between two batches.
const TICK_US: u64 = 4_000;

/// How a message gets into a server.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// As a chat row, which the database's trigger announces.
    Insert {
        database: String,
        session: Uuid,
        author: Uuid,
    },
    /// As an event of the log, without a chat row.
    Append { database: String, session: Uuid },
    /// As a notification; `%s` is the message.
    Notify {
        database: String,
        channel: &'static str,
        payload: &'static str,
    },
    /// As the body of an HTTP call.
    Post { address: SocketAddr },
    /// As a line over TCP.
    Line { address: SocketAddr },
}

/// The messages to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) start_us: u64,
    pub(crate) rate: f64,
}

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) count: u64,
    /// Time from the due time of a batch's first message until the batch was sent, in microseconds.
    pub(crate) lateness: Histogram<u64>,
    /// Time from there until the server or the database had accepted it.
    pub(crate) round_trip: Histogram<u64>,
}

/// A thread that publishes to one server.
pub(crate) struct Publisher {
    loads: mpsc::Sender<Load>,
    outcomes: mpsc::Receiver<anyhow::Result<Published>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    published: AtomicU64,
}

impl Publisher {
    pub(crate) fn start(entry: Entry, clock: Clock, message_bytes: usize) -> Self {
        let (loads, inbox) = mpsc::channel();
        let (outbox, outcomes) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            if let Err(error) = run(&entry, clock, message_bytes, &inbox, &outbox, &theirs) {
                let _ = outbox.send(Err(error));
            }
        });
        Self {
            loads,
            outcomes,
            shared,
        }
    }

    pub(crate) fn publish(&self, load: Load) -> anyhow::Result<()> {
        self.shared.stop.store(false, Ordering::Relaxed);
        self.loads.send(load).context("the publisher has ended")
    }

    /// Ends a load early.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the result of the last load once it is done.
    pub(crate) fn outcome(&self) -> anyhow::Result<Option<Published>> {
        match self.outcomes.try_recv() {
            Ok(outcome) => outcome.map(Some),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(error) => Err(error).context("the publisher has ended"),
        }
    }
}

fn run(
    entry: &Entry,
    clock: Clock,
    message_bytes: usize,
    loads: &mpsc::Receiver<Load>,
    outcomes: &mpsc::Sender<anyhow::Result<Published>>,
    shared: &Shared,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut door = runtime.block_on(Door::open(entry))?;
    while let Ok(load) = loads.recv() {
        let mut lateness = Histogram::new(3)?;
        let mut round_trip = Histogram::new(3)?;
        let due_us = |number: u64| load.start_us + whole(number as f64 * 1e6 / load.rate);
        let mut sent = 0;
        let mut tick_us = load.start_us;
        while sent < load.count && !shared.stop.load(Ordering::Relaxed) {
            // Avoids tokio's timer, which rounds up to whole milliseconds.
            thread::sleep(clock.until(due_us(sent).max(tick_us)));
            let now_us = clock.now_us();
            tick_us = now_us + TICK_US;
            let mut texts = Vec::new();
            lateness.saturating_record(now_us.saturating_sub(due_us(sent)));
            while sent < load.count && due_us(sent) <= now_us && (texts.len() as u64) < BATCH_MAX {
                let stamp = Stamp {
                    number: load.first + sent,
                    due_us: due_us(sent),
                };
                texts.push(message(stamp, message_bytes));
                sent += 1;
            }
            shared.published.store(load.first + sent, Ordering::Relaxed);
            runtime.block_on(door.publish(&texts))?;
            round_trip.saturating_record(clock.now_us() - now_us);
        }
        let published = Published {
            count: sent,
            lateness,
            round_trip,
        };
        if outcomes.send(Ok(published)).is_err() {
            break;
        }
    }
    Ok(())
}

/// An open connection for publishing.
enum Door {
    Insert {
        client: Client,
        statement: Statement,
        session: Uuid,
        author: Uuid,
    },
    Append {
        client: Client,
        statement: Statement,
        session: Uuid,
    },
    Notify {
        client: Client,
        statement: Statement,
        channel: &'static str,
        payload: &'static str,
    },
    Post {
        socket: TcpStream,
        address: SocketAddr,
    },
    Line(TcpStream),
}

impl Door {
    async fn open(entry: &Entry) -> anyhow::Result<Self> {
        match entry.clone() {
            Entry::Insert {
                database,
                session,
                author,
            } => {
                let client = connect(&database).await?;
                let statement = client
                    .prepare(
                        "insert into public.chat_messages (session_id, user_id, body) \
                         select $1, $2, body from unnest($3::text[]) with ordinality as t(body, place) \
                         order by place",
                    )
                    .await?;
                Ok(Self::Insert {
                    client,
                    statement,
                    session,
                    author,
                })
            }
            Entry::Append { database, session } => {
                let client = connect(&database).await?;
                let statement = client
                    .prepare(
                        "select usher.append_to_logs(array_agg($1::uuid), array_agg('chat.created'::text), \
                         array_agg(null::uuid), array_agg(to_json(text) order by place)) \
                         from unnest($2::text[]) with ordinality as t(text, place)",
                    )
                    .await?;
                Ok(Self::Append {
                    client,
                    statement,
                    session,
                })
            }
            Entry::Notify {
                database,
                channel,
                payload,
            } => {
                let client = connect(&database).await?;
                let statement = client
                    .prepare(
                        "select count(pg_notify($1, text)) \
                         from unnest($2::text[]) with ordinality as t(text, place)",
                    )
                    .await?;
                Ok(Self::Notify {
                    client,
                    statement,
                    channel,
                    payload,
                })
            }
            Entry::Post { address } => Ok(Self::Post {
                socket: dial(address).await?,
                address,
            }),
            Entry::Line { address } => Ok(Self::Line(dial(address).await?)),
        }
    }

    async fn publish(&mut self, texts: &[String]) -> anyhow::Result<()> {
        match self {
            Self::Insert {
                client,
                statement,
                session,
                author,
            } => {
                let rows = client
                    .execute(&*statement, &[session, author, &texts])
                    .await
                    .context("insert messages")?;
                ensure!(rows == texts.len() as u64, "{rows} rows were inserted");
            }
            Self::Append {
                client,
                statement,
                session,
            } => {
                client
                    .execute(&*statement, &[session, &texts])
                    .await
                    .context("append events")?;
            }
            Self::Notify {
                client,
                statement,
                channel,
                payload,
            } => {
                let payloads: Vec<String> = texts
                    .iter()
                    .map(|text| payload.replace("%s", text))
                    .collect();
                client.execute(&*statement, &[channel, &payloads]).await?;
            }
            Self::Post { socket, address } => post(socket, *address, texts).await?,
            Self::Line(socket) => {
                let mut lines = texts.join("\n");
                lines.push('\n');
                socket.write_all(lines.as_bytes()).await?;
            }
        }
        Ok(())
    }
}

async fn connect(database: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Sends all calls together, and waits for as many answers.
async fn post(socket: &mut TcpStream, address: SocketAddr, texts: &[String]) -> anyhow::Result<()> {
    let mut calls = String::new();
    for text in texts {
        let length = text.len();
        write!(
            calls,
            "POST /publish HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        )?;
    }
    socket.write_all(calls.as_bytes()).await?;
    let mut answers = Vec::new();
    let taken = memchr::memmem::Finder::new(b"HTTP/1.1 20");
    let deadline = Duration::from_secs(30);
    while taken.find_iter(&answers).count() < texts.len() {
        let read = tokio::time::timeout(deadline, socket.read_buf(&mut answers)).await??;
        ensure!(read > 0, "the publisher's connection was closed");
    }
    Ok(())
}
