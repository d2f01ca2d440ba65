//! One viewer: connects, subscribes, checks every number, answers pings, and reconnects with its position.
//!
//! Its task is a small state machine over a buffer that all viewers of a thread share. An idle viewer takes only a
//! socket, a task and a few numbers.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::sleep;
use usher_core::protocol::server_frames::{DecodedFrame, ServerFrames};
use usher_core::protocol::websocket;
use uuid::Uuid;

use crate::interval::Interval;
use crate::limits::PAUSE_MS_MAX;
use crate::scan::{self, ReceivedFrame, Text};
use crate::socket::{self, Opened, SocketOptions, Stream};
use crate::worker_state::{Order, ViewerState, WorkerState};

/// Close codes from here on mean: do not reconnect.
const FINAL_CODES: u16 = 4_500;

/// The state that a viewer needs to resume.
#[derive(Default)]
struct ResumeState {
    epoch: Option<String>,
    token: Option<String>,
}

/// The reason why a connection ended.
#[derive(Debug)]
enum ViewerEnd {
    /// The run dropped it.
    Dropped,
    Closed(u16),
    /// For the given reason.
    Failed(String),
}

/// Watches until its task is dropped.
pub(crate) async fn run(state: Rc<WorkerState>, viewer_state: Rc<ViewerState>, due_us: u64) {
    let mut standing = ResumeState::default();
    let mut failures = 0;
    let mut due_us = Some(due_us);
    loop {
        // Boxed, because the handshake's state would otherwise enlarge the viewer's task for its whole life.
        let opened = Box::pin(open(&state, &viewer_state)).await;
        let mut pause = pause(failures);
        match opened {
            Ok(opened) => {
                if let Some(due_us) = due_us.take() {
                    let now_us = state.shared.clock.now_us();
                    state
                        .interval
                        .borrow_mut()
                        .connect
                        .record(now_us.saturating_sub(due_us));
                }
                let mut watcher = Watcher::new(&state, &viewer_state, &mut standing, opened);
                let end = std::future::poll_fn(|context| watcher.poll(context)).await;
                if let Some(advice) = watcher.advice {
                    pause = advice;
                }
                if viewer_state.is_watching.replace(false) {
                    failures = 0;
                }
                match end {
                    ViewerEnd::Dropped => continue,
                    ViewerEnd::Closed(code) => {
                        state.on_close(&code.to_string());
                        state.interval.borrow_mut().evicted += u64::from(viewer_state.is_slow);
                        if code >= FINAL_CODES {
                            return;
                        }
                    }
                    ViewerEnd::Failed(reason) => state.on_failure(&reason),
                }
            }
            Err(error) => state.on_failure(&error.to_string()),
        }
        failures += 1;
        sleep(pause).await;
    }
}

async fn open(
    state: &WorkerState,
    viewer_state: &ViewerState,
) -> Result<Opened, socket::OpenError> {
    let plan = &state.shared.plan;
    let token = plan
        .token_of(viewer_state.number)
        .filter(|_| plan.are_viewers_signed_in);
    let caller = SocketOptions {
        number: viewer_state.number,
        token,
        is_slow: viewer_state.is_slow,
    };
    socket::open(plan, &caller).await
}

/// Returns a random pause whose range doubles with every failure.
fn pause(failures: u32) -> Duration {
    let ceiling = (250_u64 << failures.min(6)).min(PAUSE_MS_MAX);
    Duration::from_millis(50 + Uuid::new_v4().as_u64_pair().1 % ceiling)
}

/// A viewer's open connection.
struct Watcher<'a> {
    state: &'a WorkerState,
    viewer_state: &'a ViewerState,
    standing: &'a mut ResumeState,
    stream: Stream,
    frames: ServerFrames,
    /// Bytes that arrived with the handshake's response.
    rest: Vec<u8>,
    /// Bytes that wait to be written.
    out: Vec<u8>,
    mask: [u8; 4],
    subscribed_at_us: u64,
    /// The delay after which the gateway asked the viewer to reconnect.
    advice: Option<Duration>,
}

impl<'a> Watcher<'a> {
    fn new(
        state: &'a WorkerState,
        viewer_state: &'a ViewerState,
        standing: &'a mut ResumeState,
        opened: Opened,
    ) -> Self {
        let mask = WorkerState::mask();
        let mut out = Vec::new();
        websocket::put_client_text(&mut out, &subscribe(state, viewer_state, standing), mask);
        Self {
            state,
            viewer_state,
            standing,
            stream: opened.stream,
            frames: ServerFrames::default(),
            rest: opened.rest,
            out,
            mask,
            subscribed_at_us: state.shared.clock.now_us(),
            advice: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ViewerEnd> {
        let rest = std::mem::take(&mut self.rest);
        if let Some(end) = self.on_bytes(&rest) {
            return Poll::Ready(end);
        }
        let mut scratch = self.state.scratch.borrow_mut();
        loop {
            match self.viewer_state.take_order(context) {
                Order::Watch => {}
                Order::Drop => return Poll::Ready(ViewerEnd::Dropped),
                Order::Stall => return Poll::Pending,
            }
            if let Some(end) = self.write(context) {
                return Poll::Ready(end);
            }
            // For a socket that always has more bytes, the runtime's budget ends this loop.
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    if let Some(end) = self.on_bytes(buffer.filled()) {
                        return Poll::Ready(end);
                    }
                }
                Ok(()) | Err(_) => return Poll::Ready(ViewerEnd::Closed(1006)),
            }
        }
    }

    /// Writes as many bytes as the socket accepts. The rest follows when it accepts more.
    fn write(&mut self, context: &mut Context<'_>) -> Option<ViewerEnd> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.out) {
                Poll::Ready(Ok(written)) if written > 0 => drop(self.out.drain(..written)),
                Poll::Ready(Ok(_) | Err(_)) => return Some(ViewerEnd::Closed(1006)),
                Poll::Pending => return None,
            }
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(_)) => Some(ViewerEnd::Closed(1006)),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Option<ViewerEnd> {
        if bytes.is_empty() {
            return None;
        }
        let now_us = self.state.shared.clock.now_us();
        let mut interval = self.state.interval.borrow_mut();
        interval.bytes += bytes.len() as u64;
        let mut end = None;
        let mut frames = std::mem::take(&mut self.frames);
        let fed = frames.feed(bytes, |frame| {
            interval.frames += 1;
            match frame {
                DecodedFrame::Text(text) => match scan::read(text) {
                    Text::Events => self.on_events(text, &mut interval, now_us),
                    Text::Counts => {}
                    Text::Said(said) => {
                        end = end.take().or(self.on_said(*said, &mut interval, now_us))
                    }
                    Text::Unknown => {
                        end = Some(ViewerEnd::Failed(
                            "the server does not speak usher.v1".to_owned(),
                        ))
                    }
                },
                DecodedFrame::Ping(payload) => {
                    websocket::put_client_pong(&mut self.out, payload, self.mask)
                }
                DecodedFrame::Close(code) => end = end.take().or(Some(ViewerEnd::Closed(code))),
                DecodedFrame::Other => {}
            }
        });
        self.frames = frames;
        fed.err()
            .map(|error| ViewerEnd::Failed(error.to_string()))
            .or(end)
    }

    fn on_events(&self, text: &[u8], interval: &mut Interval, now_us: u64) {
        let WorkerState { shared, .. } = self.state;
        let counts_from_us = self.viewer_state.counts_from_us.get();
        let mut ledger = self.viewer_state.ledger.borrow_mut();
        shared.scanner.events(text, |event| {
            interval.deliveries += 1;
            ledger.on_event(event.seq, &mut interval.audit);
            if let Some(due_us) = event.due_us
                && due_us >= counts_from_us
                && shared.window.holds(due_us)
            {
                interval.latency.record(now_us.saturating_sub(due_us));
            }
        });
        let last = ledger.last().unwrap_or_default();
        drop(ledger);
        shared.note_head(self.viewer_state.session, last);
        self.viewer_state.note_whole(shared, interval, now_us);
    }

    fn on_said(
        &mut self,
        said: ReceivedFrame<'_>,
        interval: &mut Interval,
        now_us: u64,
    ) -> Option<ViewerEnd> {
        let shared = &self.state.shared;
        match said.kind.as_ref() {
            "subscribed" | "reset" => {
                let seq = said.seq.unwrap_or_default();
                let mut ledger = self.viewer_state.ledger.borrow_mut();
                if said.kind == "subscribed" && ledger.last().is_none() {
                    interval.join.record(now_us - self.subscribed_at_us);
                }
                ledger.on_start(seq, said.recovered == Some(true), &mut interval.audit);
                drop(ledger);
                shared.note_head(self.viewer_state.session, seq);
                self.standing.epoch = said.epoch.or(self.standing.epoch.take());
                self.standing.token = said.resume_token.or(self.standing.token.take());
                self.viewer_state.is_watching.set(true);
                self.viewer_state.note_whole(shared, interval, now_us);
                None
            }
            "resume_token" => {
                self.standing.token = said.token;
                None
            }
            "reconnect" => {
                self.advice = said.after_ms.map(Duration::from_millis);
                None
            }
            "error" => {
                let code = said.code.unwrap_or_default();
                let message = said.message.unwrap_or_default();
                Some(ViewerEnd::Failed(format!(
                    "the gateway refused the subscribe: {code} \"{message}\""
                )))
            }
            "unsubscribed" => {
                let reason = said.reason.unwrap_or_default();
                Some(ViewerEnd::Failed(format!(
                    "the gateway ended the subscription: {reason}"
                )))
            }
            _ => None,
        }
    }
}

/// Builds a subscribe frame: from now on, or from the last position.
fn subscribe(state: &WorkerState, viewer_state: &ViewerState, standing: &ResumeState) -> String {
    let session = state.shared.plan.sessions[viewer_state.session];
    match viewer_state.ledger.borrow().last() {
        None => format!(r#"{{"type":"subscribe","id":1,"session":"{session}","history":0}}"#),
        Some(seq) => {
            let resume =
                serde_json::json!({"seq": seq, "epoch": standing.epoch, "token": standing.token});
            format!(r#"{{"type":"subscribe","id":1,"session":"{session}","resume":{resume}}}"#)
        }
    }
}
