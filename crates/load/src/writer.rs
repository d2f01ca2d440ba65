//! Writes messages or votes through the gateway when they are due, and measures the acknowledgements.

use std::collections::HashMap;
use std::rc::Rc;

use rustc_hash::FxBuildHasher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::sleep;
use usher_core::protocol::server_frames::{DecodedFrame, ServerFrames};
use usher_core::protocol::websocket;

use crate::interval::{Interval, WriteCounts, count};
use crate::limits::{TAKEN_MAX, WRITER_PAUSE, WRITER_READ_BYTES};
use crate::pacer::Due;
use crate::scan::{self, Text};
use crate::socket::{self, Opened, SocketOptions};
use crate::worker_state::WorkerState;

/// The kind of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterKind {
    Message,
    Vote,
}

/// A socket that writes.
pub(crate) struct LoadWriter {
    /// Determines the user, the session and the addresses.
    pub(crate) number: u32,
    pub(crate) kind: WriterKind,
    pub(crate) dues: mpsc::Receiver<Due>,
}

/// The due times of the writes that have no answer yet, by number.
type DueTimes = HashMap<u64, u64, FxBuildHasher>;

impl LoadWriter {
    /// Writes until its task is dropped.
    pub(crate) async fn run(mut self, state: Rc<WorkerState>) {
        loop {
            match Box::pin(self.open(&state)).await {
                Ok(opened) => {
                    let reason = self.write(&state, opened).await;
                    state.on_close(&reason);
                }
                Err(error) => state.on_failure(&format!("a writer: {error}")),
            }
            sleep(WRITER_PAUSE).await;
        }
    }

    async fn open(&self, state: &WorkerState) -> Result<Opened, socket::OpenError> {
        let plan = &state.shared.plan;
        let caller = SocketOptions {
            number: self.number,
            token: plan.token_of(self.number),
            is_slow: false,
        };
        socket::open(plan, &caller).await
    }

    /// Writes on an open socket. Returns the reason why it ended.
    async fn write(&mut self, state: &WorkerState, opened: Opened) -> String {
        let Opened { mut stream, rest } = opened;
        let mask = WorkerState::mask();
        let mut frames = ServerFrames::default();
        let mut pending = DueTimes::default();
        let mut out = Vec::new();
        let mut buffer = Vec::with_capacity(WRITER_READ_BYTES);
        let mut taken = Vec::new();
        buffer.extend_from_slice(&rest);
        loop {
            if let Some(reason) =
                self.on_bytes(state, &buffer, &mut frames, &mut pending, (&mut out, mask))
            {
                return reason;
            }
            buffer.clear();
            if !out.is_empty() {
                if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
                    return "1006".to_owned();
                }
                out.clear();
            }
            // Both arms are cancel-safe: a due message that is not taken stays in its channel, and bytes stay
            // in the socket.
            tokio::select! {
                biased;
                read = stream.read_buf(&mut buffer) => {
                    if !matches!(read, Ok(count) if count > 0) {
                        return "1006".to_owned();
                    }
                }
                count = self.dues.recv_many(&mut taken, TAKEN_MAX) => {
                    if count == 0 {
                        // No more writes will be due. Answers may still arrive.
                        std::future::pending::<()>().await;
                    }
                    for due in taken.drain(..) {
                        websocket::put_client_text(&mut out, &self.frame(state, due), mask);
                        pending.insert(due.number, due.at_us);
                    }
                    self.writes(&mut state.interval.borrow_mut()).sent += count as u64;
                }
            }
        }
    }

    fn frame(&self, state: &WorkerState, due: Due) -> String {
        let shared = &state.shared;
        let number = due.number;
        let place = shared.plan.session_of(self.number);
        match self.kind {
            WriterKind::Message => {
                let session = shared.plan.sessions[place];
                let body = scan::body(
                    &shared.run,
                    number,
                    due.at_us,
                    shared.plan.message_characters,
                );
                format!(r#"{{"type":"send","id":{number},"session":"{session}","body":"{body}"}}"#)
            }
            WriterKind::Vote => {
                let ballot = &shared.ballots[place % shared.ballots.len()];
                let movie = ballot.movies
                    [usize::try_from(number).unwrap_or_default() % ballot.movies.len()];
                let voting = ballot.voting;
                format!(r#"{{"type":"vote","id":{number},"voting":"{voting}","movie":"{movie}"}}"#)
            }
        }
    }

    fn writes<'a>(&self, interval: &'a mut Interval) -> &'a mut WriteCounts {
        match self.kind {
            WriterKind::Message => &mut interval.messages,
            WriterKind::Vote => &mut interval.votes,
        }
    }

    fn on_bytes(
        &self,
        state: &WorkerState,
        bytes: &[u8],
        frames: &mut ServerFrames,
        pending: &mut DueTimes,
        (out, mask): (&mut Vec<u8>, [u8; 4]),
    ) -> Option<String> {
        let now_us = state.shared.clock.now_us();
        let mut end = None;
        let mut interval = state.interval.borrow_mut();
        interval.bytes += bytes.len() as u64;
        let fed = frames.feed(bytes, |frame| {
            interval.frames += 1;
            match frame {
                DecodedFrame::Text(text) => {
                    let Text::Said(said) = scan::read(text) else {
                        return;
                    };
                    let Some(due_us) = said.id.and_then(|id| pending.remove(&id)) else {
                        return;
                    };
                    if said.kind == "ack" {
                        self.writes(&mut interval).acknowledged += 1;
                        self.on_ack(state, &mut interval, said.seq, due_us, now_us);
                    } else {
                        let code = said.code.as_deref().unwrap_or("unknown");
                        count(&mut self.writes(&mut interval).refused, code);
                    }
                }
                DecodedFrame::Ping(payload) => websocket::put_client_pong(out, payload, mask),
                DecodedFrame::Close(code) => end = Some(code.to_string()),
                DecodedFrame::Other => {}
            }
        });
        fed.err().map(|error| error.to_string()).or(end)
    }

    fn on_ack(
        &self,
        state: &WorkerState,
        interval: &mut Interval,
        seq: Option<u64>,
        due_us: u64,
        now_us: u64,
    ) {
        let shared = &state.shared;
        if let (WriterKind::Message, Some(seq)) = (self.kind, seq) {
            shared.note_head(shared.plan.session_of(self.number), seq);
        }
        if shared.window.holds(due_us) {
            let times = match self.kind {
                WriterKind::Message => &mut interval.ack,
                WriterKind::Vote => &mut interval.vote_ack,
            };
            times.record(now_us.saturating_sub(due_us));
        }
    }
}
