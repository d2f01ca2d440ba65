//! Declares every setting of `usher serve` and `usher doctor`, each once.
//!
//! A declaration yields the flag and its help, the environment variable, `NAME_FILE` of a secret, a row of
//! docs/configuration.md and an entry of deploy/usher.env. `UPDATE_EXPECT=1 cargo test --lib config::settings` writes
//! the two files. `from_raw` reads the values.

use std::ops::RangeInclusive;

use clap::Arg;
use usher_core::limits::FRAME_BYTES_MAX;

use crate::config::secret::secret_parser;
use crate::config::settings::{
    Accepts::{Number, NumberOrOff, OneOf, Rate, Secret, Text},
    Shown::{Default, Example},
};

/// A setting.
pub(crate) struct Setting {
    /// The environment variable. It also names the flag: `USHER_TALLY_HZ` is `--tally-hz`.
    pub(crate) name: &'static str,
    /// Stands for the value in the help.
    placeholder: &'static str,
    pub(crate) accepts: Accepts,
    shown: Shown,
    /// Its heading in the help and the docs.
    group: &'static str,
    /// Markdown. The first paragraph is the short help. `{range}` stands for the accepted values.
    docs: &'static str,
}

/// What the value of a setting may be.
pub(crate) enum Accepts {
    /// `from_raw` reads it in its own way.
    Text,
    /// As `Text`. Never shown, and can come from the file `NAME_FILE`.
    Secret,
    /// One of a few words.
    OneOf(&'static str),
    /// A whole number.
    Number(RangeInclusive<u64>),
    /// A whole number, or `off`.
    NumberOrOff(RangeInclusive<u64>),
    /// A count, at least this, and the seconds in which it refills; or `off`.
    Rate(u64),
}

/// What the docs show as the value of a setting that is not given.
enum Shown {
    Default(&'static str),
    /// For a setting without a default.
    Example(
        #[cfg_attr(not(test), expect(dead_code, reason = "a test writes it to usher.env"))]
        &'static str,
    ),
}

/// Declares the settings: group, docs, constant, and the first four fields of [`Setting`].
macro_rules! settings {
    ($($group:literal {
        $($(#[doc = $docs:literal])+ $id:ident = ($name:literal, $placeholder:literal, $accepts:expr, $shown:expr);)+
    })+) => {
        $($(
            $(#[doc = $docs])+
            pub(crate) static $id: Setting = Setting {
                name: $name,
                placeholder: $placeholder,
                accepts: $accepts,
                shown: $shown,
                group: $group,
                docs: concat!($($docs, "\n"),+),
            };
        )+)+

        /// Every setting, in the order of the help and the docs.
        pub(crate) static ALL: &[&Setting] = &[$($(&$id),+),+];
    };
}

settings! {
    "Database" {
        /// Database URL for the role usher_gateway: postgres://usher_gateway:password@host:5432/postgres. Required.
        ///
        /// The migrations create the role; you give it a password. Direct connections, session poolers and transaction
        /// poolers all work. Percent-encode special characters in the password. `sslmode` and `sslrootcert` mean what
        /// they mean to psql, but `allow` counts as `prefer`. Without `sslmode`, the gateway verifies TLS in full, and
        /// uses no TLS on loopback and Unix sockets. It does not read PGSSLMODE and the like.
        DATABASE_URL = ("DATABASE_URL", "URL", Secret, Example("postgres://usher_gateway:password@db.<ref>.supabase.co:5432/postgres"));

        /// Database URL for LISTEN: a direct connection or a session pooler, never a transaction pooler (port 6543).
        ///
        /// A transaction pooler passes on no notifications. Default: DATABASE_URL.
        ///
        /// Supabase, direct (IPv6, or with the IPv4 add-on): `postgres://usher_gateway:…@db.<ref>.supabase.co:5432/postgres`.
        ///
        /// Supabase, session pooler (IPv4): `postgres://usher_gateway.<ref>:…@<pooler host>.pooler.supabase.com:5432/postgres`.
        LISTEN_DATABASE_URL = ("USHER_LISTEN_DATABASE_URL", "URL", Secret, Example(""));

        /// Certificate authority that signed the database's certificate: a PEM file, or the PEM text itself.
        ///
        /// For Supabase, download it from the dashboard under database settings. Default: the system's authorities.
        PG_ROOT_CERT = ("USHER_PG_ROOT_CERT", "FILE|PEM", Text, Example("/etc/usher/supabase-ca.crt"));

        /// Connections for queries and writes, {range}. LISTEN uses one more.
        ///
        /// A query that waits 5 s for a free connection fails with `unavailable`. A small Supabase project allows 60
        /// connections in total, for everything that uses the database.
        POOL_SIZE = ("USHER_POOL_SIZE", "N", Number(1..=64), Default("4"));
    }

    "Identity" {
        /// Supabase project URL, `https://<ref>.supabase.co`.
        ///
        /// Accepts only user tokens of the project's auth server and verifies them with its published keys. Without it,
        /// any issuer with a valid signature is accepted. Required unless SUPABASE_JWT_SECRET or USHER_JWKS_URL is set.
        SUPABASE_URL = ("SUPABASE_URL", "URL", Text, Example("https://<ref>.supabase.co"));

        /// Accepted issuers of user tokens (claim iss), separated by commas, if they differ from the auth server of SUPABASE_URL.
        ///
        /// Examples: a custom domain, a self-hosted project, a move from one to the other. A trailing slash makes no
        /// difference. Default: the project's auth server, `/auth/v1`.
        ISSUER = ("USHER_ISSUER", "ISSUERS", Text, Example(""));

        /// URL of the JSON Web Key Set (ES256, RS256, EdDSA) that verifies access tokens; or off.
        ///
        /// The URL begins with https, or with http for localhost. The gateway fetches the keys every five minutes, and
        /// when a token names an unknown key. While the server is down, the gateway keeps the last good keys. Default:
        /// the key set of the project's auth server, `/auth/v1/.well-known/jwks.json`.
        JWKS_URL = ("USHER_JWKS_URL", "URL", Text, Example(""));

        /// Secret that signs access tokens (HS256), at least 32 bytes: a project's legacy secret.
        ///
        /// The dashboard shows it under JWT keys. It works alone or beside published keys. Overlay tokens need it.
        JWT_SECRET = ("SUPABASE_JWT_SECRET", "SECRET", Secret, Example(""));

        /// Secret that signs resume tokens, at least 32 bytes, the same on every node.
        ///
        /// `openssl rand -base64 32` makes one. Default: random for each process. Each client that reconnects after a
        /// restart then costs one more query, and loses nothing.
        RESUME_SECRET = ("USHER_RESUME_SECRET", "SECRET", Secret, Example(""));

        /// Lifetime of a resume token in seconds, {range}. A client that reconnects later costs one more query.
        RESUME_TTL = ("USHER_RESUME_TTL", "SECONDS", Number(10..=86_400), Default("600"));

        /// Seconds after which the gateway asks the database again whether a viewer may still watch, {range}.
        ///
        /// If a policy of your app hides a session, its streams end within this time. `usher.access_changed` ends them
        /// within a second. One query checks many viewers.
        ACCESS_CHECK_SECONDS = ("USHER_ACCESS_CHECK_SECONDS", "SECONDS", Number(5..=86_400), Default("60"));

        /// Whether to serve viewers without a token, as the role anon: {range}.
        ///
        /// With false, the gateway closes a socket without a token after ten seconds, with 4501.
        ALLOW_ANONYMOUS = ("USHER_ALLOW_ANONYMOUS", "BOOL", OneOf("true or false"), Default("true"));
    }

    "Serving" {
        /// Address and port to listen on. A port alone means 127.0.0.1. Port 0 picks a free port.
        ///
        /// `localhost:4000` works too. In a container, use 0.0.0.0:4000. The gateway speaks plain HTTP here. For TLS, put
        /// a reverse proxy in front (deploy/nginx.conf, deploy/Caddyfile), or set USHER_TLS_CERT and USHER_TLS_KEY.
        LISTEN = ("USHER_LISTEN", "ADDR", Text, Default("127.0.0.1:4000"));

        /// Certificate chain for TLS on the listener: a PEM file, the server's own certificate first.
        ///
        /// The gateway reloads chain and key within ten seconds of a change, and immediately on SIGHUP. If a new pair is
        /// invalid, it keeps the old one and logs why. Default: plain HTTP.
        TLS_CERT = ("USHER_TLS_CERT", "FILE", Text, Example("/etc/usher/tls.crt"));

        /// Private key of USHER_TLS_CERT: a PEM file without a password.
        TLS_KEY = ("USHER_TLS_KEY", "FILE", Text, Example("/etc/usher/tls.key"));

        /// Origins that browsers may connect from, exact, separated by commas; * allows any. Others get 403.
        ///
        /// Example: `https://app.example`. Programs other than browsers send no origin and may always connect.
        ALLOWED_ORIGINS = ("USHER_ALLOWED_ORIGINS", "ORIGINS", Text, Default("*"));

        /// Open sockets, {range}. Further handshakes get 503.
        ///
        /// The file limit (ulimit -n, LimitNOFILE=) may lower this number; the log then says so at the start.
        MAX_CONNECTIONS = ("USHER_MAX_CONNECTIONS", "N", Number(1..=1_000_000), Default("18000"));

        /// Milliseconds between pings, {range}. A client that is silent for two intervals is closed with 4009.
        ///
        /// Give a reverse proxy a longer idle timeout than two intervals.
        HEARTBEAT_MS = ("USHER_HEARTBEAT_MS", "MS", Number(1_000..=120_000), Default("25000"));

        /// Seconds that a stopping gateway may take to close its clients, {range}.
        ///
        /// It closes a thousand per second, or more if that would take longer. Each client receives its own delay before
        /// it reconnects, so that they do not all arrive in the same moment.
        DRAIN_SECONDS = ("USHER_DRAIN_SECONDS", "SECONDS", Number(0..=300), Default("10"));
    }

    "Fan-out" {
        /// Tally frames per second and poll, {range}. Changes in between are merged into the next frame.
        ///
        /// The last change is always sent.
        TALLY_HZ = ("USHER_TALLY_HZ", "HZ", Number(1..=20), Default("5"));

        /// Loops that write to the sockets, {range}. Default: one per core.
        FANOUT_LOOPS = ("USHER_FANOUT_LOOPS", "N", Number(1..=256), Example(""));

        /// Events of each session kept in memory, {range}. Clients that are further behind catch up from the log.
        RING_EVENTS = ("USHER_RING_EVENTS", "N", Number(16..=65_536), Default("512"));
    }

    "Event log" {
        /// Hours that events stay in the log, {range}. A client that was away longer starts over, with `too_old`.
        ///
        /// Chat messages stay in your app's tables.
        LOG_RETENTION_HOURS = ("USHER_LOG_RETENTION_HOURS", "HOURS", Number(1..=8_760), Default("24"));

        /// Events of one session that stay in the log, {range}.
        LOG_RETENTION_EVENTS = ("USHER_LOG_RETENTION_EVENTS", "N", Number(100..=100_000_000), Default("100000"));
    }

    "Limits" {
        /// Messages of one user over all sockets, {range}. Further messages get rate_limited.
        LIMIT_MESSAGES = ("USHER_LIMIT_MESSAGES", "RATE", Rate(1), Default("20/30"));

        /// Messages of one user who moderates the session, {range}.
        LIMIT_MODERATOR_MESSAGES = ("USHER_LIMIT_MODERATOR_MESSAGES", "RATE", Rate(1), Default("100/30"));

        /// Votes of one user, {range}.
        LIMIT_VOTES = ("USHER_LIMIT_VOTES", "RATE", Rate(1), Default("30/30"));

        /// Moderation calls of one user (over HTTP), {range}. Further calls get 429.
        LIMIT_MODERATION = ("USHER_LIMIT_MODERATION", "RATE", Rate(1), Default("100/30"));

        /// Messages to one session, and votes in one poll, from all users together, {range}.
        LIMIT_SESSION_WRITES = ("USHER_LIMIT_SESSION_WRITES", "RATE", Rate(1), Default("5000/5"));

        /// Frames from one socket, {range}. A client that ignores the limit is closed with 4029.
        LIMIT_FRAMES = ("USHER_LIMIT_FRAMES", "RATE", Rate(1), Default("300/10"));

        /// Bytes of frames from one socket, {range}, the largest frame.
        LIMIT_BYTES = ("USHER_LIMIT_BYTES", "RATE", Rate(FRAME_BYTES_MAX as u64), Default("524288/10"));

        /// Subscribe frames from one socket, {range}.
        LIMIT_JOINS = ("USHER_LIMIT_JOINS", "RATE", Rate(1), Default("100/10"));

        /// Handshakes and other requests from one address, {range}. Further requests get 429.
        LIMIT_REQUESTS = ("USHER_LIMIT_REQUESTS", "RATE", Rate(1), Default("600/60"));

        /// Open sockets from one address, {range}. Further handshakes get 429.
        LIMIT_ADDRESS_CONNECTIONS = ("USHER_LIMIT_ADDRESS_CONNECTIONS", "N", NumberOrOff(1..=1_000_000), Default("1000"));

        /// Seconds during which a user may not repeat a message in a session, {range}. Moderators may.
        REPEAT_SECONDS = ("USHER_REPEAT_SECONDS", "SECONDS", Number(0..=3_600), Default("30"));

        /// Proxies whose X-Forwarded-For (or, without one, Forwarded) the gateway believes: addresses, ranges or localhost,
        /// separated by commas.
        ///
        /// The limits per address do not apply to them. The gateway ignores these headers from others. Clients whose
        /// address it cannot read (unknown, _hidden) share the limits of one address.
        TRUSTED_PROXIES = ("USHER_TRUSTED_PROXIES", "ADDRESSES", Text, Default("127.0.0.0/8,::1"));
    }

    "Logs" {
        /// What to log: error, warn, info, debug or trace; or a level for each module, such as info,usher=debug.
        ///
        /// The log goes to standard error.
        LOG = ("USHER_LOG", "FILTER", Text, Default("info"));

        /// Format of the log: {range}. json is for machines.
        LOG_FORMAT = ("USHER_LOG_FORMAT", "FORMAT", OneOf("human or json"), Default("human"));
    }
}

impl Setting {
    /// The variable that names a file with the value. Only a secret has one.
    pub(crate) fn file_name(&self) -> Option<String> {
        matches!(self.accepts, Secret).then(|| format!("{}_FILE", self.name))
    }

    /// The flags of the command line.
    pub(crate) fn args(&self) -> impl Iterator<Item = Arg> {
        let docs = self.paragraphs();
        let value = self
            .arg(self.name.to_owned(), self.placeholder)
            .help(docs[0].clone())
            .long_help(docs.join("\n\n"));
        let value = match self.shown {
            Default(default) => value.default_value(default),
            // It may be a secret, or a whole PEM file.
            Example(_) => value.hide_env_values(true),
        };
        let file = self.file_name();
        let file = file.map(|name| self.arg(name, "FILE").help(self.file_docs()));
        [value].into_iter().chain(file)
    }

    fn arg(&self, name: String, placeholder: &'static str) -> Arg {
        let flag = name.strip_prefix("USHER_").unwrap_or(&name);
        Arg::new(name.clone())
            .long(flag.to_lowercase().replace('_', "-"))
            .env(name)
            .value_name(placeholder)
            .help_heading(self.group)
            .value_parser(secret_parser())
    }

    fn file_docs(&self) -> String {
        format!("File that contains {}.", self.name)
    }

    fn paragraphs(&self) -> Vec<String> {
        let range = match &self.accepts {
            Text | Secret => String::new(),
            OneOf(words) => (*words).to_owned(),
            Number(range) => format!("{} to {}", range.start(), range.end()),
            NumberOrOff(range) => format!("{} to {} or off", range.start(), range.end()),
            Rate(1) => "COUNT/SECONDS or off".to_owned(),
            Rate(min) => format!("COUNT/SECONDS or off. COUNT is at least {min}"),
        };
        let paragraphs = self.docs.trim().split("\n\n");
        let text = |lines: &str| lines.trim().replace("\n ", " ").replace("{range}", &range);
        paragraphs.map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// What an entry of usher.env may be wide.
    const COLUMNS: usize = 120;

    #[test]
    fn the_docs_are_what_the_declarations_say() {
        let page = include_str!("../../docs/configuration.md");
        let mut updated = String::new();
        let mut group = "";
        let mut is_in_table = false;
        for line in page.lines() {
            group = line.strip_prefix("## ").unwrap_or(group);
            let is_row = line.starts_with('|') && ALL.iter().any(|setting| setting.group == group);
            if is_row && !is_in_table {
                updated.push_str(&table(group));
            }
            if !is_row {
                updated.push_str(line);
                updated.push('\n');
            }
            is_in_table = is_row;
        }
        expect_file!["../../docs/configuration.md"].assert_eq(&updated);
    }

    #[test]
    fn the_example_file_is_what_the_declarations_say() {
        let page = include_str!("../../deploy/usher.env");
        let (head, _) = page.split_once("\n# ---- ").unwrap();
        let mut updated = format!("{head}\n");
        let mut group = "";
        for setting in ALL {
            if setting.group != group {
                group = setting.group;
                updated.push_str(&format!("# ---- {group} ----\n\n"));
            }
            for paragraph in setting.paragraphs() {
                updated.push_str(&comment(&paragraph));
            }
            let (Default(value) | Example(value)) = setting.shown;
            updated.push_str(&format!("#{}={value}\n", setting.name));
            if let Some(name) = setting.file_name() {
                let file = setting.name.strip_prefix("USHER_").unwrap_or(setting.name);
                let file = file.to_lowercase().replace('_', "-");
                updated.push_str(&format!("#{name}=/run/secrets/{file}\n"));
            }
            updated.push('\n');
        }
        expect_file!["../../deploy/usher.env"].assert_eq(&format!("{}\n", updated.trim_end()));
    }

    #[test]
    fn every_range_is_in_the_docs() {
        for setting in ALL {
            let has_range = !matches!(setting.accepts, Text | Secret);
            assert_eq!(
                setting.docs.contains("{range}"),
                has_range,
                "{}",
                setting.name
            );
        }
    }

    fn table(group: &str) -> String {
        let mut table = "| setting | default | what |\n|---|---|---|\n".to_owned();
        for setting in ALL.iter().filter(|setting| setting.group == group) {
            let default = match setting.shown {
                Default(default) => format!("`{default}`"),
                Example(_) => String::new(),
            };
            let docs = setting.paragraphs().join(" ").replace('|', "\\|");
            table.push_str(&format!("| `{}` | {default} | {docs} |\n", setting.name));
            if let Some(name) = setting.file_name() {
                table.push_str(&format!("| `{name}` |  | {} |\n", setting.file_docs()));
            }
        }
        table
    }

    fn comment(paragraph: &str) -> String {
        let (mut comment, mut columns) = ("#".to_owned(), 1);
        for word in paragraph.split(' ') {
            if columns + 1 + word.chars().count() > COLUMNS && columns > 1 {
                comment.push_str("\n#");
                columns = 1;
            }
            comment.push(' ');
            comment.push_str(word);
            columns += 1 + word.chars().count();
        }
        comment.push('\n');
        comment
    }
}
