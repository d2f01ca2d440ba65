//! The settings of `usher serve` as given: flags and environment variables, none of them looked at yet.
//!
//! Everything is text, so that one wrong number does not hide the other mistakes. An empty value counts as absent, as
//! compose files pass `${NAME:-}` for what is not set.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use crate::config::secret::secret_parser;

use crate::config::rates::RawRates;

/// The settings as given.
#[derive(Args, Clone, Debug)]
pub struct Raw {
    /// Database URL for the role usher_gateway: postgres://usher_gateway:password@host:5432/postgres. Required.
    ///
    /// Direct connections, session poolers and transaction poolers all work. `sslmode` and `sslrootcert` mean what they
    /// mean to psql, but `allow` counts as `prefer`. Without `sslmode`, the gateway verifies TLS in full, and uses no
    /// TLS on loopback and Unix sockets.
    #[arg(
        long, env = "DATABASE_URL", hide_env_values = true,
        value_name = "URL", value_parser = secret_parser(), help_heading = "Database"
    )]
    pub(crate) database_url: Option<SecretString>,

    /// File that contains the database URL.
    #[arg(
        long,
        env = "DATABASE_URL_FILE",
        value_name = "FILE",
        help_heading = "Database"
    )]
    pub(crate) database_url_file: Option<PathBuf>,

    /// Database URL for LISTEN: a direct connection or a session pooler, never a transaction pooler (port 6543).
    ///
    /// Default: DATABASE_URL.
    #[arg(
        long, env = "USHER_LISTEN_DATABASE_URL", hide_env_values = true,
        value_name = "URL", value_parser = secret_parser(), help_heading = "Database"
    )]
    pub(crate) listen_database_url: Option<SecretString>,

    /// File that contains the database URL for LISTEN.
    #[arg(
        long,
        env = "USHER_LISTEN_DATABASE_URL_FILE",
        value_name = "FILE",
        help_heading = "Database"
    )]
    pub(crate) listen_database_url_file: Option<PathBuf>,

    /// Certificate authority that signed the database's certificate: a PEM file, or the PEM text itself.
    ///
    /// For Supabase, download it from the dashboard under database settings. Default: the system's authorities.
    #[arg(
        long,
        env = "USHER_PG_ROOT_CERT",
        hide_env_values = true,
        value_name = "FILE|PEM",
        help_heading = "Database"
    )]
    pub(crate) pg_root_cert: Option<String>,

    /// Connections for queries and writes, 1 to 64. LISTEN uses one more.
    #[arg(
        long,
        env = "USHER_POOL_SIZE",
        default_value = "4",
        value_name = "N",
        help_heading = "Database"
    )]
    pub(crate) pool_size: String,

    /// Supabase project URL, `https://<ref>.supabase.co`. Accepts only user tokens of the project's auth server and
    /// verifies them with its published keys.
    ///
    /// Without it, any issuer with a valid signature is accepted. Required unless SUPABASE_JWT_SECRET or USHER_JWKS_URL
    /// is set.
    #[arg(
        long,
        env = "SUPABASE_URL",
        value_name = "URL",
        help_heading = "Identity"
    )]
    pub(crate) supabase_url: Option<String>,

    /// Accepted issuers of user tokens (claim iss), separated by commas, if they differ from the auth server of
    /// SUPABASE_URL.
    ///
    /// Examples: a custom domain, a self-hosted project, a move from one to the other. A trailing slash makes no
    /// difference. Default: the project's auth server, `/auth/v1`.
    #[arg(
        long,
        env = "USHER_ISSUER",
        value_name = "ISSUERS",
        help_heading = "Identity"
    )]
    pub(crate) issuer: Option<String>,

    /// URL of the JSON Web Key Set (ES256, RS256, EdDSA) that verifies access tokens; or off.
    ///
    /// Default: the key set of the project's auth server, `/auth/v1/.well-known/jwks.json`.
    #[arg(
        long,
        env = "USHER_JWKS_URL",
        value_name = "URL",
        help_heading = "Identity"
    )]
    pub(crate) jwks_url: Option<String>,

    /// Secret that signs access tokens (HS256), at least 32 bytes: a project's legacy secret. Works alone or beside
    /// published keys.
    #[arg(
        long, env = "SUPABASE_JWT_SECRET", hide_env_values = true,
        value_name = "SECRET", value_parser = secret_parser(), help_heading = "Identity"
    )]
    pub(crate) supabase_jwt_secret: Option<SecretString>,

    /// File that contains the JWT secret.
    #[arg(
        long,
        env = "SUPABASE_JWT_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Identity"
    )]
    pub(crate) supabase_jwt_secret_file: Option<PathBuf>,

    /// Secret that signs resume tokens, at least 32 bytes, the same on every node.
    ///
    /// Default: random for each process. Each client that reconnects after a restart then costs one more query.
    #[arg(
        long, env = "USHER_RESUME_SECRET", hide_env_values = true,
        value_name = "SECRET", value_parser = secret_parser(), help_heading = "Identity"
    )]
    pub(crate) resume_secret: Option<SecretString>,

    /// File that contains the resume secret.
    #[arg(
        long,
        env = "USHER_RESUME_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Identity"
    )]
    pub(crate) resume_secret_file: Option<PathBuf>,

    /// Lifetime of a resume token in seconds, 10 to 86400. A client that reconnects later costs one more query.
    #[arg(
        long,
        env = "USHER_RESUME_TTL",
        default_value = "600",
        value_name = "SECONDS",
        help_heading = "Identity"
    )]
    pub(crate) resume_ttl: String,

    /// Seconds after which the gateway asks the database again whether a viewer may still watch, 5 to 86400.
    ///
    /// If a policy of your app hides a session, its streams end within this time. `usher.access_changed` ends them
    /// within a second.
    #[arg(
        long,
        env = "USHER_ACCESS_CHECK_SECONDS",
        default_value = "60",
        value_name = "SECONDS",
        help_heading = "Identity"
    )]
    pub(crate) access_check_seconds: String,

    /// Whether to serve viewers without a token, as the role anon: true or false.
    #[arg(
        long,
        env = "USHER_ALLOW_ANONYMOUS",
        default_value = "true",
        value_name = "BOOL",
        help_heading = "Identity"
    )]
    pub(crate) allow_anonymous: String,

    /// Address and port to listen on. A port alone means 127.0.0.1. Port 0 picks a free port.
    #[arg(
        long,
        env = "USHER_LISTEN",
        default_value = "127.0.0.1:4000",
        value_name = "ADDR",
        help_heading = "Serving"
    )]
    pub(crate) listen: String,

    /// Certificate chain for TLS on the listener: a PEM file, the server's own certificate first.
    ///
    /// The gateway reloads it when the file changes, and on SIGHUP. Default: plain HTTP.
    #[arg(
        long,
        env = "USHER_TLS_CERT",
        value_name = "FILE",
        help_heading = "Serving"
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of USHER_TLS_CERT: a PEM file without a password.
    #[arg(
        long,
        env = "USHER_TLS_KEY",
        value_name = "FILE",
        help_heading = "Serving"
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Origins that browsers may connect from, exact, separated by commas; * allows any. Others get 403.
    #[arg(
        long,
        env = "USHER_ALLOWED_ORIGINS",
        default_value = "*",
        value_name = "ORIGINS",
        help_heading = "Serving"
    )]
    pub(crate) allowed_origins: String,

    /// Open sockets, 1 to 1000000. Further handshakes get 503. The file limit may lower this number.
    #[arg(
        long,
        env = "USHER_MAX_CONNECTIONS",
        default_value = "18000",
        value_name = "N",
        help_heading = "Serving"
    )]
    pub(crate) max_connections: String,

    /// Milliseconds between pings, 1000 to 120000. A client that is silent for two intervals is closed with 4009.
    #[arg(
        long,
        env = "USHER_HEARTBEAT_MS",
        default_value = "25000",
        value_name = "MS",
        help_heading = "Serving"
    )]
    pub(crate) heartbeat_ms: String,

    /// Seconds that a stopping gateway may take to close its clients, 0 to 300.
    #[arg(
        long,
        env = "USHER_DRAIN_SECONDS",
        default_value = "10",
        value_name = "SECONDS",
        help_heading = "Serving"
    )]
    pub(crate) drain_seconds: String,

    /// Tally frames per second and poll, 1 to 20. Changes in between are merged into the next frame.
    #[arg(
        long,
        env = "USHER_TALLY_HZ",
        default_value = "5",
        value_name = "HZ",
        help_heading = "Fan-out"
    )]
    pub(crate) tally_hz: String,

    /// Loops that write to the sockets, 1 to 256. Default: one per core.
    #[arg(
        long,
        env = "USHER_FANOUT_LOOPS",
        value_name = "N",
        help_heading = "Fan-out"
    )]
    pub(crate) fanout_loops: Option<String>,

    /// Events of each session kept in memory, 16 to 65536. Clients that are further behind catch up from the log.
    #[arg(
        long,
        env = "USHER_RING_EVENTS",
        default_value = "512",
        value_name = "N",
        help_heading = "Fan-out"
    )]
    pub(crate) ring_events: String,

    /// Hours that events stay in the log, 1 to 8760. A client that was away longer starts over.
    #[arg(
        long,
        env = "USHER_LOG_RETENTION_HOURS",
        default_value = "24",
        value_name = "HOURS",
        help_heading = "Event log"
    )]
    pub(crate) log_retention_hours: String,

    /// Events of one session that stay in the log, 100 to 100000000.
    #[arg(
        long,
        env = "USHER_LOG_RETENTION_EVENTS",
        default_value = "100000",
        value_name = "N",
        help_heading = "Event log"
    )]
    pub(crate) log_retention_events: String,

    /// How often somebody may do something.
    #[command(flatten)]
    pub(crate) rates: RawRates,

    /// What to log: error, warn, info, debug or trace; or a level for each module, such as info,usher=debug.
    #[arg(
        long,
        env = "USHER_LOG",
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub(crate) log: String,

    /// Format of the log: human or json.
    #[arg(
        long,
        env = "USHER_LOG_FORMAT",
        default_value = "human",
        value_name = "FORMAT",
        help_heading = "Logs"
    )]
    pub(crate) log_format: String,
}

impl Raw {
    /// What the environment says about tuning, and nothing of what it says about databases, keys and addresses: for a
    /// gateway that brings its own.
    #[cfg(feature = "dev")]
    pub(crate) fn tuning_from_environment() -> Self {
        let command = Self::augment_args(clap::Command::new("usher").no_binary_name(true));
        let matches = command.get_matches_from::<_, &str>([]);
        let raw = <Self as clap::FromArgMatches>::from_arg_matches(&matches)
            .expect("no setting is required here");
        Self {
            database_url: None,
            database_url_file: None,
            listen_database_url: None,
            listen_database_url_file: None,
            pg_root_cert: None,
            tls_cert: None,
            tls_key: None,
            supabase_url: None,
            issuer: None,
            jwks_url: None,
            supabase_jwt_secret: None,
            supabase_jwt_secret_file: None,
            resume_secret: None,
            resume_secret_file: None,
            ..raw
        }
    }
}
