//! What the gateway counts, for Prometheus.
//!
//! Each metric is declared once, with its help. Labels come from closed enums, never from a session or a user. Handles
//! are cheap to touch: an atomic each, no look-up by name.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::protocol::refusal::{CloseCode, RefusalCode};
use crate::protocol::server::StartReason;
use crate::relay::opening::Beginning;
use crate::relay::router::RefillCause;

/// Seconds, from what a loopback takes to what a person gives up on.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0,
];
/// Items of a batch.
const ITEMS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0];

/// Every metric of the gateway.
#[derive(Debug)]
#[expect(missing_docs, reason = "each metric's help is its doc")]
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub connections_total: Counter,
    pub subscriptions: Gauge,
    pub sessions: Gauge,
    pub window_bytes: Gauge,
    pub handshake_refusals: Family<Label<HandshakeRefusal>, Counter>,
    pub unreadable_addresses: Counter,
    pub tls_handshakes: Counter,
    pub tls_failures: Family<Label<TlsFailure>, Counter>,
    pub tls_expiry: Gauge,
    pub closes: Family<Label<CloseCode>, Counter>,
    pub refusals: Family<Label<RefusalCode>, Counter>,
    pub calls: Family<Call, Counter>,
    pub starts: Family<Label<Beginning>, Counter>,
    pub frames_received: Counter,
    pub control_frames_received: Counter,
    pub turned_out: Counter,
    pub bytes_sent: Counter,
    pub deliveries: Counter,
    pub stalls: Counter,
    pub notifications: Counter,
    pub listen_losses: Counter,
    pub is_listening: Gauge,
    pub is_ready: Gauge,
    pub lag: Histogram,
    pub command_queue: Gauge,
    pub write_queue: Gauge,
    pub write_queue_bytes: Gauge,
    pub write_refusals: Family<Label<WriteRefusal>, Counter>,
    pub write_waits: Histogram,
    pub throttle_keys: Gauge,
    pub query_queue: Gauge,
    pub echo_delay: Histogram,
    pub refills: Family<Label<RefillCause>, Counter>,
    pub forged_events: Counter,
    pub fanout_rounds: Histogram,
    pub admissions: Histogram,
    pub shared_admissions: Counter,
    pub writes: Histogram,
    pub batch_items: Histogram,
    pub batches: Histogram,
    pub batch_retries: Counter,
    pub batches_blocked: Counter,
    pub held_places: Gauge,
    pub tallies: Counter,
    pub tallies_postponed: Counter,
    pub query_failures: Counter,
    pub key_fetches: Family<Label<KeyFetch>, Counter>,
    pub keys: Gauge,
    pub keys_age: Gauge,
    pub trimmed: Counter,
}

/// The one label that a metric may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label<L>(L);

/// A call over HTTP, by its place in the table of routes, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Such as `GET /v1/votings/{id}/tally`; never what a client made up.
    pub name: String,
    /// By what name it was refused, if it was.
    pub refusal: Option<RefusalCode>,
}

/// An enum whose values name themselves in a label.
pub trait LabelName:
    Clone + fmt::Debug + PartialEq + Eq + std::hash::Hash + Send + Sync + 'static
{
    /// The value of the label.
    fn label(&self) -> &'static str;
}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeRefusal {
    /// Too many sockets are open.
    Full,
    /// The gateway is stopping.
    Draining,
    /// The address asks too often, or has too many sockets.
    Address,
    /// The origin is not allowed.
    Origin,
    /// The token is not valid.
    Token,
    /// Whether the token is valid cannot be told: its key is not known, and keys cannot be fetched.
    Keys,
    /// Not a WebSocket handshake of version 13.
    Malformed,
}

/// How a question to the key server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFetch {
    /// The answer is the same as before.
    Same,
    /// There are other keys.
    Changed,
    /// None of the keys is of use, or there are none.
    Empty,
    /// The answer is no set of keys.
    Broken,
    /// There was no answer, or one that says no.
    Failed,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFailure {
    /// The client left, or broke off without a word.
    Gone,
    /// The client does not speak TLS.
    NotTls,
    /// The two have no version or cipher in common, or the client is broken.
    Protocol,
    /// The client does not take the certificate.
    Refused,
    /// It took too long.
    Timeout,
}

/// Why a write was refused without an answer of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteRefusal {
    /// Its author has enough waiting.
    Author,
    /// Its session, or voting, has as much waiting as there is room for everybody else.
    Place,
    /// As much waits as may wait.
    Queue,
    /// It has waited for too long.
    Waited,
    /// An open transaction holds a lock that it needs.
    Busy,
    /// The database could not be asked, or did not answer in time.
    Away,
    /// The token's claims are no JSON that Postgres knows.
    Unreadable,
    /// For a reason of our own, which the log has.
    Failed,
}

impl<L: LabelName> From<L> for Label<L> {
    fn from(value: L) -> Self {
        Self(value)
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    #[expect(
        clippy::too_many_lines,
        reason = "a list of declarations, one a metric"
    )]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("usher");
        let mut r = Register(&mut registry);
        Self {
            connections: r.gauge("connections", "Sockets that are open"),
            connections_total: r.counter("connections_opened", "Sockets that were opened"),
            subscriptions: r.gauge("subscriptions", "Subscriptions on this node"),
            sessions: r.gauge(
                "sessions",
                "Sessions watched on this node, over its fan-out loops",
            ),
            window_bytes: r.gauge(
                "window_bytes",
                "Bytes of events held in memory, over the fan-out loops",
            ),
            handshake_refusals: r.add(
                "handshake_refusals",
                "Handshakes refused",
                Family::default(),
            ),
            unreadable_addresses: r.counter(
                "unreadable_addresses",
                "Requests whose client address a trusted proxy gave in an unreadable form",
            ),
            tls_handshakes: r.counter("tls_handshakes", "TLS handshakes that succeeded"),
            tls_failures: r.add(
                "tls_handshake_failures",
                "TLS handshakes that failed",
                Family::default(),
            ),
            tls_expiry: r.gauge(
                "tls_certificate_expiry_seconds",
                "When the certificate that is served ends, in seconds since 1970; 0 without TLS",
            ),
            closes: r.add(
                "closes",
                "Sockets closed by the gateway, by close code",
                Family::default(),
            ),
            refusals: r.add("refusals", "Frames refused, by code", Family::default()),
            calls: r.add(
                "calls",
                "Calls over HTTP, by route, and ok or the code of the refusal",
                Family::default(),
            ),
            starts: r.add(
                "subscription_starts",
                "Subscriptions begun, or begun anew while live (reset), by how",
                Family::default(),
            ),
            frames_received: r.counter("frames_received", "Frames received from clients"),
            control_frames_received: r.counter(
                "control_frames_received",
                "Pings and pongs received from clients",
            ),
            turned_out: r.counter(
                "turned_out",
                "Connections that made room for others before they had become sockets",
            ),
            bytes_sent: r.counter("bytes_sent", "Bytes written to sockets"),
            deliveries: r.counter("chunks_delivered", "Chunks of events taken by a receiver"),
            stalls: r.counter("stalls", "Times that a socket took no more"),
            notifications: r.counter("notifications", "Notifications heard from the database"),
            listen_losses: r.counter(
                "listen_losses",
                "Times that the LISTEN connection was lost or not made",
            ),
            is_listening: r.gauge(
                "listening",
                "1 while the LISTEN connection is known to hear",
            ),
            is_ready: r.gauge("ready", "1 while a new viewer would be served"),
            lag: r.histogram(
                "lag_seconds",
                "From an event's time, by the database's clock, until it is fanned out, by this machine's: the newest of each round",
                &SECONDS,
            ),
            command_queue: r.gauge(
                "command_queue",
                "Commands that wait for the busiest fan-out loop",
            ),
            throttle_keys: r.gauge(
                "throttle_keys",
                "Users, sessions and addresses whose rates are remembered",
            ),
            write_queue: r.gauge("write_queue", "Writes that wait for a batch"),
            write_queue_bytes: r.gauge("write_queue_bytes", "Bytes of writes that wait for a batch"),
            write_refusals: r.add(
                "write_refusals",
                "Writes refused without an answer of the database, by cause",
                Family::default(),
            ),
            write_waits: r.histogram(
                "write_wait_seconds",
                "Time that a write waited until its batch was posted",
                &SECONDS,
            ),
            query_queue: r.gauge("query_queue", "Questions that wait for a connection to the database"),
            echo_delay: r.histogram(
                "echo_delay_seconds",
                "From a NOTIFY of our own to hearing it",
                &SECONDS,
            ),
            refills: r.add(
                "refills",
                "Questions to the log for what was missed, by cause",
                Family::default(),
            ),
            forged_events: r.counter(
                "forged_events",
                "Events sent to viewers that the log does not have; each makes the session's viewers start over",
            ),
            fanout_rounds: r.histogram(
                "fanout_round_seconds",
                "Time that a fan-out loop took for a round",
                &SECONDS,
            ),
            admissions: r.histogram(
                "admission_seconds",
                "Time that an admission took in the database",
                &SECONDS,
            ),
            shared_admissions: r.counter(
                "admissions_shared",
                "Admissions answered by a question that somebody else had asked",
            ),
            writes: r.histogram(
                "write_seconds",
                "From a client's write to its answer",
                &SECONDS,
            ),
            batch_items: r.histogram("batch_items", "Writes that shared a transaction", &ITEMS),
            batches: r.histogram(
                "batch_seconds",
                "Time that a transaction of writes took, tries again included",
                &SECONDS,
            ),
            batch_retries: r.counter(
                "batch_retries",
                "Times that a batch was posted again, its outcome being unknown",
            ),
            batches_blocked: r.counter(
                "batches_blocked",
                "Write transactions rolled back because a lock was not available in time",
            ),
            held_places: r.gauge(
                "held_sessions",
                "Sessions and polls whose writes are tried apart because an open transaction holds their lock",
            ),
            tallies: r.counter("tallies", "Tallies read and sent"),
            tallies_postponed: r.counter(
                "tallies_postponed",
                "Vote notices beyond the bound; the counts of all watched polls are read again instead",
            ),
            query_failures: r.counter(
                "query_failures",
                "Questions to the database without an answer",
            ),
            key_fetches: r.add(
                "key_fetches",
                "Questions to the key server, by how they ended",
                Family::default(),
            ),
            keys: r.gauge("keys", "Published keys that tokens are verified with"),
            keys_age: r.gauge(
                "keys_age_seconds",
                "Time since the key server last gave a good answer",
            ),
            trimmed: r.counter(
                "events_trimmed",
                "Events that left the log for age or number",
            ),
            registry,
        }
    }

    /// The metrics as Prometheus reads them (OpenMetrics text).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string cannot fail");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Counter::default())
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Gauge::default())
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &'static [f64]) -> Histogram {
        self.add(name, help, Histogram::new(buckets.iter().copied()))
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

impl<L: LabelName> EncodeLabelSet for Label<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("kind", self.0.label()).encode(encoder.encode_label())
    }
}

impl EncodeLabelSet for Call {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("call", self.name.as_str()).encode(encoder.encode_label())?;
        ("kind", self.refusal.map_or("ok", RefusalCode::as_str)).encode(encoder.encode_label())
    }
}

impl LabelName for HandshakeRefusal {
    fn label(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Address => "address",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Keys => "keys",
            Self::Malformed => "malformed",
        }
    }
}

impl LabelName for KeyFetch {
    fn label(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Empty => "empty",
            Self::Broken => "broken",
            Self::Failed => "failed",
        }
    }
}

impl LabelName for TlsFailure {
    fn label(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NotTls => "not_tls",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
        }
    }
}

impl LabelName for WriteRefusal {
    fn label(&self) -> &'static str {
        match self {
            Self::Author => "author",
            Self::Place => "session",
            Self::Queue => "queue",
            Self::Waited => "waited",
            Self::Busy => "busy",
            Self::Away => "away",
            Self::Unreadable => "unreadable",
            Self::Failed => "failed",
        }
    }
}

impl LabelName for Beginning {
    fn label(&self) -> &'static str {
        match self {
            Self::RecoveredFromMemory => "recovered_from_memory",
            Self::RecoveredFromLog => "recovered_from_log",
            Self::Unrecovered(StartReason::Ahead) => "ahead",
            Self::Unrecovered(StartReason::Fresh) => "fresh",
            Self::Unrecovered(StartReason::TooOld) => "too_old",
            Self::Reset(StartReason::Ahead) => "reset_ahead",
            Self::Reset(StartReason::Fresh) => "reset",
            Self::Reset(StartReason::TooOld) => "reset_too_old",
        }
    }
}

impl LabelName for RefusalCode {
    fn label(&self) -> &'static str {
        self.as_str()
    }
}

impl LabelName for RefillCause {
    fn label(&self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::More => "more",
            Self::Oversized => "oversized",
            Self::Resync => "resync",
            Self::Conflict => "conflict",
        }
    }
}

impl LabelName for CloseCode {
    fn label(&self) -> &'static str {
        match self {
            Self::ProtocolError => "1002",
            Self::InvalidText => "1007",
            Self::TooBig => "1009",
            Self::Restart => "1012",
            Self::TryAgainLater => "1013",
            Self::TokenExpired => "4001",
            Self::TooSlow => "4008",
            Self::HeartbeatMissed => "4009",
            Self::Flooding => "4029",
            Self::NotThisProtocol => "4500",
            Self::Unauthorized => "4501",
            Self::AccessWithdrawn => "4503",
            Self::AnotherSubject => "4509",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Metrics::new();
        metrics
            .refusals
            .get_or_create(&RefusalCode::SlowMode.into())
            .inc();
        metrics.connections.set(3);
        let text = metrics.encode();
        assert!(
            text.contains("usher_refusals_total{kind=\"slow_mode\"} 1"),
            "{text}"
        );
        assert!(text.contains("usher_connections 3"), "{text}");
    }
}
