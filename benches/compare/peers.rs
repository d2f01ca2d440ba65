//! The compared servers: how to start each, how a viewer connects, and how a message gets in.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use uuid::Uuid;

use crate::clock::Clock;
use crate::crowd::Dialect;
use crate::process::{Server, free_port};
use crate::publisher::Entry;
use crate::tools::Tools;

/// JWT secret of this run's gateway, which only this machine can reach.
const SECRET: &str = "of the comparison, long enough for a signature";

const NCHAN_FOLDER: &str = "/var/lib/nginx";

/// Bytes that the log adds to a text: `{"seq":12345,"type":"chat.created","at":"2026-11-22T20:00:00.123Z","data":""}`.
const EVENT_BYTES: usize = 77;

/// One server of the comparison.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    Usher,
    UsherEvents,
    #[value(name = "uwebsockets")]
    #[serde(rename = "uwebsockets")]
    UWebSockets,
    Ws,
    #[value(name = "socket.io")]
    #[serde(rename = "socket.io")]
    SocketIo,
    Nchan,
    Naive,
    Bare,
    BareCoalescing,
}

/// The environment that all servers share.
pub(crate) struct Stage {
    pub(crate) tools: Tools,
    /// Folder in which servers may write.
    pub(crate) folder: PathBuf,
    pub(crate) superuser_url: String,
    pub(crate) gateway_url: String,
    pub(crate) session: Uuid,
    pub(crate) author: Uuid,
    pub(crate) server_core: usize,
    pub(crate) viewers: usize,
    pub(crate) clock: Clock,
}

/// A server that accepts viewers and messages.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    pub(crate) entry: Entry,
}

impl Peer {
    pub(crate) const ALL: [Self; 9] = [
        Self::Bare,
        Self::BareCoalescing,
        Self::Usher,
        Self::UsherEvents,
        Self::UWebSockets,
        Self::Nchan,
        Self::Ws,
        Self::Naive,
        Self::SocketIo,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Usher => "Usher",
            Self::UsherEvents => "Usher, small events",
            Self::UWebSockets => "uWebSockets.js",
            Self::Ws => "Node `ws`",
            Self::SocketIo => "Socket.IO",
            Self::Nchan => "nginx + nchan",
            Self::Naive => "tokio broadcast",
            Self::Bare => "bare loop",
            Self::BareCoalescing => "bare loop, coalescing",
        }
    }

    /// Describes the server and how a message gets in.
    pub(crate) fn is(self) -> &'static str {
        match self {
            Self::Usher => {
                "`usher serve`, release build, defaults. A message is a row: INSERT into `chat_messages`, trigger, \
                 event log, NOTIFY"
            }
            Self::UsherEvents => {
                "the same gateway with events of the size of the others' messages, put into its log by \
                 `usher.append_to_logs` without a chat row: only the fan-out"
            }
            Self::UWebSockets => {
                "a hand-written gateway: `publish` to a topic, no compression, 1 MiB of backpressure. LISTEN with `pg`"
            }
            Self::Ws => {
                "a hand-written gateway: one buffer for all, no compression, viewers closed at 1 MiB. LISTEN with `pg`"
            }
            Self::SocketIo => {
                "with its Postgres adapter; only WebSocket, no compression. `pg_notify` in the adapter's format"
            }
            Self::Nchan => {
                "Debian's, one worker, no access log, 10,000 messages kept. HTTP POST on a connection kept alive"
            }
            Self::Naive => {
                "the first recipe in most tutorials: tokio-tungstenite and `tokio::sync::broadcast`, all defaults. Lines over TCP"
            }
            Self::Bare => {
                "the limit: one send per message and socket, nothing else. Lines over TCP"
            }
            Self::BareCoalescing => {
                "the limit of servers that write waiting messages together. Lines over TCP"
            }
        }
    }

    pub(crate) fn is_node(self) -> bool {
        matches!(self, Self::UWebSockets | Self::Ws | Self::SocketIo)
    }

    pub(crate) fn is_usher(self) -> bool {
        matches!(self, Self::Usher | Self::UsherEvents)
    }

    /// Returns the bytes of the text for a message of `message_bytes`.
    pub(crate) fn text_bytes(self, message_bytes: usize) -> usize {
        if self == Self::UsherEvents {
            message_bytes - EVENT_BYTES
        } else {
            message_bytes
        }
    }

    fn usher_entry(self, stage: &Stage) -> Entry {
        let database = stage.superuser_url.clone();
        let session = stage.session;
        if self == Self::UsherEvents {
            return Entry::Append { database, session };
        }
        Entry::Insert {
            database,
            session,
            author: stage.author,
        }
    }

    pub(crate) fn start(self, stage: &Stage) -> anyhow::Result<Running> {
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut dialect = Dialect {
            path: "/".to_owned(),
            hello: None,
            ready: "",
        };
        let notify = Entry::Notify {
            database: stage.superuser_url.clone(),
            channel: "compare",
            payload: "%s",
        };
        let (command, entry) = match self {
            Self::Usher | Self::UsherEvents => {
                dialect = usher_dialect(stage.session);
                (usher(stage, address), self.usher_entry(stage))
            }
            Self::UWebSockets => (node(stage, "uwebsockets.mjs", port), notify),
            Self::Ws => (node(stage, "ws.mjs", port), notify),
            Self::SocketIo => {
                dialect = Dialect {
                    path: "/socket.io/?EIO=4&transport=websocket".to_owned(),
                    hello: Some("40".to_owned()),
                    ready: "40{\"sid\"",
                };
                (node(stage, "socket.io.mjs", port), socket_io_entry(stage))
            }
            Self::Nchan => (nginx(stage, port)?, Entry::Post { address }),
            Self::Naive => own("naive", port)?,
            Self::Bare => own("bare", port)?,
            Self::BareCoalescing => own("bare-coalescing", port)?,
        };
        let log = stage.folder.join(format!("{}.log", command_name(self)));
        let server = Server::start(&command, stage.server_core, address, &log, stage.clock)?;
        Ok(Running {
            server,
            address,
            dialect,
            entry,
        })
    }
}

fn command_name(peer: Peer) -> String {
    format!("{peer:?}").to_lowercase()
}

fn usher(stage: &Stage, address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command.arg("serve");
    command.env("DATABASE_URL", &stage.gateway_url);
    command.env("SUPABASE_JWT_SECRET", SECRET);
    command.env("USHER_LISTEN", address.to_string());
    command
}

fn usher_dialect(session: Uuid) -> Dialect {
    Dialect {
        path: "/v1/socket".to_owned(),
        hello: Some(format!(
            r#"{{"type":"subscribe","session":"{session}","history":0}}"#
        )),
        ready: r#""type":"subscribed""#,
    }
}

fn node(stage: &Stage, script: &str, port: u16) -> Command {
    let mut command = Command::new(&stage.tools.node);
    command.arg(script).current_dir(&stage.tools.scripts);
    command.env("NODE_ENV", "production");
    command.env("PORT", port.to_string());
    command.env("DATABASE_URL", &stage.superuser_url);
    command
}

/// A broadcast in the adapter's format, as its emitter sends it from another process.
fn socket_io_entry(stage: &Stage) -> Entry {
    Entry::Notify {
        database: stage.superuser_url.clone(),
        channel: "socket.io#/",
        payload: r#"{"uid":"emitter","nsp":"/","type":3,"data":{"packet":{"type":2,"data":["m","%s"],"nsp":"/"},"opts":{"rooms":[],"except":[],"flags":{}}}}"#,
    }
}

fn nginx(stage: &Stage, port: u16) -> anyhow::Result<Command> {
    let folder = stage.folder.join("nginx");
    fs::create_dir_all(&folder)?;
    // Debian's nchan needs its default folder for messages that exceed its memory, and accepts no other.
    fs::create_dir_all(NCHAN_FOLDER).with_context(|| format!("make {NCHAN_FOLDER}, as root"))?;
    let config = include_str!("peers/nginx.conf")
        .replace("@MODULE@", &stage.tools.nchan.to_string_lossy())
        .replace("@FOLDER@", &folder.to_string_lossy())
        .replace("@FILES@", &(stage.viewers * 2 + 1_000).to_string())
        .replace("@CONNECTIONS@", &(stage.viewers + 500).to_string())
        .replace("@PORT@", &port.to_string());
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new(&stage.tools.nginx);
    command.arg("-p").arg(&folder).arg("-c").arg(&path);
    Ok(command)
}

/// Runs this program as a server.
fn own(kind: &str, port: u16) -> anyhow::Result<(Command, Entry)> {
    let publish_port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--serve", kind, "--port", &port.to_string()]);
    command.args(["--publish-port", &publish_port.to_string()]);
    let address = SocketAddr::from(([127, 0, 0, 1], publish_port));
    Ok((command, Entry::Line { address }))
}

/// Creates a folder and returns its absolute path.
pub(crate) fn made(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    Ok(fs::canonicalize(folder)?)
}
