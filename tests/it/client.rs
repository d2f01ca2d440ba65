//! A test client that checks every event number, whatever else the test looks at.
//!
//! It keeps frames that the test did not wait for. An unexpected `error`, `reset` or `unsubscribed` fails the test. A
//! failure prints everything that the client received.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;
use uuid::Uuid;

use crate::database::{Database, User};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(10);

/// One socket, or the one after it.
pub(crate) struct Client {
    name: String,
    token: Option<String>,
    stream: WebSocketStream<TcpStream>,
    sessions: HashMap<Uuid, Standing>,
    versions: HashMap<String, (u64, Value)>,
    aside: VecDeque<Value>,
    heard: Vec<String>,
    next_id: u64,
}

/// Where the client stands in a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) seq: u64,
    pub(crate) epoch: String,
    pub(crate) token: String,
    /// Everything received since the last start that was not a recovery.
    pub(crate) events: Vec<Value>,
}

impl Client {
    /// Connects as this user.
    pub(crate) async fn connect(at: SocketAddr, user: &User) -> Self {
        Self::open(at, &user.name, Some(user.token.clone())).await
    }

    /// Connects without a token.
    pub(crate) async fn anonymous(at: SocketAddr) -> Self {
        Self::open(at, "somebody", None).await
    }

    /// Connects with any token; takes the welcome.
    pub(crate) async fn open(at: SocketAddr, name: &str, token: Option<String>) -> Self {
        let socket = TcpStream::connect(at).await.unwrap();
        let mut client = Self::over(socket, at, name, token).await;
        client.expect("welcome").await;
        client
    }

    /// Connects with a query instead of a header.
    pub(crate) async fn open_with_query(at: SocketAddr, query: &str) -> Self {
        let socket = TcpStream::connect(at).await.unwrap();
        let mut client = Self::shaken(shake_hands(socket, at, query, None).await, "query", None);
        client.expect("welcome").await;
        client
    }

    /// Shakes hands over a socket of the test's own making.
    pub(crate) async fn over(
        socket: TcpStream,
        at: SocketAddr,
        name: &str,
        token: Option<String>,
    ) -> Self {
        let stream = shake_hands(socket, at, "", token.as_deref()).await;
        Self::shaken(stream, name, token)
    }

    fn shaken(stream: WebSocketStream<TcpStream>, name: &str, token: Option<String>) -> Self {
        Self {
            stream,
            name: name.to_owned(),
            token,
            sessions: HashMap::new(),
            versions: HashMap::new(),
            aside: VecDeque::new(),
            heard: Vec::new(),
            next_id: 1,
        }
    }

    /// Drops the socket without a word and opens another, remembering where it stood.
    pub(crate) async fn reconnect(self, at: SocketAddr) -> Self {
        let name = self.name.clone();
        let mut next = Self::open(at, &name, self.token.clone()).await;
        next.sessions = self.sessions;
        next.versions = self.versions;
        next.heard.splice(
            0..0,
            self.heard.into_iter().chain(["--- reconnected".to_owned()]),
        );
        next
    }

    // What it says -----------------------------------------------------------------------------------------

    /// Subscribes without a position, with the default history. Returns `subscribed`.
    pub(crate) async fn subscribe(&mut self, session: Uuid) -> Value {
        let answer = self
            .ask(json!({"type": "subscribe", "session": session}))
            .await;
        self.check_kind(&answer, "subscribed");
        answer
    }

    /// Subscribes without a position. Returns the answer, which may be an error.
    pub(crate) async fn try_subscribe(&mut self, session: Uuid) -> Value {
        self.ask(json!({"type": "subscribe", "session": session}))
            .await
    }

    /// Subscribes from where it stood, with its token; gives `subscribed`.
    pub(crate) async fn resume(&mut self, session: Uuid) -> Value {
        let Standing {
            seq, epoch, token, ..
        } = self.sessions[&session].clone();
        let resume = json!({"seq": seq, "epoch": epoch, "token": token});
        self.resume_with(session, resume).await
    }

    /// Subscribes from any position; gives `subscribed`.
    pub(crate) async fn resume_with(&mut self, session: Uuid, resume: Value) -> Value {
        let frame = json!({"type": "subscribe", "session": session, "resume": resume});
        let answer = self.ask(frame).await;
        self.check_kind(&answer, "subscribed");
        if answer["recovered"] == true && answer["seq"] != resume["seq"] {
            self.fail("recovered, but not where it stood");
        }
        answer
    }

    /// Sends a message; gives the `ack`.
    pub(crate) async fn send(&mut self, session: Uuid, body: &str) -> Value {
        let answer = self.try_send(session, body).await;
        self.check_kind(&answer, "ack");
        answer
    }

    /// Sends a message; gives the answer, whatever it is.
    pub(crate) async fn try_send(&mut self, session: Uuid, body: &str) -> Value {
        self.ask(json!({"type": "send", "session": session, "body": body}))
            .await
    }

    /// Votes; gives the `ack`.
    pub(crate) async fn vote(&mut self, voting: Uuid, movie: Option<Uuid>) -> Value {
        let answer = self.try_vote(voting, movie).await;
        self.check_kind(&answer, "ack");
        answer
    }

    /// Votes; gives the answer, whatever it is.
    pub(crate) async fn try_vote(&mut self, voting: Uuid, movie: Option<Uuid>) -> Value {
        self.ask(json!({"type": "vote", "voting": voting, "movie": movie}))
            .await
    }

    /// Sends a frame with an id and waits for its direct answer, an error included.
    pub(crate) async fn ask(&mut self, mut frame: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        frame["id"] = id.into();
        self.say(&frame).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline).await {
                Ok(answer) if answer["id"] == id => return answer,
                Ok(other) => self.set_aside(other),
                Err(code) => self.fail(&format!("closed with {code} instead of answering {frame}")),
            }
        }
    }

    /// Sends a frame.
    pub(crate) async fn say(&mut self, frame: &Value) {
        self.say_raw(Message::text(frame.to_string())).await;
    }

    /// Sends any message.
    pub(crate) async fn say_raw(&mut self, message: Message) {
        if let Err(error) = self.stream.send(message).await {
            self.fail(&format!("cannot send: {error}"));
        }
    }

    /// Sends bytes past the protocol.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    /// Sends a WebSocket ping and waits for its pong.
    pub(crate) async fn ping(&mut self, payload: &[u8]) {
        self.say_raw(Message::Ping(payload.to_vec().into())).await;
        let answered = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Pong(answer))) if answer == payload => return,
                    Some(Ok(Message::Text(text))) => {
                        self.set_aside(serde_json::from_str(&text).unwrap())
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => self.fail("closed instead of answering a ping"),
                }
            }
        };
        timeout(PATIENCE, answered).await.expect("no pong");
    }

    // What it hears ----------------------------------------------------------------------------------------

    /// The next frame of a kind, set aside before or still to come.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        self.expect_where(kind, |_| true).await
    }

    /// The next frame of a kind that is as it should be; others of that kind are passed over.
    pub(crate) async fn expect_where(
        &mut self,
        kind: &str,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Value {
        let fits = |frame: &Value| frame["type"] == kind && is_meant(frame);
        if let Some(place) = self.aside.iter().position(fits) {
            return self.aside.remove(place).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline).await {
                Ok(frame) if fits(&frame) => return frame,
                Ok(other) if other["type"] == kind => {}
                Ok(other) => self.set_aside(other),
                Err(code) => self.fail(&format!("closed with {code} instead of sending {kind}")),
            }
        }
    }

    /// Waits until the client has the event with this number, and returns the event.
    pub(crate) async fn event(&mut self, session: Uuid, seq: u64) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while self
            .sessions
            .get(&session)
            .is_none_or(|standing| standing.seq < seq)
        {
            match self.read_until(deadline).await {
                Ok(frame) => self.set_aside(frame),
                Err(code) => self.fail(&format!("closed with {code} before event {seq}")),
            }
        }
        let events = &self.sessions[&session].events;
        let found = events.iter().find(|event| event["seq"] == seq);
        found
            .cloned()
            .unwrap_or_else(|| self.fail(&format!("event {seq} was never sent")))
    }

    /// The next event of a type that is still to come, or was received but not looked at: the first after `after`.
    pub(crate) async fn event_of(&mut self, session: Uuid, after: u64, kind: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = &self.sessions[&session].events;
            let mut later = events
                .iter()
                .filter(|event| event["seq"].as_u64() > Some(after));
            if let Some(found) = later.find(|event| event["type"] == kind) {
                return found.clone();
            }
            match self.read_until(deadline).await {
                Ok(frame) => self.set_aside(frame),
                Err(code) => self.fail(&format!("closed with {code} before {kind}")),
            }
        }
    }

    /// Waits until the gateway closes, within the given time; gives the code.
    pub(crate) async fn closed_within(&mut self, limit: Duration) -> u16 {
        let deadline = Instant::now() + limit;
        loop {
            match self.read_until(deadline).await {
                Ok(frame) => self.aside.push_back(frame),
                Err(code) => return code,
            }
        }
    }

    /// Waits until the gateway closes; gives the code, 1006 where it only hung up.
    pub(crate) async fn closed(&mut self) -> u16 {
        self.closed_within(PATIENCE).await
    }

    /// Waits until a session's whole log has been received, and compares every event with the database's.
    pub(crate) async fn has_the_whole_log(&mut self, db: &Database, session: Uuid) {
        let head = db.head(session).await;
        if head > 0 {
            self.event(session, head).await;
        }
        let log = db.log(session).await;
        let Standing { seq, events, .. } = &self.sessions[&session];
        if *seq != head || events.len() != log.len() {
            self.fail(&format!(
                "{} events up to {seq}, the log has {} up to {head}",
                events.len(),
                log.len()
            ));
        }
        for (received, logged) in events.iter().zip(&log) {
            if received != logged {
                self.fail(&format!("received {received}\nlogged   {logged}"));
            }
        }
    }

    /// Proves that nothing of these kinds was on its way: a `pong` comes first.
    pub(crate) async fn has_nothing(&mut self, kinds: &[&str]) {
        let pong = self.ask(json!({"type": "ping"})).await;
        self.check_kind(&pong, "pong");
        let is_one = |frame: &&Value| kinds.iter().any(|kind| frame["type"] == **kind);
        if let Some(frame) = self.aside.iter().find(is_one) {
            self.fail(&format!("this should not have come: {frame}"));
        }
    }

    /// Takes the frames of a kind that were set aside.
    pub(crate) fn take(&mut self, kind: &str) -> Vec<Value> {
        let is_one = |frame: &Value| frame["type"] == kind;
        let (taken, left): (Vec<_>, Vec<_>) = self.aside.drain(..).partition(is_one);
        self.aside = left.into();
        taken
    }

    /// How many frames of a kind were ever received.
    pub(crate) fn received(&self, kind: &str) -> usize {
        let head = format!(r#"{{"type":"{kind}","#);
        self.heard
            .iter()
            .filter(|frame| frame.starts_with(&head))
            .count()
    }

    pub(crate) fn standing(&self, session: Uuid) -> &Standing {
        &self.sessions[&session]
    }

    pub(crate) fn seq(&self, session: Uuid) -> u64 {
        self.sessions[&session].seq
    }

    /// The position to resume from, token included.
    pub(crate) fn position(&self, session: Uuid) -> Value {
        let Standing {
            seq, epoch, token, ..
        } = &self.sessions[&session];
        json!({"seq": seq, "epoch": epoch, "token": token})
    }

    /// The next frame, or the code of the close.
    pub(crate) async fn read_until(&mut self, deadline: Instant) -> Result<Value, u16> {
        loop {
            let Ok(message) = timeout_at(deadline, self.stream.next()).await else {
                self.fail("what the test waits for did not come in time");
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Ok(self.take_in(&text));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    self.heard.push(format!("--- closed with {code}"));
                    return Err(code);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    // What it checks ---------------------------------------------------------------------------------------

    fn take_in(&mut self, text: &str) -> Value {
        self.heard.push(text.to_owned());
        let Ok(frame) = serde_json::from_str(text) else {
            self.fail("a frame that is not JSON");
        };
        self.verify(&frame);
        frame
    }

    fn verify(&mut self, frame: &Value) {
        let session = || {
            frame["session"]
                .as_str()
                .and_then(|session| session.parse().ok())
        };
        match frame["type"].as_str() {
            Some("subscribed" | "reset") => {
                let standing = self.sessions.entry(session().unwrap()).or_default();
                standing.epoch = frame["epoch"].as_str().unwrap().to_owned();
                if let Some(token) = frame["resume_token"].as_str() {
                    standing.token = token.to_owned();
                }
                let seq = frame["seq"].as_u64().unwrap();
                if frame["recovered"] == true {
                    // Another socket may have another position, but the recorded events must join without a gap.
                    if standing.seq != seq {
                        standing.events.clear();
                    }
                } else {
                    standing.events.clear();
                    assert!(frame["reason"].is_string(), "a reason is missing: {frame}");
                }
                standing.seq = seq;
            }
            Some("resume_token") => {
                let standing = self.sessions.get_mut(&session().unwrap()).unwrap();
                standing.token = frame["token"].as_str().unwrap().to_owned();
            }
            Some("events") => self.verify_events(session().unwrap(), frame),
            Some("tally") => self.verify_tally(frame),
            Some(_) => {}
            None => self.fail("a frame without a type"),
        }
    }

    fn verify_events(&mut self, session: Uuid, frame: &Value) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            self.fail("events of a session that was not subscribed to");
        };
        let events = frame["events"].as_array().unwrap();
        let mut flaw = events
            .is_empty()
            .then(|| "no events in a frame of events".to_owned());
        for event in events {
            if event["seq"] != standing.seq + 1 {
                flaw = Some(format!(
                    "event {} after event {}",
                    event["seq"], standing.seq
                ));
                break;
            }
            standing.seq += 1;
            standing.events.push(event.clone());
        }
        if let Some(flaw) = flaw {
            self.fail(&flaw);
        }
    }

    /// A version only grows, and one version has one set of counts. It may arrive twice, with or without counts.
    fn verify_tally(&mut self, frame: &Value) {
        let voting = frame["voting"].as_str().unwrap().to_owned();
        let version = frame["version"].as_u64().unwrap();
        if let Some((known, before)) = self.versions.get(&voting) {
            if version < *known {
                self.fail(&format!(
                    "a tally went back from version {known} to {version}"
                ));
            } else if version == *known && before["total"] != frame["total"] {
                self.fail(&format!("version {version} twice, with other counts"));
            }
        }
        if let Some(counts) = frame["counts"].as_array() {
            let sum: u64 = counts
                .iter()
                .map(|count| count["votes"].as_u64().unwrap())
                .sum();
            if frame["total"] != sum {
                self.fail(&format!(
                    "a total that is not the sum of its counts: {frame}"
                ));
            }
        }
        self.versions.insert(voting, (version, frame.clone()));
    }

    fn set_aside(&mut self, frame: Value) {
        if matches!(
            frame["type"].as_str(),
            Some("error" | "reset" | "unsubscribed")
        ) {
            self.fail("the test did not expect this frame");
        }
        self.aside.push_back(frame);
    }

    pub(crate) fn check_kind(&self, frame: &Value, kind: &str) {
        if frame["type"] != kind {
            self.fail(&format!("{kind} was expected, not {frame}"));
        }
    }

    #[track_caller]
    pub(crate) fn fail(&self, what: &str) -> ! {
        const SHOWN: usize = 60;
        let skipped = self.heard.len().saturating_sub(SHOWN);
        let heard = self.heard[skipped..].iter().map(|frame| shorten(frame));
        let heard = heard.collect::<Vec<_>>().join("\n");
        panic!(
            "{}: {what}\n--- what was received ({skipped} frames before):\n{heard}",
            self.name
        );
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(POLL).await;
        }
    };
    if timeout(PATIENCE, looking).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}");
    }
}

/// Checks that an answer is a refusal by this name; gives it.
#[track_caller]
pub(crate) fn refused(answer: Value, code: &str) -> Value {
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&json!("error"), &json!(code)),
        "{answer}"
    );
    assert!(
        answer["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{answer}"
    );
    answer
}

/// Returns the votes in a tally or in a poll of `subscribed`, by movie in the order of ids. Movies without votes are
/// left out.
#[track_caller]
pub(crate) fn votes(tally: &Value) -> Vec<(Uuid, u64)> {
    let counts = tally["counts"]
        .as_array()
        .unwrap_or_else(|| panic!("no counts in {tally}"));
    let mut votes: Vec<(Uuid, u64)> = counts
        .iter()
        .map(|count| {
            let movie = count["movie"].as_str().unwrap().parse().unwrap();
            (movie, count["votes"].as_u64().unwrap())
        })
        .filter(|(_, votes)| *votes > 0)
        .collect();
    votes.sort_unstable();
    votes
}

async fn shake_hands(
    socket: TcpStream,
    at: SocketAddr,
    query: &str,
    token: Option<&str>,
) -> WebSocketStream<TcpStream> {
    socket.set_nodelay(true).unwrap();
    let mut request = format!("ws://{at}/v1/socket{query}")
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", "usher.v1".parse().unwrap());
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let shaken = timeout(PATIENCE, tokio_tungstenite::client_async(request, socket)).await;
    let (stream, response) = shaken.expect("no answer to the handshake").unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "usher.v1");
    stream
}

fn shorten(frame: &str) -> String {
    const SHOWN: usize = 600;
    match frame.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &frame[..end], frame.len()),
        None => frame.to_owned(),
    }
}
