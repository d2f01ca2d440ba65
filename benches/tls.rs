//! Measures the memory of an idle TLS socket: the gateway's own `TlsStream` beside tokio-rustls, and TCP alone.
//!
//! `cargo bench --bench tls -- --sockets 2000` starts one server process for each kind of socket. Every client sends 200
//! bytes, receives 2 KiB and stays connected. The result is the growth of the server's resident memory, divided by the
//! number of sockets.

#![expect(clippy::print_stdout, reason = "a bench prints its result")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs::default_provider};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use usher::net::socket::Socket;
use usher::net::socket::tls_stream::TlsStream;

/// The message of a client before it is idle.
const REQUEST: [u8; 200] = [b'q'; 200];

/// The server's answer.
const ANSWER: [u8; 2_048] = [b'a'; 2_048];

/// How long the sockets are idle before the memory is read.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Parser)]
struct Arguments {
    /// Sockets of each kind.
    #[arg(long, default_value_t = 2_000)]
    sockets: u32,
    /// Serve sockets of one kind: what the bench starts.
    #[arg(long, hide = true)]
    serve: Option<Kind>,
    /// The folder of the certificate and its key.
    #[arg(long, hide = true, requires = "serve")]
    folder: Option<PathBuf>,
    /// Cargo passes it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Tcp,
    Own,
    TokioRustls,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Own => "own",
            Self::TokioRustls => "tokio-rustls",
        }
    }
}

/// A process that serves. Dropping it ends it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    if let (Some(kind), Some(folder)) = (arguments.serve, &arguments.folder) {
        return serve(kind, folder).await;
    }
    let folder = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.path().join("chain"), certified.cert.der())?;
    std::fs::write(
        folder.path().join("key"),
        certified.signing_key.serialize_der(),
    )?;
    println!(
        "{:<14}{:>16}{:>18}",
        "kind", "KiB per socket", "above TCP alone"
    );
    let mut tcp = 0.0;
    for kind in [Kind::Tcp, Kind::Own, Kind::TokioRustls] {
        let each = measure(kind, folder.path(), arguments.sockets).await?;
        if kind == Kind::Tcp {
            tcp = each;
        }
        println!("{:<14}{each:>16.2}{:>18.2}", kind.name(), each - tcp);
    }
    Ok(())
}

/// Connects the clients. Returns the server's KiB for each.
async fn measure(kind: Kind, folder: &Path, sockets: u32) -> anyhow::Result<f64> {
    let mut server = Command::new(std::env::current_exe()?);
    server
        .args(["--serve", kind.name(), "--folder"])
        .arg(folder);
    let mut server = Server(server.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    let said = server.0.stdout.take().context("the server's output")?;
    BufReader::new(said).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(folder.join("chain"))?))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    // What the first handshake alone allocates is not a socket's.
    drop(connect(kind, address, &connector).await?);
    tokio::time::sleep(SETTLING).await;
    let before = resident_bytes(&server)?;
    let mut clients = Vec::new();
    for _ in 0..sockets {
        clients.push(connect(kind, address, &connector).await?);
    }
    tokio::time::sleep(SETTLING).await;
    let held = resident_bytes(&server)?.saturating_sub(before);
    Ok(held as f64 / 1_024.0 / f64::from(sockets))
}

fn resident_bytes(server: &Server) -> anyhow::Result<u64> {
    let usage = usher_load::proc::process(server.0.id());
    Ok(usage.context("read the server's memory")?.resident_bytes)
}

/// Becomes an idle client.
async fn connect(
    kind: Kind,
    address: SocketAddr,
    connector: &TlsConnector,
) -> anyhow::Result<Box<dyn Send>> {
    let tcp = TcpStream::connect(address).await?;
    if kind == Kind::Tcp {
        return exchange(tcp).await;
    }
    exchange(
        connector
            .connect(ServerName::try_from("localhost")?, tcp)
            .await?,
    )
    .await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<Box<dyn Send>> {
    stream.write_all(&REQUEST).await?;
    stream.flush().await?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    Ok(Box::new(stream))
}

/// Serves until it is killed.
async fn serve(kind: Kind, folder: &Path) -> anyhow::Result<()> {
    let chain = CertificateDer::from(std::fs::read(folder.join("chain"))?);
    let key = PrivatePkcs8KeyDer::from(std::fs::read(folder.join("key"))?);
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], PrivateKeyDer::from(key))?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (tcp, _) = listener.accept().await?;
        let config = Arc::clone(&config);
        // Boxed, so that every kind pays for its own state alone.
        match kind {
            Kind::Tcp => drop(tokio::spawn(answer(Box::new(tcp)))),
            Kind::Own => drop(tokio::spawn(async move {
                let stream = TlsStream::accept(tcp, config).await?;
                answer(Box::new(Socket::TlsStream(Box::new(stream)))).await
            })),
            Kind::TokioRustls => drop(tokio::spawn(async move {
                let stream = TlsAcceptor::from(config).accept(tcp).await?;
                answer(Box::new(stream)).await
            })),
        }
    }
}

/// Answers once, then reads until the client leaves.
async fn answer(mut stream: Box<impl AsyncRead + AsyncWrite + Unpin>) -> anyhow::Result<()> {
    stream.read_exact(&mut [0; REQUEST.len()]).await?;
    stream.write_all(&ANSWER).await?;
    stream.flush().await?;
    let mut more = [0; 16];
    if stream.read(&mut more).await? > 0 {
        bail!("an idle client says something");
    }
    Ok(())
}
