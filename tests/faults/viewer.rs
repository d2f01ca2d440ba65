//! A viewer that behaves like the client libraries. It reconnects after each loss, resumes at its position, and waits
//! as long as the gateway asks. Its ledgers record every number.

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

/// The longest handshake before the viewer tries the next gateway.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// The longest silence before the viewer reconnects. The gateway under test pings every second.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const PAUSE_MAX_MS: u64 = 2_000;

/// The state that all viewers share with the test.
pub(crate) struct SharedState {
    pub(crate) sessions: Vec<Uuid>,
    /// The gateways. A viewer uses the next one for each attempt.
    pub(crate) nodes: watch::Receiver<Vec<SocketAddr>>,
    /// Whether viewers measure the time without events.
    pub(crate) is_armed: AtomicBool,
    pub(crate) viewer_states: Vec<ViewerState>,
}

impl SharedState {
    /// Returns the sessions with constant traffic.
    pub(crate) fn busy(&self) -> &[Uuid] {
        &self.sessions[..self.sessions.len() - 1]
    }

    /// Returns the session without traffic, except from a fault.
    pub(crate) fn quiet(&self) -> Uuid {
        self.sessions[self.sessions.len() - 1]
    }
}

/// The published state of one viewer.
pub(crate) struct ViewerState {
    /// The newest number in each session.
    pub(crate) positions: Vec<AtomicU64>,
    /// The local port of its connection; 0 while it has none.
    pub(crate) port: AtomicU16,
}

/// A command from the test to a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Watches normally.
    Watch,
    /// Stops reading until the next order.
    Stall,
    /// Closes the sending direction.
    HalfClose,
    /// Resets the connection and reconnects.
    Reset,
    /// Drops the connection without telling the gateway, like a machine that loses power, and reconnects.
    Vanish,
    /// Stops watching.
    Stop,
}

/// The results of one viewer.
#[derive(Default)]
pub(crate) struct Report {
    /// In the order of [`SharedState::sessions`].
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) longest_silence: Duration,
    pub(crate) resumes: u64,
    /// Subscriptions that started over, by reason.
    pub(crate) restarts: BTreeMap<String, u64>,
    /// Lost connections by close code; 1006 if there was none.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// Unexpected errors from the gateway.
    pub(crate) refusals: Vec<String>,
    /// The latest tally of each poll.
    pub(crate) tallies: HashMap<Uuid, Value>,
}

pub(crate) struct Viewer {
    number: usize,
    shared: Arc<SharedState>,
    /// The account; `None` for an anonymous viewer.
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

/// Why a connection ended.
enum End {
    Closed(u16),
    Told,
}

/// The fields of a frame that a viewer reads.
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
        shared: Arc<SharedState>,
        user: Option<Uuid>,
        keys: Arc<Keys>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let count = shared.sessions.len();
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
            shared,
        }
    }

    /// Watches until the order to stop.
    pub(crate) async fn run(mut self) -> Report {
        while *self.orders.borrow_and_update() != Order::Stop {
            let end = match self.connect().await {
                Some(mut socket) => self.watch(&mut socket).await,
                None => End::Closed(1006),
            };
            self.viewer_state().port.store(0, Ordering::Relaxed);
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

    fn viewer_state(&self) -> &ViewerState {
        &self.shared.viewer_states[self.number]
    }

    /// Returns the time before the next attempt: the gateway's advice, or a random part of a ceiling that doubles with
    /// each failure.
    fn pause(&mut self) -> Duration {
        let ceiling = (100_u64 << self.failures.min(6)).min(PAUSE_MAX_MS);
        self.failures += 1;
        let random = Duration::from_millis(Uuid::new_v4().as_u64_pair().1 % ceiling);
        self.advice.take().unwrap_or(random)
    }

    async fn connect(&mut self) -> Option<Socket> {
        let nodes = self.shared.nodes.borrow().clone();
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
        self.viewer_state().port.store(port, Ordering::Relaxed);
        for (place, session) in self.shared.sessions.iter().enumerate() {
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

    /// Handles a frame. An error ends the connection, and has a text if the frame was unexpected.
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
                self.viewer_state().positions[place].store(position, Ordering::Relaxed);
                if self.shared.is_armed.load(Ordering::Relaxed) {
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
                // The protocol allows this refusal: the viewer reconnects later.
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
        self.viewer_state().positions[place].store(position, Ordering::Relaxed);
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
        let mut sessions = self.shared.sessions.iter();
        sessions.position(|known| *known == session).unwrap()
    }
}
