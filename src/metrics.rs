//! What the gateway measures, for Prometheus.
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

use crate::exposition::{Format, text_of};
use crate::process_metrics::ProcessCollector;
use usher_core::protocol::refusal::{CloseCode, RefusalCode};
use usher_core::protocol::server::StartReason;
use usher_core::relay::delivery::RefillCause;
use usher_core::relay::start_point::StartOutcome;

/// Seconds, from what a loopback takes to what a person gives up on.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0,
];
/// Items of a batch.
const ITEMS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0];

/// Every metric of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) subscriptions: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) windows: Gauge,
    pub(crate) window_bytes: Gauge,
    pub(crate) handshake_refusals: Family<Label<HandshakeRefusal>, Counter>,
    pub(crate) unreadable_addresses: Counter,
    pub(crate) tls_handshakes: Counter,
    pub(crate) tls_failures: Family<Label<TlsFailure>, Counter>,
    pub(crate) tls_expiry: Gauge,
    pub(crate) closes: Family<Label<CloseCode>, Counter>,
    pub(crate) refusals: Family<Label<RefusalCode>, Counter>,
    pub(crate) calls: Family<Call, Counter>,
    pub(crate) starts: Family<Label<StartOutcome>, Counter>,
    pub(crate) frames_received: Counter,
    pub(crate) control_frames_received: Counter,
    pub(crate) evicted: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) stalls: Counter,
    pub(crate) notifications: Counter,
    pub(crate) listen_losses: Counter,
    pub(crate) is_listening: Gauge,
    pub(crate) is_ready: Gauge,
    pub(crate) lag: Histogram,
    pub(crate) command_queue: Gauge,
    pub(crate) write_queue: Gauge,
    pub(crate) write_queue_bytes: Gauge,
    pub(crate) write_refusals: Family<Label<WriteRefusal>, Counter>,
    pub(crate) write_waits: Histogram,
    pub(crate) throttle_keys: Gauge,
    pub(crate) query_queue: Gauge,
    pub(crate) echo_delay: Histogram,
    pub(crate) refills: Family<Label<RefillCause>, Counter>,
    pub(crate) forged_events: Counter,
    pub(crate) fanout_rounds: Histogram,
    pub(crate) admissions: Histogram,
    pub(crate) shared_admissions: Counter,
    pub(crate) access_checks: Counter,
    pub(crate) access_checks_shared: Counter,
    pub(crate) access_check_batches: Histogram,
    pub(crate) writes: Histogram,
    pub(crate) batch_items: Histogram,
    pub(crate) batches: Histogram,
    pub(crate) batch_retries: Counter,
    pub(crate) batches_blocked: Counter,
    pub(crate) held_places: Gauge,
    pub(crate) tallies: Counter,
    pub(crate) tallies_postponed: Counter,
    pub(crate) query_failures: Counter,
    pub(crate) key_fetches: Family<Label<KeyFetch>, Counter>,
    pub(crate) keys: Gauge,
    pub(crate) keys_age: Gauge,
    pub(crate) trimmed: Counter,
}

/// The one label that a metric may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label<L>(L);

/// A call over HTTP, by its place in the table of routes, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    /// Such as `GET /v1/votings/{id}/tally`; never what a client made up.
    pub(crate) name: String,
    /// By what name it was refused, if it was.
    pub(crate) refusal: Option<RefusalCode>,
}

/// The labels of this build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BuildInfo;

/// An enum whose values name themselves in a label.
pub(crate) trait LabelName:
    Clone + fmt::Debug + PartialEq + Eq + std::hash::Hash + Send + Sync + 'static
{
    /// The value of the label.
    fn label(&self) -> &'static str;
}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HandshakeRefusal {
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
pub(crate) enum KeyFetch {
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
pub(crate) enum TlsFailure {
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
pub(crate) enum WriteRefusal {
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
        r.add(
            "build_info",
            "Version of this gateway; the value is always 1",
            Family::<BuildInfo, Gauge>::default(),
        )
        .get_or_create(&BuildInfo)
        .set(1);
        // Their names are every process's, without a prefix.
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessCollector));
        Self {
            connections: r.gauge("connections", "Open WebSocket connections and event streams"),
            connections_total: r.counter("connections_opened", "WebSocket connections and event streams opened"),
            subscriptions: r.gauge("subscriptions", "Open subscriptions"),
            sessions: r.gauge(
                "sessions",
                "Sessions with at least one subscription on this node",
            ),
            windows: r.gauge(
                "windows",
                "In-memory event windows, summed over the fan-out loops; a window outlives its last subscription by a minute",
            ),
            window_bytes: r.gauge(
                "window_bytes",
                "Memory used by the in-memory event windows, in bytes, summed over the fan-out loops",
            ),
            handshake_refusals: r.add(
                "handshake_refusals",
                "WebSocket handshakes rejected, by reason",
                Family::default(),
            ),
            unreadable_addresses: r.counter(
                "unreadable_addresses",
                "Requests whose client address a trusted proxy gave in an unreadable form",
            ),
            tls_handshakes: r.counter("tls_handshakes", "Successful TLS handshakes"),
            tls_failures: r.add(
                "tls_handshake_failures",
                "Failed TLS handshakes, by reason",
                Family::default(),
            ),
            tls_expiry: r.gauge(
                "tls_certificate_expiry_timestamp_seconds",
                "Expiry of the served TLS certificate as a Unix timestamp; 0 without TLS",
            ),
            closes: r.add(
                "closes",
                "WebSocket connections closed by the gateway, by close code",
                Family::default(),
            ),
            refusals: r.add("refusals", "Client frames rejected, by error code", Family::default()),
            calls: r.add(
                "calls",
                "HTTP requests, by route and by ok or error code",
                Family::default(),
            ),
            starts: r.add(
                "subscription_starts",
                "Subscriptions started or reset, by start reason",
                Family::default(),
            ),
            frames_received: r.counter("frames_received", "Data frames received from clients"),
            control_frames_received: r.counter(
                "control_frames_received",
                "Ping and pong frames received from clients",
            ),
            evicted: r.counter(
                "evicted_connections",
                "Pending connections evicted to make room before they were upgraded",
            ),
            bytes_sent: r.counter("bytes_sent", "Bytes written to WebSocket connections"),
            deliveries: r.counter("chunks_delivered", "Event chunks delivered to subscribers"),
            stalls: r.counter("stalls", "Writes that hit a full socket buffer"),
            notifications: r.counter("notifications", "NOTIFY messages received from Postgres"),
            listen_losses: r.counter(
                "listen_losses",
                "LISTEN connections lost or failed to open",
            ),
            is_listening: r.gauge(
                "listening",
                "Whether the LISTEN connection receives its own echo (1) or not (0)",
            ),
            is_ready: r.gauge("ready", "Readiness as /readyz reports it: 1 ready, 0 not ready"),
            lag: r.histogram(
                "lag_seconds",
                "Delay from event timestamp (database clock) to fan-out (local clock), newest event of each round",
                &SECONDS,
            ),
            command_queue: r.gauge(
                "command_queue",
                "Queue length of the busiest fan-out loop",
            ),
            throttle_keys: r.gauge(
                "throttle_keys",
                "Rate limiter keys in memory (users, sessions and addresses)",
            ),
            write_queue: r.gauge("write_queue", "Queue length of pending writes"),
            write_queue_bytes: r.gauge("write_queue_bytes", "Size of pending writes, in bytes"),
            write_refusals: r.add(
                "write_refusals",
                "Writes rejected without a database response, by reason",
                Family::default(),
            ),
            write_waits: r.histogram(
                "write_wait_seconds",
                "Queueing delay of a write before its batch is sent",
                &SECONDS,
            ),
            query_queue: r.gauge("query_queue", "Queries waiting for a database connection from the pool"),
            echo_delay: r.histogram(
                "echo_delay_seconds",
                "Round-trip time of the gateway's own NOTIFY",
                &SECONDS,
            ),
            refills: r.add(
                "refills",
                "Event log reads to fill gaps, by cause",
                Family::default(),
            ),
            forged_events: r.counter(
                "forged_events",
                "Events sent to viewers that the log does not have; each makes the session's viewers start over",
            ),
            fanout_rounds: r.histogram(
                "fanout_round_seconds",
                "Duration of one fan-out round",
                &SECONDS,
            ),
            admissions: r.histogram(
                "admission_seconds",
                "Duration of an admission query",
                &SECONDS,
            ),
            shared_admissions: r.counter(
                "admissions_shared",
                "Admissions served by a concurrent identical query (singleflight)",
            ),
            access_checks: r.counter(
                "access_checks",
                "Callers whose access to a session was checked again",
            ),
            access_checks_shared: r.counter(
                "access_checks_shared",
                "Access checks answered together with an identical one of another socket",
            ),
            access_check_batches: r.histogram(
                "access_check_seconds",
                "Time of a query that checks the access of many callers",
                &SECONDS,
            ),
            writes: r.histogram(
                "write_seconds",
                "Latency of a client write, from receipt to acknowledgement",
                &SECONDS,
            ),
            batch_items: r.histogram("batch_items", "Writes per batch transaction", &ITEMS),
            batches: r.histogram(
                "batch_seconds",
                "Duration of a batch transaction, including retries",
                &SECONDS,
            ),
            batch_retries: r.counter(
                "batch_retries",
                "Batch retries after an unknown outcome",
            ),
            batches_blocked: r.counter(
                "batches_blocked",
                "Write transactions rolled back because a lock was not available in time",
            ),
            held_places: r.gauge(
                "held_sessions",
                "Sessions and polls whose writes are tried apart because an open transaction holds their lock",
            ),
            tallies: r.counter("tallies", "Poll tallies read and broadcast"),
            tallies_postponed: r.counter(
                "tallies_postponed",
                "Vote notices beyond the bound; the counts of all watched polls are read again instead",
            ),
            query_failures: r.counter(
                "query_failures",
                "Failed database queries",
            ),
            key_fetches: r.add(
                "key_fetches",
                "JWKS fetches, by result",
                Family::default(),
            ),
            keys: r.gauge("keys", "Signing keys loaded from the JWKS endpoint"),
            keys_age: r.gauge(
                "keys_age_seconds",
                "Time since the last successful JWKS fetch",
            ),
            trimmed: r.counter(
                "events_trimmed",
                "Events deleted from the log by retention",
            ),
            registry,
            process,
        }
    }

    /// The metrics as Prometheus reads them.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &self.process))
            .and_then(|()| text::encode_eof(&mut out))
            .expect("writing to a string cannot fail");
        match format {
            Format::OpenMetrics => out,
            Format::Text => text_of(&out),
        }
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

impl EncodeLabelSet for BuildInfo {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("version", env!("CARGO_PKG_VERSION")).encode(encoder.encode_label())
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

impl LabelName for StartOutcome {
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
        let text = metrics.encode(Format::OpenMetrics);
        assert!(
            text.contains("usher_refusals_total{kind=\"slow_mode\"} 1"),
            "{text}"
        );
        assert!(text.contains("usher_connections 3"), "{text}");
        let version = concat!(
            "usher_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        );
        assert!(
            text.contains(version) && text.ends_with("# EOF\n"),
            "{text}"
        );
    }

    #[test]
    fn the_process_is_measured_under_the_usual_names() {
        let text = Metrics::new().encode(Format::Text);
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing: {text}"))
                .parse()
                .unwrap()
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_resident_memory_bytes") > 1e6);
        // After 2020, and no later than a clock of this machine says.
        assert!(value("process_start_time_seconds") > 1.5e9);
        assert!(
            value("process_open_fds") >= 3.0
                && value("process_open_fds") <= value("process_max_fds")
        );
        assert!(
            text.contains("# TYPE process_cpu_seconds_total counter\n"),
            "{text}"
        );
        assert!(!text.contains("# EOF"), "{text}");
    }
}
