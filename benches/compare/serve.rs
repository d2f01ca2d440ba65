//! The peers written in a few lines of Rust. This program runs them in a separate process.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use usher_core::protocol::websocket;

/// Messages that the naive gateway keeps for a slow viewer.
const NAIVE_QUEUE_LEN: usize = 1_024;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One send per message and viewer.
    Bare,
    /// One send for all waiting messages.
    BareCoalescing,
    /// A task and a broadcast receiver per viewer.
    Naive,
}

/// Serves until the process is killed: viewers on one port, lines to publish on the other.
pub(crate) fn run(kind: Kind, port: u16, publish_port: u16) -> anyhow::Result<()> {
    if kind == Kind::Naive {
        return tokio::runtime::Runtime::new()?.block_on(naive(port, publish_port));
    }
    let publishing = TcpListener::bind(("127.0.0.1", publish_port))?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let (viewers, arrived) = mpsc::channel();
    thread::spawn(move || {
        for viewer in listener.incoming().flatten() {
            if let Ok(viewer) = shake_hands(viewer)
                && viewers.send(viewer).is_err()
            {
                return;
            }
        }
    });
    let publisher = publishing.accept()?.0;
    bare(kind, publisher, &arrived)
}

// ---- the bare loop ----

/// A viewer and its position in the log.
struct Lane {
    socket: TcpStream,
    place: usize,
}

/// Writes to each socket in turn. It does nothing else but handle full sockets.
fn bare(
    kind: Kind,
    mut publisher: TcpStream,
    arrived: &mpsc::Receiver<TcpStream>,
) -> anyhow::Result<()> {
    let mut lanes: Vec<Lane> = Vec::new();
    // All frames that a viewer still needs, and the end of each.
    let mut log: Vec<u8> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    let mut lines: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        // While a viewer is behind, does not wait. Otherwise waits a little for new viewers.
        let is_behind = !log.is_empty();
        publisher.set_nonblocking(is_behind)?;
        publisher.set_read_timeout(Some(Duration::from_millis(20)))?;
        match publisher.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                lines.extend_from_slice(&buffer[..read]);
                let mut start = 0;
                while let Some(length) = lines[start..].iter().position(|byte| *byte == b'\n') {
                    websocket::put_text_header(&mut log, length);
                    log.extend_from_slice(&lines[start..start + length]);
                    ends.push(log.len());
                    start += length + 1;
                }
                lines.drain(..start);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("read from the publisher"),
        }
        while let Ok(socket) = arrived.try_recv() {
            lanes.push(Lane {
                socket,
                place: log.len(),
            });
        }
        if log.is_empty() {
            continue;
        }
        let has_written = if kind == Kind::Bare {
            // Writes message by message, like a server that encodes once and sends to all.
            let mut has_written = false;
            for end in ends.clone() {
                has_written |= write_to_all(&mut lanes, &log[..end]);
            }
            has_written
        } else {
            write_to_all(&mut lanes, &log)
        };
        let done = lanes.iter().map(|lane| lane.place).min();
        let done = done.unwrap_or(log.len());
        let whole = ends.partition_point(|end| *end <= done);
        if whole > 0 {
            let cut = ends[whole - 1];
            log.drain(..cut);
            ends.drain(..whole);
            ends.iter_mut().for_each(|end| *end -= cut);
            lanes.iter_mut().for_each(|lane| lane.place -= cut);
        }
        if !has_written {
            thread::sleep(Duration::from_micros(500));
        }
    }
}

fn write_to_all(lanes: &mut Vec<Lane>, log: &[u8]) -> bool {
    let mut has_written = false;
    lanes.retain_mut(|lane| {
        if lane.place >= log.len() {
            return true;
        }
        match lane.socket.write(&log[lane.place..]) {
            Ok(written) => {
                has_written = true;
                lane.place += written;
                written > 0
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    });
    has_written
}

fn shake_hands(socket: TcpStream) -> anyhow::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1_024, socket);
    let mut key = String::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            value.trim().clone_into(&mut key);
        }
        line.clear();
    }
    let mut socket = reader.into_inner();
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

// ---- the naive gateway ----

/// The first recipe in most tutorials: `tokio-tungstenite` and `tokio::sync::broadcast` with all defaults.
async fn naive(port: u16, publish_port: u16) -> anyhow::Result<()> {
    let publishing = tokio::net::TcpListener::bind(("127.0.0.1", publish_port)).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let (messages, _) = broadcast::channel::<Message>(NAIVE_QUEUE_LEN);
    let sender = messages.clone();
    tokio::spawn(async move {
        while let Ok((publisher, _)) = publishing.accept().await {
            let mut lines = tokio::io::BufReader::new(publisher).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(Message::text(line));
            }
        }
    });
    loop {
        let (socket, _) = listener.accept().await?;
        let mut messages = messages.subscribe();
        tokio::spawn(async move {
            let Ok(socket) = tokio_tungstenite::accept_async(socket).await else {
                return;
            };
            let (mut out, mut inbound) = socket.split();
            loop {
                tokio::select! {
                    message = messages.recv() => match message {
                        Ok(message) => if out.send(message).await.is_err() {
                            return;
                        },
                        // The slow viewer has lost these messages, without notice.
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    inbound = inbound.next() => if !matches!(inbound, Some(Ok(_))) {
                        return;
                    },
                }
            }
        });
    }
}
