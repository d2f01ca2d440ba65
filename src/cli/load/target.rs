//! Resolves the target of `usher load`, and parses the shares and storms of its command line.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::Uri;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::LOAD_CONNECT_TIMEOUT;
use crate::postgres::tls::{SslMode, client_config, verifier};
use usher_load::plan::Gateway;

/// The default path of a gateway's socket.
const SOCKET_PATH: &str = "/v1/socket";

/// A number of viewers, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Share {
    Count(u32),
    Percent(f64),
}

impl Share {
    /// Returns this share of `all`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a u32 is one"
    )]
    pub(crate) fn of(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(all),
            Self::Percent(percent) => (f64::from(all) * percent / 100.0).round() as u32,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok();
                percent
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .map(Self::Percent)
            }
            None => text.parse().ok().map(Self::Count),
        };
        share.ok_or_else(|| "it must be a number, as in 500, or a share, as in 10%".to_owned())
    }
}

/// Viewers that drop together, and the second of the measurement to drop them at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StormArg {
    pub(crate) share: Share,
    pub(crate) at: Option<Duration>,
}

impl FromStr for StormArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (share, at) = match text.split_once('@') {
            Some((share, at)) => (share, Some(at)),
            None => (text, None),
        };
        let at = at.map(|at| {
            at.parse::<f64>()
                .ok()
                .and_then(|at| Duration::try_from_secs_f64(at).ok())
        });
        match (share.parse(), at) {
            (Ok(share), None) => Ok(Self { share, at: None }),
            (Ok(share), Some(Some(at))) => Ok(Self {
                share,
                at: Some(at),
            }),
            _ => Err("it must be viewers, and maybe a second, as in 500, 50% or 500@10".to_owned()),
        }
    }
}

/// Parses a URL and resolves its address.
pub(crate) async fn gateway(
    url: &str,
    root_cert: Option<&Path>,
    is_insecure: bool,
) -> anyhow::Result<Gateway> {
    let parts = UrlParts::parse(url)?;
    let tls = if parts.is_secure {
        let pem = root_cert
            .map(|path| {
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
            })
            .transpose()?;
        let mode = if is_insecure {
            SslMode::Require
        } else {
            SslMode::VerifyFull
        };
        let config = verifier(mode, pem.as_deref())
            .and_then(client_config)
            .context("prepare TLS")?;
        let name = ServerName::try_from(parts.host.clone());
        let name =
            name.with_context(|| format!("{} cannot be the name of a certificate", parts.host))?;
        Some((name, Arc::new(config)))
    } else {
        None
    };
    let addresses = tokio::net::lookup_host((parts.host.as_str(), parts.port))
        .await
        .with_context(|| format!("find the address of {}: is the name right?", parts.host))?;
    let address = answering(addresses.collect())
        .await
        .with_context(|| format!("{} has no address", parts.host))?;
    Ok(Gateway {
        url: parts.shown(),
        address,
        host: parts.authority(),
        path: parts.path,
        tls,
    })
}

/// Returns the first address that accepts a connection: `localhost` has two, and a gateway often listens on one of
/// them. If none accepts, returns the first, whose error is the one to report.
async fn answering(addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
    for address in addresses.iter().skip_while(|_| addresses.len() == 1) {
        let connecting = timeout(LOAD_CONNECT_TIMEOUT, TcpStream::connect(address));
        if matches!(connecting.await, Ok(Ok(_))) {
            return Some(*address);
        }
    }
    addresses.first().copied()
}

struct UrlParts {
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl UrlParts {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let wrong = "--url must have the form ws://host:port, wss://host or https://host/v1/socket; \
                     for a gateway on this machine its port is enough";
        let url = match url.trim() {
            port if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port: u16 = port.parse().ok().context(wrong)?;
                format!("ws://{}:{port}", Ipv4Addr::LOCALHOST)
            }
            url if url.is_empty() || url.contains("://") => url.to_owned(),
            // As `usher serve --listen` and browsers accept it.
            url => format!("ws://{url}"),
        };
        let uri: Uri = url.parse().context(wrong)?;
        let (is_secure, port) = match uri.scheme_str() {
            Some("ws" | "http") => (false, 80),
            Some("wss" | "https") => (true, 443),
            _ => bail!("{wrong}"),
        };
        if uri.query().is_some() {
            bail!("--url must have no query: tokens are given with --tokens");
        }
        let host = uri.host().context(wrong)?;
        let path = match uri.path() {
            "" | "/" => SOCKET_PATH,
            path => path,
        };
        Ok(Self {
            is_secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(port),
            path: path.to_owned(),
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("{host}:{}", self.port)
    }

    fn shown(&self) -> String {
        let scheme = if self.is_secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_in_all_its_forms() {
        for (url, shown) in [
            ("ws://127.0.0.1:4000", "ws://127.0.0.1:4000/v1/socket"),
            ("http://localhost:4000/", "ws://localhost:4000/v1/socket"),
            (
                "wss://live.example.com",
                "wss://live.example.com:443/v1/socket",
            ),
            (
                "https://example.com/usher/v1/socket",
                "wss://example.com:443/usher/v1/socket",
            ),
            ("ws://[::1]:4000", "ws://[::1]:4000/v1/socket"),
            ("127.0.0.1:4000", "ws://127.0.0.1:4000/v1/socket"),
            ("localhost:4133", "ws://localhost:4133/v1/socket"),
            ("[::1]:4133/usher", "ws://[::1]:4133/usher"),
            ("4133", "ws://127.0.0.1:4133/v1/socket"),
        ] {
            assert_eq!(UrlParts::parse(url).unwrap().shown(), shown);
        }
        for url in [
            "",
            "65536",
            "a b",
            "ftp://a",
            "ws://",
            "ws://a/v1/socket?access_token=x",
        ] {
            assert!(UrlParts::parse(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_answers_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let nobody = SocketAddr::new("::1".parse().unwrap(), here.port());
        assert_eq!(answering(vec![nobody, here]).await, Some(here));
        assert_eq!(answering(vec![here]).await, Some(here));
        drop(listener);
        assert_eq!(answering(vec![nobody, here]).await, Some(nobody));
        assert_eq!(answering(vec![]).await, None);
    }

    #[test]
    fn shares_and_storms_are_read() {
        assert_eq!("10%".parse::<Share>().unwrap().of(995), 100);
        assert_eq!("500".parse::<Share>().unwrap().of(300), 300);
        let storm: StormArg = "50%@2.5".parse().unwrap();
        assert_eq!(
            (storm.share.of(10), storm.at),
            (5, Some(Duration::from_millis(2_500)))
        );
        for text in ["", "x", "101%", "-1", "5@", "5@x", "5@-1", "%"] {
            assert!(text.parse::<StormArg>().is_err(), "{text}");
        }
    }
}
