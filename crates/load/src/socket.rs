//! Opens a WebSocket to the gateway. Keeps no state of the handshake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_util::either::Either;

use crate::limits::{HEAD_BYTES_MAX, OPEN_TIMEOUT, SLOW_RECEIVE_BYTES};
use crate::plan::Plan;
use crate::verdict;

/// A socket with or without TLS.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The viewer or writer that opens a socket.
pub(crate) struct SocketOptions<'a> {
    /// Determines the source and forwarded addresses.
    pub(crate) number: u32,
    pub(crate) token: Option<&'a SecretString>,
    /// Whether it will read nothing.
    pub(crate) is_slow: bool,
}

/// An open socket, and the bytes that followed the handshake.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) rest: Vec<u8>,
}

/// The reason why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no server listens there (connection refused)")]
    Refused,
    #[error("this machine has no free source address or port ({0}): use more --addresses")]
    NoAddress(io::ErrorKind),
    #[error(
        "this process has no free file descriptor: raise its limit (ulimit -n), or use fewer viewers"
    )]
    NoFile,
    #[error("no answer within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection broke ({0})")]
    Broken(io::ErrorKind),
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    #[error("HTTP {status}{}: {}", said(.message), verdict::on_status(*.status))]
    Status { status: u16, message: String },
    #[error("the server does not speak HTTP")]
    NotHttp,
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" \"{message}\"")
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        // Linux: too many open files in the process, or in the system.
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        let kind = error.kind();
        if kind == io::ErrorKind::ConnectionRefused {
            Self::Refused
        } else if kind == io::ErrorKind::AddrNotAvailable || kind == io::ErrorKind::AddrInUse {
            Self::NoAddress(kind)
        } else if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
            Self::NoFile
        } else {
            Self::Broken(kind)
        }
    }
}

/// Opens a socket.
pub(crate) async fn open(plan: &Plan, caller: &SocketOptions<'_>) -> Result<Opened, OpenError> {
    let opening = async {
        let tcp = connect(plan, caller).await?;
        let mut stream = match &plan.gateway.tls {
            None => Either::Left(tcp),
            Some((name, config)) => {
                let connector = TlsConnector::from(config.clone());
                let secured = connector.connect(name.clone(), tcp).await;
                Either::Right(Box::new(
                    secured.map_err(|error| OpenError::Tls(error.to_string()))?,
                ))
            }
        };
        let rest = shake_hands(&mut stream, plan, caller).await?;
        Ok(Opened { stream, rest })
    };
    timeout(OPEN_TIMEOUT, opening)
        .await
        .unwrap_or(Err(OpenError::Timeout))
}

async fn connect(plan: &Plan, caller: &SocketOptions<'_>) -> io::Result<TcpStream> {
    let address = plan.gateway.address;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = plan.source_of(caller.number) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    if caller.is_slow {
        socket.set_recv_buffer_size(SLOW_RECEIVE_BYTES)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    // A run closes thousands of sockets. Without this, each would keep its port for a minute.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

async fn shake_hands(
    stream: &mut Stream,
    plan: &Plan,
    caller: &SocketOptions<'_>,
) -> Result<Vec<u8>, OpenError> {
    let key = generate_key();
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: usher.v1\r\nUser-Agent: usher-load/{}\r\n",
        plan.gateway.path,
        plan.gateway.host,
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(address) = plan.forwarded_for(caller.number) {
        request.push_str(&format!("X-Forwarded-For: {address}\r\n"));
    }
    if let Some(token) = caller.token {
        request.push_str(&format!(
            "Authorization: Bearer {}\r\n",
            token.expose_secret()
        ));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;

    let mut head = Vec::with_capacity(1_024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(OpenError::Broken(io::ErrorKind::UnexpectedEof));
        }
        if let Some(length) = accepted(&head, &key)? {
            return Ok(head.split_off(length));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(OpenError::NotHttp);
        }
    }
}

/// Returns the length of a response's head that accepts the upgrade; `None` while the head is incomplete.
fn accepted(bytes: &[u8], key: &str) -> Result<Option<usize>, OpenError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) =
        response.parse(bytes).map_err(|_| OpenError::NotHttp)?
    else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let mut headers = response.headers.iter();
        headers
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if status == 101 {
        let is_ours =
            header("sec-websocket-accept") == Some(derive_accept_key(key.as_bytes()).as_bytes());
        return if is_ours {
            Ok(Some(length))
        } else {
            Err(OpenError::NotHttp)
        };
    }
    Err(OpenError::Status {
        status,
        message: message(&bytes[length..]),
    })
}

/// Returns the message of an Usher's error response, if the body is complete.
fn message(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn an_upgrade_needs_the_right_accept_key() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let with_more = format!("{head}\u{1}\u{2}");
        assert_eq!(
            accepted(with_more.as_bytes(), KEY).unwrap(),
            Some(head.len())
        );
        assert_eq!(accepted(&head.as_bytes()[..40], KEY).unwrap(), None);
        assert!(accepted(head.as_bytes(), "another key").is_err());
        assert!(accepted(b"SSH-2.0-OpenSSH\r\n\r\n", KEY).is_err());
    }

    #[test]
    fn a_refusal_has_its_status_its_message_and_advice() {
        let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n\r\n\
            {\"error\":{\"code\":\"rate_limited\",\"message\":\"too many sockets\"}}";
        let error = accepted(answer.as_bytes(), KEY).unwrap_err().to_string();
        assert!(
            error.starts_with("HTTP 429 \"too many sockets\": the gateway limits"),
            "{error}"
        );
        assert!(error.contains("USHER_LIMIT_ADDRESS_CONNECTIONS"), "{error}");
        let error = accepted(b"HTTP/1.1 404 Not Found\r\n\r\n<html>", KEY)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "HTTP 404: the path does not exist: an Usher's path is /v1/socket"
        );
    }
}
