//! Proves TLS on the listener: it covers everything that the gateway serves, and a certificate is renewed without a
//! restart.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion, version};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use usher::config::certificate::CertificateFiles;
use usher::metrics::Metrics;
use usher::net::accept::tls::Renewal;
use usher::net::socket::tls_stream::TlsStream as ServerTls;

use crate::certificates::{Authority, Files, Pair};
use crate::client::{Client, PATIENCE};
use crate::database::{Database, JWT_SECRET, token};
use crate::gateway::Gateway;
use crate::http::get;

/// Every version that is offered.
const ALL: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

#[tokio::test]
async fn sockets_pages_and_calls_are_served_under_tls() {
    let db = Database::create().await;
    let authority = Authority::new("tests");
    let (gateway, _files) = secure_gateway(&db, &authority.issue(&["localhost"])).await;
    for versions in [[&version::TLS13], [&version::TLS12]] {
        let at = tunnel(gateway.at, client_config(&authority, &versions)).await;
        for path in ["/healthz", "/readyz", "/", "/app.js"] {
            assert_eq!(get(at, path, &[]).await.status, 200, "{path}");
        }
        let streamer = db.user("streamer").await;
        let session = db.session(&streamer).await;
        let mut viewer = Client::connect(at, &streamer).await;
        viewer.subscribe(session).await;
        // More than a socket buffer holds, in frames larger than a TLS record.
        for round in 0..40 {
            let bodies = "x".repeat(1_900);
            db.say(session, &streamer, &format!("{round} {bodies}"))
                .await;
        }
        viewer.has_the_whole_log(&db, session).await;
        let mut late = Client::connect(at, &streamer).await;
        late.subscribe(session).await;
        late.has_the_whole_log(&db, session).await;
    }
    let metrics = get(
        tunnel(gateway.at, client_config(&authority, ALL)).await,
        "/metrics",
        &[],
    );
    let text = metrics.await.body;
    // The first day of 2050.
    assert!(
        text.contains("usher_tls_certificate_expiry_timestamp_seconds 2524608000"),
        "{text}"
    );
}

#[tokio::test]
async fn the_load_tester_drives_it_with_tokens_from_a_file() {
    let db = Database::create().await;
    let authority = Authority::new("tests");
    let (gateway, _files) = secure_gateway(&db, &authority.issue(&["127.0.0.1"])).await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let home = tempfile::tempdir().unwrap();
    let (tokens, root) = (home.path().join("tokens"), home.path().join("root.pem"));
    let ttl = Duration::from_mins(5);
    let lines = [ann, ben].map(|user| token(user.id, ttl)).join("\n");
    fs::write(&tokens, lines).unwrap();
    fs::write(&root, authority.pem()).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher"));
    command
        .args(["load", "--url", &format!("wss://{}", gateway.at)])
        .args(["--session", &session.to_string(), "--root-cert"])
        .arg(&root)
        .arg("--tokens")
        .arg(&tokens)
        .args(
            "--viewers 10 --chatters 2 --rate 2 --warm-up 0.5 --duration 3 --quiet --json -"
                .split(' '),
        )
        .env_clear();
    let output = command.output().await.unwrap();
    let outcome: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let run = outcome["run"]["id"].as_str().unwrap();
    let rows = format!("select count(*) from public.chat_messages where body like 'load {run} %'");
    let rows: i64 = db.one(&rows).await;
    assert!(rows > 0, "{outcome:#}");
    assert_eq!(outcome["messages"]["acknowledged"], rows, "{outcome:#}");
    assert_eq!(outcome["audit"]["lost"], 0, "{outcome:#}");
    assert_eq!(outcome["absent"], 0, "{outcome:#}");
}

#[tokio::test]
async fn who_cannot_shake_hands_is_told_and_counted() {
    let db = Database::create().await;
    let authority = Authority::new("tests");
    let (gateway, _files) = secure_gateway(&db, &authority.issue(&["localhost"])).await;

    let plain = get(gateway.at, "/healthz", &[]).await;
    assert_eq!(plain.status, 400);
    assert!(plain.body.contains("https://"), "{}", plain.body);

    let stranger = Authority::new("another");
    let distrusts = connect(gateway.at, client_config(&stranger, ALL)).await;
    assert!(distrusts.is_err());

    let mut h2 = client_config(&authority, ALL);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(gateway.at, h2).await.is_err());

    let mut garbage = TcpStream::connect(gateway.at).await.unwrap();
    garbage
        .write_all(b"\x16\x03\x01\x40\x00 this is no hello")
        .await
        .unwrap();
    garbage.shutdown().await.unwrap();
    let _ = garbage.read_to_end(&mut Vec::new()).await;

    // Says nothing at all, and is let go.
    let mut silent = TcpStream::connect(gateway.at).await.unwrap();
    let mut scrap = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut scrap))
        .await
        .expect("a client that says nothing is let go")
        .unwrap();

    let at = tunnel(gateway.at, client_config(&authority, ALL)).await;
    let text = get(at, "/metrics", &[]).await.body;
    for (kind, count) in [
        ("not_tls", 1),
        ("refused", 1),
        ("protocol", 1),
        ("timeout", 1),
    ] {
        let line = format!(r#"usher_tls_handshake_failures_total{{kind="{kind}"}} {count}"#);
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_every_byte_once() {
    let authority = Authority::new("tests");
    for versions in [[&version::TLS13], [&version::TLS12]] {
        let (server, mut client) = pair(&authority, &versions).await;
        let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut from = 0;
            let mut stalls = 0;
            while from < sent.len() {
                // Chunks of all sizes, as the fan-out loop has them; the rest of each goes first.
                let to = sent.len().min(from + 1 + (from * 7) % 100_000);
                while from < to {
                    match server.try_write(&sent[from..to]) {
                        Ok(count) => from += count,
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                            stalls += 1;
                            std::future::poll_fn(|cx| server.poll_writable(cx))
                                .await
                                .unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            server.close();
            stalls
        });
        // The client reads late, so that the server fills the socket first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut received = Vec::new();
        // Only a clean TLS end counts: a cut connection is an error here.
        let reading = client.read_to_end(&mut received);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        assert!(received == expected, "{} bytes", received.len());
        assert!(writing.await.unwrap() > 0, "the socket was never full");
    }
}

#[tokio::test]
async fn keys_that_a_client_changes_under_way_are_no_end() {
    let authority = Authority::new("tests");
    let (server, mut client) = pair(&authority, &[&version::TLS13]).await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round; 1_000]).await.unwrap();
        client.flush().await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 1_000 {
            let mut buffer = [0; 300];
            let mut read = tokio::io::ReadBuf::new(&mut buffer);
            std::future::poll_fn(|cx| server.poll_read(cx, &mut read))
                .await
                .unwrap();
            heard.extend_from_slice(read.filled());
        }
        assert_eq!(heard, [round; 1_000]);
        assert_eq!(server.try_write(&[round; 50]).unwrap(), 50);
        let mut answer = [0; 50];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [round; 50]);
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not() {
    let db = Database::create().await;
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = Files::new(&first.issue(&["localhost"]));
    let mut process = Serving::start(&db, &files).await;
    let mut held = connect(process.at, client_config(&first, ALL))
        .await
        .unwrap();

    for bad in [
        Pair {
            key: second.issue(&["localhost"]).key,
            ..second.issue(&["localhost"])
        },
        Pair {
            chain: "not a certificate".into(),
            ..second.issue(&["localhost"])
        },
        second.issue_until(&["localhost"], 2020),
    ] {
        files.replace(&bad);
        process.hang_up();
        process.says("the one before is kept").await;
        assert!(
            connect(process.at, client_config(&first, ALL))
                .await
                .is_ok()
        );
    }

    files.replace(&second.issue(&["localhost"]));
    process.hang_up();
    process.says("serving a new certificate").await;
    assert!(
        connect(process.at, client_config(&second, ALL))
            .await
            .is_ok()
    );
    assert!(
        connect(process.at, client_config(&first, ALL))
            .await
            .is_err()
    );

    // Open connections stay open.
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    held.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // No signal: the gateway reads the files at its interval.
    files.replace(&first.issue(&["localhost"]));
    process.says("serving a new certificate").await;
    assert!(
        connect(process.at, client_config(&first, ALL))
            .await
            .is_ok()
    );
}

async fn secure_gateway(db: &Database, pair: &Pair) -> (Gateway, Files) {
    let files = Files::new(pair);
    let certificate_files = CertificateFiles {
        chain: files.chain.clone(),
        key: files.key.clone(),
    };
    let certificate = certificate_files.load().unwrap();
    let gateway = Gateway::start(db, |config| {
        config.tls = Some((certificate_files, certificate));
    })
    .await;
    (gateway, files)
}

fn client_config(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

async fn connect(at: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    if stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        stream.flush().await?;
    }
    Ok(stream)
}

/// A port where clients without TLS reach a gateway that has it.
async fn tunnel(at: SocketAddr, config: ClientConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let config = config.clone();
            tokio::spawn(async move {
                let mut secure = connect(at, config).await.unwrap();
                let _ = copy_bidirectional(&mut plain, &mut secure).await;
            });
        }
    });
    address
}

/// Both ends of a connection, ours and a client's.
async fn pair(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> (ServerTls, TlsStream<TcpStream>) {
    let files = Files::new(&authority.issue(&["localhost"]));
    let files = CertificateFiles {
        chain: files.chain.clone(),
        key: files.key.clone(),
    }
    .load()
    .map(|first| (files, first))
    .unwrap();
    let (_renewal, config) = Renewal::new(
        CertificateFiles {
            chain: files.0.chain.clone(),
            key: files.0.key.clone(),
        },
        &files.1,
        Arc::new(Metrics::new()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepting = async {
        let (tcp, _) = listener.accept().await.unwrap();
        ServerTls::accept(tcp, config).await.unwrap()
    };
    let (server, client) = tokio::join!(accepting, connect(at, client_config(authority, versions)));
    (server, client.unwrap())
}

/// `usher serve` under TLS, as a process.
struct Serving {
    at: SocketAddr,
    child: Child,
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Serving {
    async fn start(db: &Database, files: &Files) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_usher"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", &db.gateway_url)
            .env("SUPABASE_JWT_SECRET", JWT_SECRET)
            .env("USHER_LISTEN", "127.0.0.1:0")
            .env("USHER_TLS_CERT", &files.chain)
            .env("USHER_TLS_KEY", &files.key)
            .env("USHER_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut serving = Self {
            at: ([127, 0, 0, 1], 0).into(),
            child,
            lines,
        };
        let ready: Value = serde_json::from_str(&serving.says(r#""ready""#).await).unwrap();
        let url = ready["url"].as_str().unwrap();
        let at = url.strip_prefix("https://").unwrap().trim_end_matches('/');
        assert_eq!(ready["socket"], format!("wss://{at}/v1/socket"));
        serving.at = at.parse().unwrap();
        serving
    }

    fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Waits for a line of its log.
    async fn says(&mut self, words: &str) -> String {
        let mut heard = Vec::new();
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                if line.contains(words) {
                    return line;
                }
                heard.push(line);
            }
            panic!("it ended")
        };
        match timeout(PATIENCE, waiting).await {
            Ok(line) => line,
            Err(_) => panic!("it does not say {words}"),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
