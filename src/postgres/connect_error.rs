//! Why a connection to Postgres could not be made, and what to do about it.

use std::{error::Error as _, io};

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

/// Why a connection could not be made. Names the target, never the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server did not answer in time.
    #[error("connect to {target}: no answer within {seconds} s")]
    Timeout {
        /// `user@host:port/database`.
        target: String,
        /// The time limit.
        seconds: u64,
    },
    /// The server's certificate is not trusted.
    #[error("connect to {target}: the server's certificate is not trusted; {advice}")]
    Untrusted {
        /// `user@host:port/database`.
        target: String,
        /// How the operator can fix it.
        advice: &'static str,
        /// The reason that rustls gives.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server speaks no TLS.
    #[error(
        "connect to {target}: the server offers no TLS; turn it on there (ssl = on), or, where the network is \
         trusted, say sslmode=disable"
    )]
    NoTls {
        /// `user@host:port/database`.
        target: String,
        /// The error of tokio-postgres.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Anything else: refused, wrong password, no such database.
    #[error("connect to {target}")]
    Postgres {
        /// `user@host:port/database`.
        target: String,
        /// The error of Postgres or the network.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl ConnectError {
    /// Classifies an error of tokio-postgres.
    #[must_use]
    pub(crate) fn new(target: String, source: tokio_postgres::Error) -> Self {
        if let Some(advice) = distrust(&source) {
            return Self::Untrusted {
                target,
                advice,
                source,
            };
        }
        // tokio-postgres has no error kind for this case, so the text decides.
        let is_without_tls = source
            .source()
            .is_some_and(|cause| cause.to_string() == "server does not support TLS");
        if is_without_tls {
            return Self::NoTls { target, source };
        }
        Self::Postgres { target, source }
    }

    /// Returns what to do about it, if that is known.
    #[must_use]
    pub(crate) fn advice(&self) -> &'static str {
        let source = match self {
            Self::Timeout { .. } => {
                return "look whether a firewall or a paused project is in the way; Supabase's direct host has IPv6 \
                        alone unless the project has the IPv4 add-on: use the session pooler";
            }
            Self::Untrusted { advice, .. } => return advice,
            Self::NoTls { .. } => {
                return "turn TLS on at the server, or say sslmode=disable where the network is trusted";
            }
            Self::Postgres { source, .. } => source,
        };
        match source.code() {
            Some(code) if *code == SqlState::INVALID_PASSWORD => {
                "give the role its password (alter role usher_gateway password '…') and percent-encode it in the URL"
            }
            Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
                "name a database that exists; Supabase's is postgres"
            }
            Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                "look at the role (it needs LOGIN) and at pg_hba.conf; through a pooler of Supabase's the user is \
                 role.<project ref>"
            }
            Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
                "free some of the server's connections, raise max_connections, or lower USHER_POOL_SIZE"
            }
            Some(_) => "do what the server says",
            None => {
                "look at host and port, and whether the server runs and can be reached from here"
            }
        }
    }
}

/// Returns advice for a certificate that is not trusted. rustls puts its reason inside an `io::Error`.
fn distrust(error: &tokio_postgres::Error) -> Option<&'static str> {
    let io = error.source()?.downcast_ref::<io::Error>()?;
    let rustls::Error::InvalidCertificate(reason) =
        io.get_ref()?.downcast_ref::<rustls::Error>()?
    else {
        return None;
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may know more reasons tomorrow, and the last advice holds for most"
    )]
    Some(match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: renew it at the server, or set this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: set this machine's clock"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host: use a name that it has, or sslmode=verify-ca to trust its authority for any host"
        }
        _ => {
            "give its authority with USHER_PG_ROOT_CERT or sslrootcert \
             (Supabase: dashboard, database settings, SSL certificate)"
        }
    })
}
