//! The viewers: thousands of sockets on one thread, which only reads and counts.
//!
//! Each viewer expects the messages by number. A skipped number counts as lost, a repeated or late one as disordered.
//! The latency of a delivery is the time from the message's due time until the viewer reads its bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::Clock;
use crate::marks::Marks;
use usher_core::protocol::server_frames::{DecodedFrame, ServerFrames};
use usher_core::protocol::websocket::{put_client_pong, put_client_text};

/// Handshakes in progress at a time: fewer than any server's backlog.
const ARRIVING_MAX: usize = 64;

/// Bytes per read.
const READ_BYTES: usize = 256 * 1024;

/// Longest time without a new viewer while viewers connect.
const ARRIVAL_TIMEOUT_US: u64 = 20_000_000;

/// Longest latency that the histogram records; later deliveries count as this late.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Mask of client frames. Clients must mask, and zero is a valid mask.
const MASK: [u8; 4] = [0; 4];

/// The handshake of a server's viewers.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) path: String,
    /// The first frame that the viewer sends, if any.
    pub(crate) hello: Option<String>,
    /// Text in the answer to it.
    pub(crate) ready: &'static str,
}

/// Counters of the viewers since the last `begin`.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Deliveries of messages that were due within the measured time.
    pub(crate) latency: Histogram<u64>,
    /// Deliveries since `begin`, including the warm-up.
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    /// Numbers that a viewer skipped.
    pub(crate) lost: u64,
    /// Numbers that arrived twice or after a higher one.
    pub(crate) disordered: u64,
    /// Viewers whose socket the server closed.
    pub(crate) closed: u64,
    pub(crate) latest_us: u64,
}

/// The viewers of one server, and their counters.
pub(crate) struct Crowd {
    clock: Clock,
    address: SocketAddr,
    dialect: Dialect,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    marks: Marks,
    viewers: Vec<Option<Viewer>>,
    free: Vec<usize>,
    arriving: usize,
    watching: usize,
    /// Sum of the numbers that the viewers expect next. It shows whether all are done, without a loop over them.
    expected_sum: u64,
    measured_from_us: u64,
    counts: Counts,
}

struct Viewer {
    socket: TcpStream,
    frames: ServerFrames,
    stage: Stage,
    /// The next expected number.
    next: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The part of the response head received so far.
    Handshake(Vec<u8>),
    Greeting,
    Watching,
}

impl Crowd {
    pub(crate) fn new(
        clock: Clock,
        address: SocketAddr,
        dialect: Dialect,
        message_bytes: usize,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            clock,
            address,
            dialect,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            buffer: vec![0; READ_BYTES],
            marks: Marks::new(message_bytes),
            viewers: Vec::new(),
            free: Vec::new(),
            arriving: 0,
            watching: 0,
            expected_sum: 0,
            measured_from_us: 0,
            counts: Counts::new()?,
        })
    }

    /// Connects viewers until there are `viewers`. The publisher must be idle meanwhile.
    pub(crate) fn fill(&mut self, viewers: usize, next: u64) -> anyhow::Result<()> {
        let mut progress_us = self.clock.now_us();
        let mut seen = self.watching;
        let closed = self.counts.closed;
        while self.watching < viewers {
            while self.arriving < ARRIVING_MAX && self.watching + self.arriving < viewers {
                self.connect(next)?;
            }
            self.turn(Duration::from_millis(100))?;
            if self.watching != seen {
                seen = self.watching;
                progress_us = self.clock.now_us();
            }
            ensure!(
                self.clock.now_us() < progress_us + ARRIVAL_TIMEOUT_US,
                "only {seen} of {viewers} viewers connected"
            );
            ensure!(
                self.counts.closed < closed + viewers as u64,
                "the server closes its viewers"
            );
        }
        Ok(())
    }

    /// Disconnects viewers until there are `viewers`.
    pub(crate) fn shrink(&mut self, viewers: usize) {
        for place in (0..self.viewers.len()).rev() {
            if self.watching <= viewers {
                return;
            }
            self.remove(place);
        }
    }

    /// Resets the counters.
    pub(crate) fn begin(&mut self, measured_from_us: u64) -> anyhow::Result<()> {
        self.counts = Counts::new()?;
        self.measured_from_us = measured_from_us;
        Ok(())
    }

    /// Stops waiting for messages before `next`.
    pub(crate) fn skip_to(&mut self, next: u64) {
        for viewer in self.viewers.iter_mut().flatten() {
            viewer.next = next;
        }
        self.expected_sum = next * self.watching as u64;
    }

    /// Reads all available data, and waits for data at most `wait`.
    pub(crate) fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.context("wait for sockets")?,
        }
        let places: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for place in places {
            self.on_event(place)?;
        }
        Ok(())
    }

    pub(crate) fn watching(&self) -> usize {
        self.watching
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the number of deliveries still expected after `published` messages.
    pub(crate) fn missing(&self, published: u64) -> u64 {
        (published * self.watching as u64).saturating_sub(self.expected_sum)
    }

    fn connect(&mut self, next: u64) -> anyhow::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        let place = self.free.pop().unwrap_or(self.viewers.len());
        self.poll.registry().register(
            &mut socket,
            Token(place),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let viewer = Viewer {
            socket,
            frames: ServerFrames::default(),
            stage: Stage::Handshake(Vec::new()),
            next,
        };
        if place == self.viewers.len() {
            self.viewers.push(Some(viewer));
        } else {
            self.viewers[place] = Some(viewer);
        }
        self.arriving += 1;
        Ok(())
    }

    fn on_event(&mut self, place: usize) -> anyhow::Result<()> {
        let Some(viewer) = self.viewers.get_mut(place).and_then(Option::as_mut) else {
            return Ok(());
        };
        if matches!(&viewer.stage, Stage::Handshake(head) if head.is_empty()) {
            // The first event shows that the connection is established.
            if viewer.socket.peer_addr().is_err() {
                if let Some(error) = viewer.socket.take_error()? {
                    bail!("connect to {}: {error}", self.address);
                }
                return Ok(());
            }
            self.poll.registry().reregister(
                &mut viewer.socket,
                Token(place),
                Interest::READABLE,
            )?;
            let request = request(&self.dialect.path, self.address);
            viewer.socket.write_all(request.as_bytes())?;
            viewer.stage = Stage::Handshake(b" ".to_vec());
            return Ok(());
        }
        self.read(place)
    }

    fn read(&mut self, place: usize) -> anyhow::Result<()> {
        loop {
            let Some(viewer) = self.viewers[place].as_mut() else {
                return Ok(());
            };
            let read = match viewer.socket.read(&mut self.buffer) {
                Ok(0) => None,
                Ok(read) => Some(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => None,
            };
            let Some(read) = read else {
                self.remove(place);
                self.counts.closed += 1;
                return Ok(());
            };
            self.on_bytes(place, read)?;
            // A short read means that the socket is empty; new data causes a new event.
            if read < self.buffer.len() {
                return Ok(());
            }
        }
    }

    fn on_bytes(&mut self, place: usize, read: usize) -> anyhow::Result<()> {
        let Some(viewer) = self.viewers[place].as_mut() else {
            return Ok(());
        };
        let mut bytes = &self.buffer[..read];
        let rest;
        if let Stage::Handshake(head) = &mut viewer.stage {
            head.extend_from_slice(bytes);
            let Some(end) = memmem::find(head, b"\r\n\r\n") else {
                return Ok(());
            };
            if !head.starts_with(b" HTTP/1.1 101") {
                bail!("{}", String::from_utf8_lossy(head));
            }
            rest = head.split_off(end + 4);
            bytes = &rest;
            viewer.stage = Stage::Greeting;
            if let Some(hello) = &self.dialect.hello {
                let mut out = Vec::new();
                put_client_text(&mut out, hello, MASK);
                viewer.socket.write_all(&out)?;
            } else {
                self.arriving -= 1;
                self.watching += 1;
                self.expected_sum += viewer.next;
                viewer.stage = Stage::Watching;
            }
        }
        let mut reader = Reader {
            now_us: self.clock.now_us(),
            measured_from_us: self.measured_from_us,
            ready: self.dialect.ready,
            counts: &mut self.counts,
            marks: &mut self.marks,
            next: viewer.next,
            is_ready: false,
            is_closed: false,
            answer: Vec::new(),
        };
        reader.counts.bytes += bytes.len() as u64;
        viewer.frames.feed(bytes, |frame| reader.on_frame(&frame))?;
        let (next, is_ready, is_closed) = (reader.next, reader.is_ready, reader.is_closed);
        let answer = reader.answer;
        if viewer.stage == Stage::Watching {
            self.expected_sum += next - viewer.next;
        } else if is_ready {
            viewer.stage = Stage::Watching;
            self.arriving -= 1;
            self.watching += 1;
            self.expected_sum += next;
        }
        viewer.next = next;
        let is_sent = answer.is_empty() || viewer.socket.write_all(&answer).is_ok();
        if is_closed || !is_sent {
            self.remove(place);
            self.counts.closed += 1;
        }
        Ok(())
    }

    fn remove(&mut self, place: usize) {
        let Some(viewer) = self.viewers[place].take() else {
            return;
        };
        self.free.push(place);
        if viewer.stage == Stage::Watching {
            self.watching -= 1;
            self.expected_sum -= viewer.next;
        } else {
            self.arriving -= 1;
        }
    }
}

impl Counts {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_max(LATENCY_US_MAX, 3)?,
            deliveries: 0,
            bytes: 0,
            lost: 0,
            disordered: 0,
            closed: 0,
            latest_us: 0,
        })
    }
}

/// Splits the bytes of one viewer into frames.
struct Reader<'a> {
    now_us: u64,
    measured_from_us: u64,
    ready: &'static str,
    counts: &'a mut Counts,
    marks: &'a mut Marks,
    next: u64,
    is_ready: bool,
    is_closed: bool,
    answer: Vec<u8>,
}

impl Reader<'_> {
    fn on_frame(&mut self, frame: &DecodedFrame<'_>) {
        match *frame {
            DecodedFrame::Text(text) => self.on_text(text),
            DecodedFrame::Ping(payload) => put_client_pong(&mut self.answer, payload, MASK),
            DecodedFrame::Close(_) => self.is_closed = true,
            DecodedFrame::Other => {}
        }
    }

    fn on_text(&mut self, text: &[u8]) {
        // Engine.IO's own ping and pong.
        if text == b"2" {
            put_client_text(&mut self.answer, "3", MASK);
            return;
        }
        if !self.ready.is_empty() && memmem::find(text, self.ready.as_bytes()).is_some() {
            self.is_ready = true;
        }
        let counts = &mut *self.counts;
        let next = &mut self.next;
        self.marks.read(text, |stamp| {
            counts.deliveries += 1;
            // A repeated or abandoned message says nothing about the latency of others.
            if stamp.number < *next {
                counts.disordered += 1;
                return;
            }
            counts.lost += stamp.number - *next;
            *next = stamp.number + 1;
            let late_us = self.now_us.saturating_sub(stamp.due_us);
            counts.latest_us = counts.latest_us.max(late_us);
            if stamp.due_us >= self.measured_from_us {
                counts.latency.saturating_record(late_us);
            }
        });
    }
}

fn request(path: &str, address: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
