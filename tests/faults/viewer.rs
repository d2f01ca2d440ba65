//! A viewer as the client libraries are: comes back whenever it is cut off, with its position, and as late as the
//! gateway asks. Every number goes into its ledgers.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::stage::Keys;

/// How long a handshake may take before it is tried elsewhere.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// The gateway under test pings each second: silence for longer is a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const PAUSE_MAX_MS: u64 = 2_000;

/// What all viewers look at, and write on.
pub(crate) struct Board {
    pub(crate) sessions: Vec<Uuid>,
    /// The gateways; a viewer takes the next one with every attempt.
    pub(crate) nodes: watch::Receiver<Vec<SocketAddr>>,
    /// Whether silence counts.
    pub(crate) is_armed: AtomicBool,
    pub(crate) seats: Vec<Seat>,
}

impl Board {
    /// The sessions in which something is written all the while.
    pub(crate) fn busy(&self) -> &[Uuid] {
        &self.sessions[..self.sessions.len() - 1]
    }

    /// The session in which nothing is, unless a fault does.
    pub(crate) fn quiet(&self) -> Uuid {
        self.sessions[self.sessions.len() - 1]
    }
}

/// Where one viewer stands, for all to see.
pub(crate) struct Seat {
    /// By session.
    pub(crate) positions: Vec<AtomicU64>,
    /// Its side of the connection; 0 while it has none.
    pub(crate) port: AtomicU16,
}

/// What a viewer is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// What viewers do.
    Watch,
    /// Reads nothing, until another order comes.
    Stall,
    /// Closes its own direction.
    HalfClose,
    /// Resets the connection, and comes back.
    Reset,
    /// Forgets the connection as a machine that lost its power does, and comes back.
    Vanish,
    /// Goes home.
    Stop,
}

/// A viewer's whole evening.
#[derive(Default)]
pub(crate) struct Report {
    /// In the order of the board's sessions.
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) longest_silence: Duration,
    pub(crate) resumes: u64,
    /// Starts that were no recoveries, but for the first, by reason.
    pub(crate) restarts: BTreeMap<String, u64>,
    /// Ends of connections: close codes, 1006 for none.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// Refusals, none of which is expected.
    pub(crate) refusals: Vec<String>,
    /// The latest tally of each voting.
    pub(crate) tallies: HashMap<Uuid, Value>,
}

pub(crate) struct Viewer {
    number: usize,
    board: Arc<Board>,
    /// Somebody with an account; without, it is anonymous.
    user: Option<Uuid>,
    keys: Arc<Keys>,
    orders: watch::Receiver<Order>,
    standings: Vec<Option<Standing>>,
    advice: Option<Duration>,
    attempts: u64,
    failures: u32,
    heard_event_at: Instant,
    report: Report,
}

#[derive(Clone)]
struct Standing {
    epoch: String,
    token: String,
}

/// Why a connection is over.
enum End {
    Closed(u16),
    Told,
}

/// As much of a frame as a viewer reads.
#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    session: Option<Uuid>,
    seq: Option<u64>,
    epoch: Option<String>,
    recovered: Option<bool>,
    reason: Option<String>,
    resume_token: Option<String>,
    token: Option<String>,
    after_ms: Option<u64>,
    retry_after_ms: Option<u64>,
    voting: Option<Uuid>,
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

type Socket = WebSocketStream<TcpStream>;

impl Viewer {
    pub(crate) fn new(
        number: usize,
        board: Arc<Board>,
        user: Option<Uuid>,
        keys: Arc<Keys>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let count = board.sessions.len();
        Self {
            number,
            user,
            keys,
            orders,
            standings: vec![None; count],
            advice: None,
            attempts: number as u64,
            failures: 0,
            heard_event_at: Instant::now(),
            report: Report {
                ledgers: (0..count).map(|_| Ledger::default()).collect(),
                ..Report::default()
            },
            board,
        }
    }

    /// Watches until it is told to go home.
    pub(crate) async fn run(mut self) -> Report {
        while *self.orders.borrow_and_update() != Order::Stop {
            let end = match self.connect().await {
                Some(mut socket) => self.watch(&mut socket).await,
                None => End::Closed(1006),
            };
            self.seat().port.store(0, Ordering::Relaxed);
            match end {
                End::Told => break,
                End::Closed(code) => *self.report.closes.entry(code).or_default() += 1,
            }
            let pause = self.pause();
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.orders.wait_for(|order| *order == Order::Stop) => {}
            }
        }
        self.report
    }

    fn seat(&self) -> &Seat {
        &self.board.seats[self.number]
    }

    /// As the gateway advised, or a random part of a time that grows with every failure.
    fn pause(&mut self) -> Duration {
        let ceiling = (100_u64 << self.failures.min(6)).min(PAUSE_MAX_MS);
        self.failures += 1;
        let random = Duration::from_millis(Uuid::new_v4().as_u64_pair().1 % ceiling);
        self.advice.take().unwrap_or(random)
    }

    async fn connect(&mut self) -> Option<Socket> {
        let nodes = self.board.nodes.borrow().clone();
        self.attempts += 1;
        let node = nodes[usize::try_from(self.attempts).unwrap() % nodes.len()];
        let shaken = timeout(HANDSHAKE_MAX, self.shake_hands(node)).await;
        match shaken {
            Ok(Ok(socket)) => Some(socket),
            Ok(Err(Error::Http(response))) => {
                let after = response.headers().get("retry-after");
                self.advice = after
                    .and_then(|after| after.to_str().ok()?.parse().ok())
                    .map(Duration::from_secs);
                None
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn shake_hands(&mut self, node: SocketAddr) -> Result<Socket, Error> {
        let socket = TcpStream::connect(node).await?;
        let port = socket.local_addr()?.port();
        let mut request = format!("ws://{node}/v1/socket").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "usher.v1".parse()?);
        if let Some(user) = self.user {
            let bearer = format!("Bearer {}", self.keys.token(user));
            headers.insert("authorization", bearer.parse()?);
        }
        let (mut socket, _) = tokio_tungstenite::client_async(request, socket).await?;
        self.seat().port.store(port, Ordering::Relaxed);
        for (place, session) in self.board.sessions.iter().enumerate() {
            let mut frame = json!({"type": "subscribe", "session": session, "history": 0});
            if let Some(Standing { epoch, token }) = &self.standings[place] {
                let seq = self.report.ledgers[place].position();
                frame = json!({
                    "type": "subscribe", "session": session,
                    "resume": {"seq": seq, "epoch": epoch, "token": token},
                });
            }
            socket.send(Message::text(frame.to_string())).await?;
        }
        Ok(socket)
    }

    async fn watch(&mut self, socket: &mut Socket) -> End {
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return End::Told;
                    }
                    if let Some(end) = self.obey(socket).await {
                        return end;
                    }
                    heard_at = Instant::now();
                }
                heard = timeout_at((heard_at + SILENCE_MAX).into(), socket.next()) => {
                    heard_at = Instant::now();
                    match heard {
                        Ok(Some(Ok(Message::Text(text)))) => {
                            if let Err(why) = self.take_in(&text, heard_at) {
                                self.report.refusals.extend(why);
                                return End::Closed(1006);
                            }
                        }
                        Ok(Some(Ok(Message::Close(frame)))) => {
                            return End::Closed(frame.map_or(1005, |frame| frame.code.into()));
                        }
                        Ok(Some(Ok(_))) => {}
                        Ok(Some(Err(_)) | None) | Err(_) => return End::Closed(1006),
                    }
                }
            }
        }
    }

    async fn obey(&mut self, socket: &mut Socket) -> Option<End> {
        let order = *self.orders.borrow_and_update();
        match order {
            Order::Watch => None,
            Order::Stop => Some(End::Told),
            Order::Stall => {
                let _ = self.orders.wait_for(|order| *order != Order::Stall).await;
                (*self.orders.borrow() == Order::Stop).then_some(End::Told)
            }
            Order::HalfClose => {
                let _ = socket.get_mut().shutdown().await;
                None
            }
            Order::Reset => {
                let _ = SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO));
                Some(End::Closed(1006))
            }
            Order::Vanish => Some(End::Closed(1006)),
        }
    }

    /// What is wrong with a frame ends the connection; it is told where it was not to be expected.
    fn take_in(&mut self, text: &str, now: Instant) -> Result<(), Option<String>> {
        let frame: Frame<'_> =
            serde_json::from_str(text).map_err(|error| Some(format!("{error}: {text}")))?;
        match frame.r#type {
            "subscribed" | "reset" => self.stand(&frame),
            "events" => {
                self.failures = 0;
                let place = self.place(&frame);
                for event in &frame.events {
                    let Numbered { seq } = serde_json::from_str(event.get()).unwrap();
                    self.report.ledgers[place].receive(seq, event.get());
                }
                let position = self.report.ledgers[place].position();
                self.seat().positions[place].store(position, Ordering::Relaxed);
                if self.board.is_armed.load(Ordering::Relaxed) {
                    let silence = now - self.heard_event_at;
                    self.report.longest_silence = self.report.longest_silence.max(silence);
                }
                self.heard_event_at = now;
                Ok(())
            }
            "resume_token" => {
                let place = self.place(&frame);
                if let (Some(standing), Some(token)) = (&mut self.standings[place], frame.token) {
                    standing.token = token;
                }
                Ok(())
            }
            "tally" => {
                let tally = serde_json::from_str(text).unwrap();
                self.report.tallies.insert(frame.voting.unwrap(), tally);
                Ok(())
            }
            "reconnect" => {
                self.advice = frame.after_ms.map(Duration::from_millis);
                Ok(())
            }
            "error"
                if text.contains(r#""code":"unavailable""#)
                    || text.contains(r#""code":"busy""#) =>
            {
                // Come back later: a refusal that the protocol foresees.
                self.advice = frame.retry_after_ms.map(Duration::from_millis);
                Err(None)
            }
            "error" | "unsubscribed" => Err(Some(text.to_owned())),
            _ => Ok(()),
        }
    }

    fn stand(&mut self, frame: &Frame<'_>) -> Result<(), Option<String>> {
        let place = self.place(frame);
        let seq = frame.seq.unwrap();
        let ledger = &mut self.report.ledgers[place];
        if frame.recovered == Some(true) {
            ledger.go_on(seq);
            self.report.resumes += 1;
        } else {
            let Some(reason) = frame.reason.clone() else {
                return Err(Some("a start without a reason".to_owned()));
            };
            if self.standings[place].is_some() {
                *self.report.restarts.entry(reason).or_default() += 1;
            }
            ledger.begin(seq);
        }
        let position = ledger.position();
        self.seat().positions[place].store(position, Ordering::Relaxed);
        let before = self.standings[place].take();
        let token = frame
            .resume_token
            .clone()
            .or(before.map(|before| before.token));
        self.standings[place] = Some(Standing {
            epoch: frame.epoch.clone().unwrap(),
            token: token.unwrap_or_default(),
        });
        Ok(())
    }

    fn place(&self, frame: &Frame<'_>) -> usize {
        let session = frame.session.unwrap();
        let mut sessions = self.board.sessions.iter();
        sessions.position(|known| *known == session).unwrap()
    }
}
