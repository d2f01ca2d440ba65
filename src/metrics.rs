//! The metrics of the gateway, for Prometheus.
//!
//! Each metric is declared once, with its help. Labels come from closed enums, never from a session or a user. A handle
//! is an atomic, so an update needs no look-up by name.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::exposition::{Format, text_of};
use crate::process_metrics::ProcessCollector;
use usher_core::protocol::refusal::{CloseCode, RefusalCode};
use usher_core::protocol::server::StartReason;
use usher_core::relay::delivery::RefillCause;
use usher_core::relay::start_point::StartOutcome;

/// Buckets of durations in seconds, from a loopback round trip to what a person gives up on.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0,
];
/// Buckets of the writes per batch.
const ITEMS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0];

/// Declares [`Metrics`]: the handle of each metric, its name without the prefix, its help, and the buckets of a histogram.
macro_rules! metrics {
    (@new $type:ty) => { <$type>::default() };
    (@new $type:ty, $metric:expr) => { $metric };
    ($($handle:ident: $type:ty = ($name:literal, $help:literal $(, $metric:expr)?);)+) => {
        /// Every metric of the gateway.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            process: Registry,
            $(pub(crate) $handle: $type,)+
        }

        impl Metrics {
            /// Returns all metrics at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("usher");
                let build = Family::<BuildInfo, Gauge>::default();
                build.get_or_create(&BuildInfo).set(1);
                registry.register("build_info", "Version of this gateway; the value is always 1", build);
                $(
                    let $handle: $type = metrics!(@new $type $(, $metric)?);
                    registry.register($name, $help, $handle.clone());
                )+
                // Their names are the same for every program, without a prefix.
                let mut process = Registry::default();
                process.register_collector(Box::new(ProcessCollector));
                Self { registry, process, $($handle),+ }
            }
        }
    };
}

metrics! {
    connections: Gauge = ("connections", "Open WebSocket connections and event streams");
    connections_total: Counter = ("connections_opened", "WebSocket connections and event streams opened");
    subscriptions: Gauge = ("subscriptions", "Open subscriptions");
    sessions: Gauge = ("sessions", "Sessions with at least one subscription on this node");
    windows: Gauge = (
        "windows",
        "In-memory event windows, summed over the fan-out loops; a window outlives its last subscription by a minute"
    );
    window_bytes: Gauge = (
        "window_bytes",
        "Memory used by the in-memory event windows, in bytes, summed over the fan-out loops"
    );
    handshake_refusals: Family<Label<HandshakeRefusal>, Counter> = (
        "handshake_refusals",
        "WebSocket handshakes rejected, by reason"
    );
    unreadable_addresses: Counter = (
        "unreadable_addresses",
        "Requests whose client address a trusted proxy gave in an unreadable form"
    );
    tls_handshakes: Counter = ("tls_handshakes", "Successful TLS handshakes");
    tls_failures: Family<Label<TlsFailure>, Counter> = (
        "tls_handshake_failures",
        "Failed TLS handshakes, by reason"
    );
    tls_expiry: Gauge = (
        "tls_certificate_expiry_timestamp_seconds",
        "Expiry of the served TLS certificate as a Unix timestamp; 0 without TLS"
    );
    closes: Family<Label<CloseCode>, Counter> = (
        "closes",
        "WebSocket connections closed by the gateway, by close code"
    );
    refusals: Family<Label<RefusalCode>, Counter> = ("refusals", "Client frames rejected, by error code");
    calls: Family<Call, Counter> = ("calls", "HTTP requests, by route and by ok or error code");
    starts: Family<Label<StartOutcome>, Counter> = (
        "subscription_starts",
        "Subscriptions started or reset, by start reason"
    );
    frames_received: Counter = ("frames_received", "Data frames received from clients");
    control_frames_received: Counter = ("control_frames_received", "Ping and pong frames received from clients");
    evicted: Counter = (
        "evicted_connections",
        "Pending connections evicted to make room before they were upgraded"
    );
    bytes_sent: Counter = ("bytes_sent", "Bytes written to WebSocket connections");
    deliveries: Counter = ("chunks_delivered", "Event chunks delivered to subscribers");
    stalls: Counter = ("stalls", "Writes that hit a full socket buffer");
    notifications: Counter = ("notifications", "NOTIFY messages received from Postgres");
    listen_losses: Counter = ("listen_losses", "LISTEN connections lost or failed to open");
    is_listening: Gauge = ("listening", "Whether the LISTEN connection receives its own echo (1) or not (0)");
    is_ready: Gauge = ("ready", "Readiness as /readyz reports it: 1 ready, 0 not ready");
    lag: Histogram = (
        "lag_seconds",
        "Delay from event timestamp (database clock) to fan-out (local clock), newest event of each round",
        Histogram::new(SECONDS)
    );
    command_queue: Gauge = ("command_queue", "Queue length of the busiest fan-out loop");
    throttle_keys: Gauge = ("throttle_keys", "Rate limiter keys in memory (users, sessions and addresses)");
    write_queue: Gauge = ("write_queue", "Queue length of pending writes");
    write_queue_bytes: Gauge = ("write_queue_bytes", "Size of pending writes, in bytes");
    write_refusals: Family<Label<WriteRefusal>, Counter> = (
        "write_refusals",
        "Writes rejected without a database response, by reason"
    );
    write_waits: Histogram = (
        "write_wait_seconds",
        "Queueing delay of a write before its batch is sent", Histogram::new(SECONDS)
    );
    query_queue: Gauge = ("query_queue", "Queries waiting for a database connection from the pool");
    echo_delay: Histogram = ("echo_delay_seconds", "Round-trip time of the gateway's own NOTIFY", Histogram::new(SECONDS));
    refills: Family<Label<RefillCause>, Counter> = ("refills", "Event log reads to fill gaps, by cause");
    forged_events: Counter = (
        "forged_events",
        "Events sent to viewers that the log does not have; each makes the session's viewers start over"
    );
    fanout_rounds: Histogram = ("fanout_round_seconds", "Duration of one fan-out round", Histogram::new(SECONDS));
    admissions: Histogram = ("admission_seconds", "Duration of an admission query", Histogram::new(SECONDS));
    shared_admissions: Counter = (
        "admissions_shared",
        "Admissions served by a concurrent identical query (singleflight)"
    );
    access_checks: Counter = ("access_checks", "Callers whose access to a session was checked again");
    access_checks_shared: Counter = (
        "access_checks_shared",
        "Access checks answered together with an identical one of another socket"
    );
    access_check_batches: Histogram = (
        "access_check_seconds",
        "Time of a query that checks the access of many callers", Histogram::new(SECONDS)
    );
    writes: Histogram = (
        "write_seconds",
        "Latency of a client write, from receipt to acknowledgement", Histogram::new(SECONDS)
    );
    batch_items: Histogram = ("batch_items", "Writes per batch transaction", Histogram::new(ITEMS));
    batches: Histogram = ("batch_seconds", "Duration of a batch transaction, including retries", Histogram::new(SECONDS));
    batch_retries: Counter = ("batch_retries", "Batch retries after an unknown outcome");
    batches_blocked: Counter = (
        "batches_blocked",
        "Write transactions rolled back because a lock was not available in time"
    );
    held_places: Gauge = (
        "held_sessions",
        "Sessions and polls whose writes are tried apart because an open transaction holds their lock"
    );
    tallies: Counter = ("tallies", "Poll tallies read and broadcast");
    tallies_postponed: Counter = (
        "tallies_postponed",
        "Vote notices beyond the bound; the counts of all watched polls are read again instead"
    );
    query_failures: Counter = ("query_failures", "Failed database queries");
    key_fetches: Family<Label<KeyFetch>, Counter> = ("key_fetches", "JWKS fetches, by result");
    keys: Gauge = ("keys", "Signing keys loaded from the JWKS endpoint");
    keys_age: Gauge = ("keys_age_seconds", "Time since the last successful JWKS fetch");
    trimmed: Counter = ("events_trimmed", "Events deleted from the log by retention");
}

/// The one label that a metric may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label<L>(L);

/// The labels of an HTTP call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    /// The route, such as `GET /v1/votings/{id}/tally`. Never text from a client.
    pub(crate) name: String,
    /// The error code, if the call failed.
    pub(crate) refusal: Option<RefusalCode>,
}

/// The labels of this build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BuildInfo;

/// An enum whose variants are the values of a label.
pub(crate) trait LabelName:
    Clone + fmt::Debug + PartialEq + Eq + std::hash::Hash + Send + Sync + 'static
{
    fn label(&self) -> &'static str;
}

/// Declares enums whose variants are the values of a label.
macro_rules! labels {
    ($($(#[doc = $docs:literal])+ $name:ident {
        $($(#[doc = $variant_docs:literal])+ $variant:ident = $label:literal,)+
    })+) => {$(
        $(#[doc = $docs])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name {
            $($(#[doc = $variant_docs])+ $variant,)+
        }

        impl LabelName for $name {
            fn label(&self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    )+};
}

labels! {
    /// Why a handshake was refused.
    HandshakeRefusal {
        /// Too many sockets are open.
        Full = "full",
        /// The gateway is stopping.
        Draining = "draining",
        /// The address exceeds its rate, or has too many sockets.
        Address = "address",
        /// The origin is not allowed.
        Origin = "origin",
        /// The token is invalid.
        Token = "token",
        /// The key of the token is unknown, and keys cannot be fetched.
        Keys = "keys",
        /// Not a WebSocket handshake of version 13.
        Malformed = "malformed",
    }

    /// The result of a request to the key server.
    KeyFetch {
        /// The keys are the same as before.
        Same = "same",
        /// The keys have changed.
        Changed = "changed",
        /// No key is usable, or there are none.
        Empty = "empty",
        /// The response is not a key set.
        Broken = "broken",
        /// There was no response, or an error.
        Failed = "failed",
    }

    /// Why a TLS handshake failed.
    TlsFailure {
        /// The client closed the connection.
        Gone = "gone",
        /// The client does not speak TLS.
        NotTls = "not_tls",
        /// No common version or cipher, or a broken client.
        Protocol = "protocol",
        /// The client rejected the certificate.
        Refused = "refused",
        /// The handshake took too long.
        Timeout = "timeout",
    }

    /// Why a write was refused without an answer of the database.
    WriteRefusal {
        /// Too many writes of its author are pending.
        Author = "author",
        /// Too many writes to its session or poll are pending.
        Place = "session",
        /// The queue of pending writes is full.
        Queue = "queue",
        /// The write was pending for too long.
        Waited = "waited",
        /// An open transaction holds a lock that the write needs.
        Busy = "busy",
        /// The database cannot be reached, or did not answer in time.
        Away = "away",
        /// The token's claims are JSON that Postgres cannot store.
        Unreadable = "unreadable",
        /// A mistake of our own, which the log shows.
        Failed = "failed",
    }
}

/// Returns a count as the value of a gauge; one that is too large becomes the largest value.
pub(crate) fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

impl<L: LabelName> From<L> for Label<L> {
    fn from(value: L) -> Self {
        Self(value)
    }
}

impl Metrics {
    /// Returns the metrics as text.
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
