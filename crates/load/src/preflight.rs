//! Checks the gateway before a run: does it answer, is it an Usher, and does it know the sessions?

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use usher_core::protocol::server_frames::{DecodedFrame, ServerFrames};
use usher_core::protocol::websocket;
use uuid::Uuid;

use crate::LoadError;
use crate::limits::ANSWER_TIMEOUT;
use crate::plan::{Ballot, Plan};
use crate::scan::{self, Text, VotingOptions};
use crate::socket::{self, OpenError, SocketOptions, Stream};

/// The result of the check.
#[derive(Debug)]
pub(crate) struct Found {
    /// The gateway's name and version, from `welcome`.
    pub(crate) server: String,
    /// The open poll of each session that has one.
    pub(crate) ballots: Vec<Ballot>,
    /// Settings that would distort the run.
    pub(crate) warnings: Vec<String>,
}

/// Connects and subscribes like the first viewer.
pub(crate) async fn look(plan: &Plan) -> Result<Found, LoadError> {
    let caller = SocketOptions {
        number: 0,
        token: plan.token_of(0),
        is_slow: false,
    };
    let opened = socket::open(plan, &caller)
        .await
        .map_err(|error| unreachable(plan, &error))?;
    let mut probe = Preflight {
        stream: opened.stream,
        frames: ServerFrames::default(),
        heard: Vec::new(),
        end: None,
    };
    probe.on_bytes(&opened.rest);
    let looking = async {
        let welcome = probe.until(|heard| heard.kind == "welcome").await?;
        let mut found = Found {
            server: welcome.server,
            ballots: Vec::new(),
            warnings: Vec::new(),
        };
        for session in &plan.sessions {
            probe.subscribe(plan, *session, &mut found).await?;
        }
        Ok(found)
    };
    timeout(ANSWER_TIMEOUT, looking).await.unwrap_or_else(|_| {
        Err(LoadError::Gateway(format!(
            "{} accepts the connection but does not answer within {} s: check its database and /readyz",
            plan.gateway.url,
            ANSWER_TIMEOUT.as_secs()
        )))
    })
}

fn unreachable(plan: &Plan, error: &OpenError) -> LoadError {
    let url = &plan.gateway.url;
    let advice = match error {
        OpenError::Refused => {
            "; is the gateway running there? `usher dev` starts a gateway on ws://127.0.0.1:4000"
        }
        OpenError::Timeout => "; check the address and the firewalls in between",
        OpenError::Tls(_) => {
            "; does the gateway use wss? For your own certificate authority, use --root-cert"
        }
        OpenError::NotHttp => "; check the port, and whether the gateway uses ws or wss",
        OpenError::Broken(_) => "; does the gateway use wss?",
        OpenError::NoAddress(_) | OpenError::NoFile | OpenError::Status { .. } => "",
    };
    LoadError::Gateway(format!("{url} cannot be used: {error}{advice}"))
}

struct Preflight {
    stream: Stream,
    frames: ServerFrames,
    heard: Vec<Answer>,
    end: Option<String>,
}

/// The fields of a received frame that matter here.
struct Answer {
    kind: String,
    server: String,
    refusal: String,
    slow_mode_seconds: u32,
    is_chat_enabled: bool,
    votings: Vec<VotingOptions>,
}

impl Preflight {
    async fn subscribe(
        &mut self,
        plan: &Plan,
        session: Uuid,
        found: &mut Found,
    ) -> Result<(), LoadError> {
        let mut out = Vec::new();
        let text = format!(r#"{{"type":"subscribe","id":1,"session":"{session}","history":0}}"#);
        websocket::put_client_text(&mut out, &text, [0; 4]);
        let url = &plan.gateway.url;
        if self.stream.write_all(&out).await.is_err() || self.stream.flush().await.is_err() {
            return Err(LoadError::Gateway(format!("{url} closed the connection")));
        }
        let answer = self
            .until(|heard| heard.kind == "subscribed" || heard.kind == "error")
            .await?;
        if answer.kind == "error" {
            return Err(LoadError::Gateway(format!(
                "the session {session} cannot be watched there: {}",
                answer.refusal
            )));
        }
        let open = answer
            .votings
            .into_iter()
            .find(|voting| voting.status == "open");
        found.ballots.extend(open.map(|voting| Ballot {
            voting: voting.voting,
            movies: voting.options.iter().map(|choice| choice.movie).collect(),
        }));
        if plan.chatters > 0 && answer.slow_mode_seconds > 0 {
            found.warnings.push(format!(
                "the session {session} is in slow mode: the gateway refuses messages of a user within {} s of each other",
                answer.slow_mode_seconds
            ));
        }
        if plan.chatters > 0 && !answer.is_chat_enabled {
            found.warnings.push(format!(
                "the chat of session {session} is turned off: the gateway will refuse messages"
            ));
        }
        Ok(())
    }

    async fn until(&mut self, is_it: impl Fn(&Answer) -> bool) -> Result<Answer, LoadError> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            if let Some(place) = self.heard.iter().position(&is_it) {
                return Ok(self.heard.swap_remove(place));
            }
            if let Some(end) = self.end.take() {
                return Err(LoadError::Gateway(end));
            }
            buffer.clear();
            match self.stream.read_buf(&mut buffer).await {
                Ok(count) if count > 0 => self.on_bytes(&buffer),
                Ok(_) | Err(_) => {
                    self.end =
                        Some("the gateway ended the connection without a close frame".to_owned())
                }
            }
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        let Self { heard, end, .. } = self;
        let fed = self.frames.feed(bytes, |frame| match frame {
            DecodedFrame::Text(text) => {
                if let Text::Said(said) = scan::read(text) {
                    let code = said.code.unwrap_or_default();
                    heard.push(Answer {
                        kind: said.kind.into_owned(),
                        server: said.server.unwrap_or_default(),
                        refusal: format!("{code} \"{}\"", said.message.unwrap_or_default()),
                        slow_mode_seconds: said
                            .info
                            .as_ref()
                            .map_or(0, |info| info.slow_mode_seconds),
                        is_chat_enabled: said
                            .info
                            .and_then(|info| info.chat_enabled)
                            .unwrap_or(true),
                        votings: said.votings,
                    });
                }
            }
            DecodedFrame::Close(code) => {
                *end = Some(format!("the gateway closed the connection with {code}"))
            }
            DecodedFrame::Ping(_) | DecodedFrame::Other => {}
        });
        if fed.is_err() {
            *end = Some("unexpected response; is this an Usher server?".to_owned());
        }
    }
}
