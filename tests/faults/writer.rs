//! Writers that run during the whole fault. Senders use the gateway and repeat each message under its nonce until it is
//! acknowledged. Voters vote through the gateway. Others use SQL: single rows, bulk inserts and rollbacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use crate::stage::{Database, Keys};
use crate::viewer::SharedState;

/// The pause between two messages, or two votes, of one writer.
const PACE: Duration = Duration::from_millis(100);
/// The longest wait for an answer before the writer reconnects. A gateway keeps trying for ten seconds.
const ANSWER_MAX: Duration = Duration::from_secs(12);
const CONNECT_MAX: Duration = Duration::from_secs(5);
const BULK_ROWS: i32 = 20;

/// A message that the gateway has acknowledged.
pub(crate) struct Acked {
    pub(crate) session: Uuid,
    pub(crate) author: Uuid,
    pub(crate) nonce: Uuid,
    pub(crate) message: Uuid,
    pub(crate) seq: u64,
    pub(crate) at: Instant,
}

/// The state that all writers share.
#[derive(Clone)]
pub(crate) struct WriterContext {
    pub(crate) shared: Arc<SharedState>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) database: Database,
    /// True once the writers should finish.
    pub(crate) is_over: watch::Receiver<bool>,
}

type Socket = WebSocketStream<TcpStream>;

impl WriterContext {
    fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// Sends messages to the busy sessions in turn. Returns the acknowledged ones.
    pub(crate) async fn send(self, author: Uuid) -> anyhow::Result<Vec<Acked>> {
        let mut acked = Vec::new();
        let mut line = Line::new(&self, author);
        let sessions = self.shared.busy().to_vec();
        for session in sessions.iter().cycle() {
            if self.is_over() {
                break;
            }
            let nonce = Uuid::new_v4();
            let answer = line
                .ask(&json!({
                    "type": "send", "session": session, "nonce": nonce,
                    "body": format!("message {} by {author}", acked.len()),
                }))
                .await?;
            acked.push(Acked {
                session: *session,
                author,
                nonce,
                message: serde_json::from_value(answer["message"].clone())?,
                seq: serde_json::from_value(answer["seq"].clone())?,
                at: Instant::now(),
            });
            sleep(PACE).await;
        }
        Ok(acked)
    }

    /// Votes and changes the vote until the run is over. Returns the number of votes.
    pub(crate) async fn vote(
        self,
        voter: Uuid,
        voting: Uuid,
        movies: Vec<Uuid>,
    ) -> anyhow::Result<u64> {
        let mut count = 0;
        let mut line = Line::new(&self, voter);
        for movie in movies.iter().cycle() {
            if self.is_over() {
                break;
            }
            line.ask(&json!({"type": "vote", "voting": voting, "movie": movie}))
                .await?;
            count += 1;
            sleep(PACE).await;
        }
        Ok(count)
    }

    /// Writes with SQL. If the database fails during a statement, only the log shows whether it was committed.
    pub(crate) async fn insert(self, author: Uuid) -> anyhow::Result<u64> {
        let mut client = None;
        let mut round = 0;
        while !self.is_over() {
            round += 1;
            let open = match client.take() {
                Some(open) => open,
                None => match timeout(CONNECT_MAX, self.database.connect()).await {
                    Ok(Ok(open)) => open,
                    Ok(Err(_)) | Err(_) => {
                        sleep(PACE).await;
                        continue;
                    }
                },
            };
            if let Ok(Ok(())) = timeout(ANSWER_MAX, self.insert_once(&open, author, round)).await {
                client = Some(open);
            }
            sleep(PACE / 2).await;
        }
        Ok(round)
    }

    async fn insert_once(
        &self,
        client: &Client,
        author: Uuid,
        round: u64,
    ) -> Result<(), tokio_postgres::Error> {
        let sessions = self.shared.busy();
        if round.is_multiple_of(25) {
            let sql = "insert into public.chat_messages (session_id, user_id, body)
                select s, $2, 'in bulk ' || n from unnest($1::uuid[]) s, generate_series(1, $3::int) n";
            client
                .execute(sql, &[&sessions, &author, &BULK_ROWS])
                .await?;
            return Ok(());
        }
        let is_withdrawn = round.is_multiple_of(4);
        client.batch_execute("begin").await?;
        for session in sessions {
            let sql =
                "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3)";
            let body = if is_withdrawn {
                "rolled back"
            } else {
                "by sql"
            };
            client.execute(sql, &[session, &author, &body]).await?;
        }
        let end = if is_withdrawn { "rollback" } else { "commit" };
        client.batch_execute(end).await
    }
}

/// A connection to one of the gateways, which reconnects after each loss.
struct Line<'a> {
    context: &'a WriterContext,
    user: Uuid,
    socket: Option<Socket>,
    attempts: usize,
    asked: u64,
}

impl<'a> Line<'a> {
    fn new(context: &'a WriterContext, user: Uuid) -> Self {
        Self {
            context,
            user,
            socket: None,
            attempts: 0,
            asked: 0,
        }
    }

    /// Sends a frame until the gateway answers it with an `ack`.
    async fn ask(&mut self, frame: &Value) -> anyhow::Result<Value> {
        loop {
            let answer = timeout(ANSWER_MAX, self.ask_once(frame)).await;
            match answer {
                Ok(Some(answer)) if answer["type"] == "ack" => return Ok(answer),
                Ok(Some(answer)) => match (answer["code"].as_str(), &answer["retry_after_ms"]) {
                    (Some("unavailable" | "busy" | "rate_limited"), after) if after.is_u64() => {
                        sleep(Duration::from_millis(after.as_u64().unwrap_or_default())).await;
                    }
                    _ => bail!("{frame} was refused: {answer}"),
                },
                Ok(None) | Err(_) => {
                    self.socket = None;
                    sleep(PACE).await;
                }
            }
        }
    }

    /// Sends a frame once. Returns the answer, or `None` if the connection is lost.
    async fn ask_once(&mut self, frame: &Value) -> Option<Value> {
        if self.socket.is_none() {
            self.socket = timeout(CONNECT_MAX, self.connect()).await.ok()?;
        }
        let socket = self.socket.as_mut()?;
        self.asked += 1;
        let mut frame = frame.clone();
        frame["id"] = self.asked.into();
        socket.send(Message::text(frame.to_string())).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message
                && let Ok(answer) = serde_json::from_str::<Value>(&text)
                && answer["id"] == self.asked
            {
                return Some(answer);
            }
        }
        None
    }

    async fn connect(&mut self) -> Option<Socket> {
        let nodes = self.context.shared.nodes.borrow().clone();
        self.attempts += 1;
        let node = nodes[self.attempts % nodes.len()];
        let socket = TcpStream::connect(node).await.ok()?;
        let mut request = format!("ws://{node}/v1/socket")
            .into_client_request()
            .ok()?;
        let bearer = format!("Bearer {}", self.context.keys.token(self.user));
        request
            .headers_mut()
            .insert("authorization", bearer.parse().ok()?);
        let (socket, _) = tokio_tungstenite::client_async(request, socket)
            .await
            .ok()?;
        Some(socket)
    }
}
