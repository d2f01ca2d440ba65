//! A plain HTTP client that shows every byte of the answer.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::PATIENCE;

/// What makes a GET a WebSocket handshake.
pub(crate) const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// The body before it was taken for text.
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is a refusal as the protocol has it.
    pub(crate) fn is_refusal(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{self:?}"
        );
    }
}

/// Gets a path, with these headers besides `Host`.
pub(crate) async fn get(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    call(at, "GET", path, headers, "").await
}

/// Calls with any method, with these headers and, if it is not empty, this body.
pub(crate) async fn call(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    let exchange = timeout(PATIENCE, exchange(at, &request, method == "HEAD")).await;
    exchange.unwrap_or_else(|_| panic!("no answer to {request}"))
}

/// Sends a handshake with these headers and this query. After a 101 it drops the socket immediately.
pub(crate) async fn shake(at: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&UPGRADE[..], headers].concat();
    get(at, &format!("/v1/socket{query}"), &headers).await
}

/// The value of a metric, zero where it was not touched so far.
pub(crate) async fn metric(at: SocketAddr, name: &str) -> f64 {
    let text = get(at, "/metrics", &[]).await.body;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Sends a request and reads the whole answer.
pub(crate) async fn exchange(at: SocketAddr, request: &str, is_head: bool) -> Answer {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let (status, headers) = read_head(&mut socket).await;
    let mut bytes = Vec::new();
    if is_head || status == 304 {
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|how| how == "chunked")
    {
        while let Some(chunk) = read_chunk(&mut socket).await {
            bytes.extend(chunk);
        }
    } else {
        let length = headers.get("content-length");
        bytes = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        socket.read_exact(&mut bytes).await.unwrap();
    }
    Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
    }
}

/// Reads the status and the headers, up to the first byte of the body.
pub(crate) async fn read_head(socket: &mut TcpStream) -> (u16, HashMap<String, String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    (status.parse().unwrap(), headers)
}

/// Reads one chunk of a chunked body; `None` is its end, also where it is cut off.
pub(crate) async fn read_chunk(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.push(socket.read_u8().await.ok()?);
    }
    let size = std::str::from_utf8(&size).unwrap().trim();
    let size = usize::from_str_radix(size, 16).unwrap();
    let mut chunk = vec![0; size + 2];
    socket.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}
