//! Receives the database's notifications by LISTEN, and passes them on.
//!
//! The listener holds one session-mode connection, and opens another when it loses that one. Every few seconds it sends
//! itself a probe over another connection, because a half-open connection, or one through a transaction pooler, looks
//! alive and receives nothing. It passes notifications on in the order of their arrival, and decides nothing.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, Notification};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::causes::with_causes;
use crate::limits::{
    HEARD_MAX, PROBE_INTERVAL, PROBE_TIMEOUT, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN,
};
use crate::metrics::Metrics;
use crate::postgres::connect::{Link, SESSION_SETTINGS, Target};
use crate::postgres::connect_error::ConnectError;
use crate::postgres::statement::{StoreError, is_about_schema};
use crate::postgres::store::{STANDING_COLUMNS, Standing, Store};
use usher_core::protocol::id::VotingId;
use usher_core::protocol::ms;
use usher_core::protocol::notify::{self, AccessChange, Channels, Notice};
use usher_core::relay::personal::OwnVote;

/// A message from the listener to its subscribers.
#[derive(Debug)]
pub enum ListenEvent {
    /// The listener listens from now on. It may have missed anything before.
    Reconnected {
        /// The epoch of the database.
        epoch: String,
    },
    /// Votes that this gateway wrote, in the order of their commits, from the batcher.
    OwnVotes(Vec<OwnVote>),
    /// Notifications that arrived together.
    Notices {
        events: Vec<Notice>,
        /// Changes of permissions.
        access: Vec<AccessChange>,
    },
}

/// The listener task.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The database to listen to.
    pub(crate) target: Target,
    /// Sends the probes over other connections, so that a pooler cannot answer them itself.
    pub(crate) store: Store,
    /// The receivers. A full queue makes the listener wait, and Postgres keeps the rest.
    pub(crate) subscribers: Vec<mpsc::Sender<Arc<ListenEvent>>>,
    /// Receives the polls whose counts changed.
    pub(crate) changed_votings: mpsc::Sender<Vec<VotingId>>,
    /// Whether the listener listens now.
    pub(crate) is_listening: watch::Sender<bool>,
    /// Counts the echo delay, reconnects and notifications.
    pub(crate) metrics: Arc<Metrics>,
}

/// Why the listener gave up a connection.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the database ended the connection")]
    Ended(#[source] Option<tokio_postgres::Error>),
    #[error(
        "no echo within {} s: a dead network, or a transaction pooler (port 6543) where LISTEN cannot work; use the \
         direct connection or the session pooler on port 5432",
        PROBE_TIMEOUT.as_secs()
    )]
    NoEcho,
    #[error("the database went back in time, as one that is restored from a backup does")]
    OtherEpoch,
    #[error(
        "the channels have other names: the schema `usher` was removed and applied again, or restored"
    )]
    OtherChannels,
    #[error("the names of the channels are not of our making: apply the migrations again")]
    StrangeChannels,
    #[error("the database took the connection and says nothing")]
    Silent,
    #[error("listen")]
    Statement(#[from] tokio_postgres::Error),
}

impl Listener {
    /// Listens until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut pause = RECONNECT_PAUSE_MIN;
        let mut away_since = None;
        let mut said = HashSet::new();
        loop {
            let heard_at = Instant::now();
            let lost = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                lost = self.listen(&mut away_since) => lost,
            };
            if self.is_listening.send_replace(false) {
                said.clear();
            }
            // Logs each reason once, not each try: a later reason may be one that the operator can fix. Without their
            // causes there are only a few. Another line of the gateway covers a missing schema.
            if let Lost::Statement(error) = &lost
                && is_about_schema(error)
            {
                self.store.log().log_missing_schema(&with_causes(error));
            } else if said.insert(lost.to_string()) {
                warn!(error = with_causes(&lost), "not listening, trying again");
            }
            away_since.get_or_insert_with(Instant::now);
            self.metrics.listen_losses.inc();
            // A connection that lasted for a while is replaced without a pause.
            pause = if heard_at.elapsed() > RECONNECT_PAUSE_MAX {
                RECONNECT_PAUSE_MIN
            } else {
                pause
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
        }
    }

    /// Listens over one connection until it is lost.
    async fn listen(&self, away_since: &mut Option<Instant>) -> Lost {
        let (client, mut link) = match self.target.connect().await {
            Ok(connection) => connection,
            Err(error) => return error.into(),
        };
        let mut probe = Probe::new();
        let standing = {
            let setting_up = timeout(PROBE_TIMEOUT, set_up(&client, &probe.channel));
            tokio::pin!(setting_up);
            loop {
                tokio::select! {
                    biased;
                    standing = &mut setting_up => match standing {
                        Ok(Ok(standing)) => break standing,
                        Ok(Err(lost)) => return lost,
                        Err(_) => return Lost::Silent,
                    },
                    // Dropping these messages loses nothing: the resync after `Reconnected` finds their events.
                    messages = poll_fn(|cx| poll_messages(&mut link, cx)) => if let Err(lost) = messages {
                        return lost;
                    },
                }
            }
        };
        let mut is_known = false;
        loop {
            let notifications = tokio::select! {
                biased;
                // Cancel-safe: a poll that is not ready has consumed nothing.
                messages = poll_fn(|cx| poll_messages(&mut link, cx)) => match messages {
                    Ok(notifications) => notifications,
                    Err(lost) => return lost,
                },
                outcome = probe.drive(&self.store, &standing) => match outcome {
                    Ok(()) => continue,
                    Err(lost) => return lost,
                },
            };
            if let Some(delay) = probe.echo(&notifications) {
                self.metrics.echo_delay.observe(delay.as_secs_f64());
                // Only an echo proves that this connection receives notifications.
                if !std::mem::replace(&mut is_known, true) {
                    let away_ms = away_since.take().map(|since| ms(since.elapsed()));
                    info!(away_ms, "listening");
                    let epoch = standing.epoch.clone();
                    self.hand_on(ListenEvent::Reconnected { epoch }).await;
                    self.is_listening.send_replace(true);
                }
            }
            if is_known {
                self.metrics
                    .notifications
                    .inc_by(notifications.len() as u64);
                self.hand_on_all(&notifications, &standing.channels).await;
            }
        }
    }

    async fn hand_on_all(&self, notifications: &[Notification], channels: &Channels) {
        let (mut events, mut votings, mut access) = (Vec::new(), Vec::new(), Vec::new());
        for notification in notifications {
            let payload = notification.payload();
            let channel = notification.channel();
            if channel == channels.events {
                events.extend(notify::parse_notice(payload));
            } else if channel == channels.votes {
                votings.extend(notify::parse_voting(payload));
            } else if channel == channels.control {
                access.extend(notify::parse_access_change(payload));
            }
        }
        if !(events.is_empty() && access.is_empty()) {
            self.hand_on(ListenEvent::Notices { events, access }).await;
        }
        if !votings.is_empty() {
            // A closed queue means that the gateway stops.
            let _ = self.changed_votings.send(votings).await;
        }
    }

    async fn hand_on(&self, heard: ListenEvent) {
        let heard = Arc::new(heard);
        for subscriber in &self.subscribers {
            // A closed queue means that the gateway stops.
            let _ = subscriber.send(Arc::clone(&heard)).await;
        }
    }
}

/// Listens on all channels, and then reads the epoch and the channel names, so that it misses no change in between.
async fn set_up(client: &Client, probe_channel: &str) -> Result<Standing, Lost> {
    client.batch_execute(SESSION_SETTINGS).await?;
    let Standing { channels, .. } = read_standing(client).await?;
    if !channels.are_plain() {
        return Err(Lost::StrangeChannels);
    }
    let Channels {
        events,
        votes,
        control,
    } = &channels;
    let listen =
        format!("listen {events}; listen {votes}; listen {control}; listen {probe_channel}");
    client.batch_execute(&listen).await?;
    let standing = read_standing(client).await?;
    if standing.channels != channels {
        return Err(Lost::OtherChannels);
    }
    Ok(standing)
}

async fn read_standing(client: &Client) -> Result<Standing, tokio_postgres::Error> {
    // Unnamed: behind a transaction pooler, another server connection does not know a prepared statement.
    let sql = format!("select {STANDING_COLUMNS}");
    let row = client.query_typed(&sql, &[]).await?;
    Ok(row.first().map(Standing::of).unwrap_or_default())
}

/// Takes all pending messages, at least one.
fn poll_messages(
    link: &mut Link,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<Vec<Notification>, Lost>> {
    let mut notifications = Vec::new();
    while notifications.len() < HEARD_MAX {
        match link.poll_message(cx) {
            Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                notifications.push(notification)
            }
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Lost::Ended(Some(error)))),
            Poll::Ready(None) => return Poll::Ready(Err(Lost::Ended(None))),
            Poll::Pending if notifications.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(notifications))
}

/// The notification that the listener sends to itself.
struct Probe {
    channel: String,
    state: ProbeState,
    is_failing: bool,
}

enum ProbeState {
    Due(Instant),
    /// The echo may arrive before the answer, which contains the epoch and the channel names. The probe waits for both.
    Sending {
        began: Instant,
        answer: Pin<Box<dyn Future<Output = Result<Standing, StoreError>> + Send>>,
        is_heard: bool,
    },
    Sent {
        began: Instant,
        sent: Instant,
    },
}

impl Probe {
    fn new() -> Self {
        let channel = format!("usher_probe_{}", Uuid::new_v4().simple());
        Self {
            channel,
            state: ProbeState::Due(Instant::now()),
            is_failing: false,
        }
    }

    /// Sends the next probe when it is due. Returns an error when the echo of the last one does not arrive, or when the
    /// database has another epoch or other channels. Cancel-safe: a pending probe is kept.
    async fn drive(&mut self, store: &Store, standing: &Standing) -> Result<(), Lost> {
        match &mut self.state {
            ProbeState::Due(at) => {
                tokio::time::sleep_until(*at).await;
                let (store, channel) = (store.clone(), self.channel.clone());
                self.state = ProbeState::Sending {
                    began: Instant::now(),
                    answer: Box::pin(async move { store.probe(&channel).await }),
                    is_heard: false,
                };
            }
            ProbeState::Sending {
                began,
                answer,
                is_heard,
            } => {
                self.state = match answer.await {
                    Ok(now) if now.epoch != standing.epoch => return Err(Lost::OtherEpoch),
                    Ok(now) if now.channels != standing.channels => {
                        return Err(Lost::OtherChannels);
                    }
                    Ok(_) if *is_heard => ProbeState::Due(Instant::now() + PROBE_INTERVAL),
                    Ok(_) => ProbeState::Sent {
                        began: *began,
                        sent: Instant::now(),
                    },
                    // The probe was not sent, so a missing echo proves nothing about this connection.
                    Err(error) => {
                        if !std::mem::replace(&mut self.is_failing, true) {
                            warn!(
                                error = with_causes(&error),
                                "cannot notify ourselves, trying again"
                            );
                        }
                        ProbeState::Due(Instant::now() + RECONNECT_PAUSE_MIN)
                    }
                };
            }
            ProbeState::Sent { sent, .. } => {
                tokio::time::sleep_until(*sent + PROBE_TIMEOUT).await;
                return Err(Lost::NoEcho);
            }
        }
        Ok(())
    }

    /// Looks for the echo, and returns its delay.
    fn echo(&mut self, notifications: &[Notification]) -> Option<Duration> {
        if !notifications
            .iter()
            .any(|notification| notification.channel() == self.channel)
        {
            return None;
        }
        let delay = match &mut self.state {
            ProbeState::Due(_) => return None,
            ProbeState::Sending {
                began, is_heard, ..
            } => {
                *is_heard = true;
                began.elapsed()
            }
            ProbeState::Sent { began, .. } => {
                let delay = began.elapsed();
                self.state = ProbeState::Due(Instant::now() + PROBE_INTERVAL);
                delay
            }
        };
        self.is_failing = false;
        Some(delay)
    }
}
