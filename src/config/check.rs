//! Checks one setting after the other, and remembers what is wrong with each.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use hyper::Uri;
use secrecy::SecretString;

use crate::causes::with_causes;
use crate::config::address::{LOCALHOST, parse_listen};
use crate::config::certificate::{Certificate, CertificateFiles};
use crate::config::raw::Raw;
use crate::config::secret::{check_length, random_secret, read_secret};
use crate::config::{AllowedOrigins, LogFormat, LogSettings, Mistake, TokenKeys};
use crate::postgres::connect::{Target, TargetError};
use crate::postgres::tls::SslMode;

/// Where the keys are published that sign access tokens.
enum KeysUrl {
    /// Where the project's auth server has them, if there is one.
    Derived,
    /// Here.
    Given(Uri),
    /// Nowhere: the secret alone counts.
    Off,
}

/// What has been found so far. A check that gives no value has recorded a mistake.
#[derive(Default)]
pub(crate) struct Check {
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) warnings: Vec<String>,
}

impl Check {
    /// The database for queries, and the one for LISTEN.
    pub(crate) fn databases(&mut self, raw: &Raw) -> Option<(Target, Target)> {
        let root_cert = raw.pg_root_cert.as_deref();
        let name = "DATABASE_URL";
        let url = self.secret(
            name,
            raw.database_url.as_ref(),
            raw.database_url_file.as_ref(),
        );
        if matches!(url, Some(None)) {
            self.mistake(
                name,
                "it is missing; it must be a URL for the role usher_gateway, \
                 postgres://usher_gateway:password@host:5432/postgres",
            );
        }
        let database = url
            .flatten()
            .and_then(|url| self.target(name, &url, root_cert));

        let name = "USHER_LISTEN_DATABASE_URL";
        let (url, file) = (&raw.listen_database_url, &raw.listen_database_url_file);
        let (name, listen_database) = match self.secret(name, url.as_ref(), file.as_ref())? {
            Some(url) => (name, self.target(name, &url, root_cert)),
            None => ("DATABASE_URL", database.clone()),
        };
        if listen_database
            .as_ref()
            .is_some_and(Target::is_transaction_pooler)
        {
            self.mistake(name, "port 6543 is a transaction pooler, which cannot LISTEN; set USHER_LISTEN_DATABASE_URL \
                 to the direct connection (db.<ref>.supabase.co:5432) or the session pooler (port 5432)");
        }
        database.zip(listen_database)
    }

    /// The secret of access tokens, and where the keys are published that sign them.
    pub(crate) fn token_keys(&mut self, raw: &Raw) -> Option<TokenKeys> {
        let auth_server = self.auth_server(raw.supabase_url.as_deref());
        let issuers = self.issuers(raw.issuer.as_deref());
        let secret = self.jwt_secret(raw);
        let url = self.keys_url(raw);
        let (auth_server, secret, url) = (auth_server?, secret?, url?);
        let issuers = issuers?;
        let url = match url {
            KeysUrl::Given(url) => Some(url),
            KeysUrl::Off => None,
            KeysUrl::Derived => auth_server.as_ref().map(|auth_server| {
                let url = format!("{auth_server}/.well-known/jwks.json");
                url.parse()
                    .expect("a checked URL with a path behind it is one")
            }),
        };
        if secret.is_none() && url.is_none() {
            self.mistake(
                "SUPABASE_URL",
                "it is missing, and so is SUPABASE_JWT_SECRET; one of them must say how tokens are verified: the project's \
                 URL, whose auth server publishes its keys, or its legacy JWT secret (dashboard, JWT keys)",
            );
            return None;
        }
        Some(TokenKeys {
            secret,
            url,
            issuers: if issuers.is_empty() {
                Vec::from_iter(auth_server)
            } else {
                issuers
            },
        })
    }

    /// Who may issue tokens, where that is not the project's auth server.
    fn issuers(&mut self, list: Option<&str>) -> Option<Vec<String>> {
        let issuers = list.unwrap_or_default().split(',').map(str::trim);
        let issuers = issuers.filter(|issuer| !issuer.is_empty());
        let issuers: Vec<String> = issuers.map(str::to_owned).collect();
        let is_one =
            |issuer: &String| !issuer.contains(|c: char| c.is_whitespace() || c.is_control());
        match issuers.iter().find(|issuer| !is_one(issuer)) {
            None => Some(issuers),
            Some(wrong) => {
                let expected =
                    "an issuer as its tokens name it (claim iss), with commas between several";
                self.wrong("USHER_ISSUER", wrong, expected);
                None
            }
        }
    }

    /// Where keys are published; the outer `Option` is whether the setting is right.
    fn keys_url(&mut self, raw: &Raw) -> Option<KeysUrl> {
        let given = raw.jwks_url.as_deref().map(str::trim);
        let Some(url) = given.filter(|url| !url.is_empty()) else {
            return Some(KeysUrl::Derived);
        };
        if url == "off" {
            return Some(KeysUrl::Off);
        }
        let host = |scheme| {
            Some(
                url.strip_prefix(scheme)?
                    .split(['/', '?'])
                    .next()
                    .unwrap_or(""),
            )
        };
        let is_safe = host("https://").is_some_and(is_host)
            || host("http://").is_some_and(|host| is_host(host) && is_loopback(host));
        match url.parse() {
            Ok(url) if is_safe => Some(KeysUrl::Given(url)),
            Ok(_) | Err(_) => {
                self.mistake(
                    "USHER_JWKS_URL",
                    "it must be an https URL such as https://<ref>.supabase.co/auth/v1/.well-known/jwks.json \
                     (http only for localhost), or off",
                );
                None
            }
        }
    }

    /// The secret of access tokens; the outer `Option` is whether the setting is right, the inner whether it is given.
    fn jwt_secret(&mut self, raw: &Raw) -> Option<Option<SecretString>> {
        let name = "SUPABASE_JWT_SECRET";
        let (given, file) = (&raw.supabase_jwt_secret, &raw.supabase_jwt_secret_file);
        let Some(secret) = self.secret(name, given.as_ref(), file.as_ref())? else {
            return Some(None);
        };
        if let Err(error) = check_length(&secret) {
            self.mistake(name, error.to_string());
            return None;
        }
        Some(Some(secret))
    }

    /// The secret of resume tokens, made here where none is given.
    pub(crate) fn resume_secret(&mut self, raw: &Raw) -> Option<SecretString> {
        let name = "USHER_RESUME_SECRET";
        let (given, file) = (&raw.resume_secret, &raw.resume_secret_file);
        let Some(secret) = self.secret(name, given.as_ref(), file.as_ref())? else {
            self.warnings.push(format!(
                "{name} is not set: resume tokens end with this process, and other nodes do not know them"
            ));
            return Some(random_secret());
        };
        if let Err(error) = check_length(&secret) {
            self.mistake(
                name,
                format!("{error}, such as `openssl rand -base64 32` gives"),
            );
            return None;
        }
        Some(secret)
    }

    /// The auth server of a project; the outer `Option` is whether the setting is right, the inner whether it is given.
    fn auth_server(&mut self, url: Option<&str>) -> Option<Option<String>> {
        let Some(url) = url.map(str::trim).filter(|url| !url.is_empty()) else {
            return Some(None);
        };
        let url = url.trim_end_matches('/');
        let host = |scheme| url.strip_prefix(scheme).filter(|host| is_host(host));
        if host("https://").is_some() || host("http://").is_some_and(is_loopback) {
            return Some(Some(format!("{url}/auth/v1")));
        }
        self.mistake(
            "SUPABASE_URL",
            "it must be an https URL such as https://<ref>.supabase.co (http only for localhost)",
        );
        None
    }

    /// The certificate of the listener; the outer `Option` is whether the settings are right, the inner whether they
    /// are given.
    pub(crate) fn certificate(
        &mut self,
        raw: &Raw,
    ) -> Option<Option<(CertificateFiles, Certificate)>> {
        let given =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let files = match (given(&raw.tls_cert), given(&raw.tls_key)) {
            (None, None) => return Some(None),
            (Some(chain), Some(key)) => CertificateFiles { chain, key },
            (Some(_), None) => {
                self.mistake(
                    "USHER_TLS_KEY",
                    "it is missing: TLS needs the key of USHER_TLS_CERT",
                );
                return None;
            }
            (None, Some(_)) => {
                self.mistake(
                    "USHER_TLS_CERT",
                    "it is missing: TLS needs the certificate of USHER_TLS_KEY",
                );
                return None;
            }
        };
        match files.load() {
            Ok(certificate) => Some(Some((files, certificate))),
            Err(error) => {
                let setting = if error.is_about(&files.key) {
                    "USHER_TLS_KEY"
                } else {
                    "USHER_TLS_CERT"
                };
                self.mistake(setting, with_causes(&error));
                None
            }
        }
    }

    /// The origins that browsers may connect from.
    pub(crate) fn origins(&mut self, list: &str) -> Option<AllowedOrigins> {
        if list.trim() == "*" {
            return Some(AllowedOrigins::Any);
        }
        let mut origins = Vec::new();
        let mistakes_before = self.mistakes.len();
        for origin in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            match origin.split_once("://") {
                Some((scheme, host)) if !scheme.is_empty() && is_host(host) => {
                    origins.push(origin.to_owned());
                }
                Some(_) | None => self.wrong(
                    "USHER_ALLOWED_ORIGINS",
                    origin,
                    "scheme and host alone, such as https://app.example, or *",
                ),
            }
        }
        (self.mistakes.len() == mistakes_before).then_some(AllowedOrigins::Only(origins))
    }

    /// What is logged, and how.
    pub(crate) fn log(&mut self, raw: &Raw) -> Option<LogSettings> {
        let filter = tracing_subscriber::EnvFilter::try_new(&raw.log);
        if filter.is_err() {
            self.wrong(
                "USHER_LOG",
                &raw.log,
                "a filter such as info or info,usher=debug",
            );
        }
        let format = match raw.log_format.trim() {
            "human" => Some(LogFormat::Human),
            "json" => Some(LogFormat::Json),
            other => {
                self.wrong("USHER_LOG_FORMAT", other, "human or json");
                None
            }
        };
        filter.ok().zip(format).map(|(_, format)| LogSettings {
            filter: raw.log.clone(),
            format,
        })
    }

    /// An address to listen on.
    pub(crate) fn listen_address(&mut self, name: &'static str, text: &str) -> Option<SocketAddr> {
        parse_listen(text)
            .map_err(|expected| self.wrong(name, text, expected))
            .ok()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &'static str, text: &str) -> Option<bool> {
        match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            other => {
                self.wrong(name, other, "true or false");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        name: &'static str,
        text: &str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let number = text
            .trim()
            .parse()
            .ok()
            .filter(|number| range.contains(number));
        if number.is_none() {
            let (min, max) = range.into_inner();
            self.wrong(name, text, format!("a whole number from {min} to {max}"));
        }
        number
    }

    /// A secret given by itself or in a file; the outer `Option` is whether the setting is right, the inner whether it
    /// is given.
    fn secret(
        &mut self,
        name: &'static str,
        given: Option<&SecretString>,
        file: Option<&PathBuf>,
    ) -> Option<Option<SecretString>> {
        match read_secret(name, given, file.map(PathBuf::as_path)) {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.mistake(name, with_causes(&error));
                None
            }
        }
    }

    fn target(
        &mut self,
        name: &'static str,
        url: &SecretString,
        root_cert: Option<&str>,
    ) -> Option<Target> {
        let target = match Target::parse(url, root_cert) {
            Ok(target) => target,
            Err(error @ TargetError::RootCert { .. }) => {
                self.mistake("USHER_PG_ROOT_CERT", with_causes(&error));
                return None;
            }
            Err(error) => {
                self.mistake(name, with_causes(&error));
                return None;
            }
        };
        if matches!(target.ssl_mode(), SslMode::Prefer | SslMode::Require) {
            self.warnings.push(format!(
                "{name} has an sslmode that does not verify the server: verify-full is safer"
            ));
        }
        Some(target)
    }

    pub(crate) fn wrong(&mut self, name: &'static str, given: &str, expected: impl Display) {
        self.mistake(name, format!("`{given}` must be {expected}"));
    }

    fn mistake(&mut self, setting: &'static str, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            setting,
            problem: problem.into(),
        });
    }
}

/// Host and port, and nothing after them.
fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '?', '#', '@', ' ', '*'])
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    name == LOCALHOST || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
