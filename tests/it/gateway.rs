//! Starts the gateway under test, inside the test's process or as a process that a test can kill.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher::config::Config;
use usher::config::raw::Raw;

use crate::client::{PATIENCE, until};
use crate::database::{Database, JWT_SECRET};
use crate::http::get;
use crate::log::Log;

const RESUME_SECRET: &str = "the resume secret of all tests, 32 bytes or more";

/// A gateway on separate threads, like a separate process. Dropping it is its sudden death; an error that it
/// logged fails the test.
pub(crate) struct Gateway {
    pub(crate) at: SocketAddr,
    runtime: Option<Runtime>,
    serving: JoinHandle<anyhow::Result<()>>,
    shutdown: CancellationToken,
    log: Log,
}

impl Gateway {
    /// Starts one on a free port, with settings adapted; returns when it is ready.
    pub(crate) async fn start(db: &Database, adapt: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(db);
        adapt(&mut config);
        let (log, dispatch) = Log::capture();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            // The guard lives as long as the thread, which is the gateway's alone.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let (ready, address) = oneshot::channel();
        let ready = |address| ready.send(address).unwrap();
        let serving = runtime.spawn(usher::app::serve(config, ready, shutdown.clone()));
        let mut gateway = Self {
            at: ([127, 0, 0, 1], 0).into(),
            runtime: Some(runtime),
            serving,
            shutdown,
            log,
        };
        match tokio::time::timeout(PATIENCE, address).await {
            Ok(Ok(at)) => gateway.at = at,
            Ok(Err(_)) => panic!(
                "the gateway does not start: {:?}",
                (&mut gateway.serving).await
            ),
            Err(_) => panic!("the gateway is not ready within {PATIENCE:?}"),
        }
        gateway
    }

    /// Tells it to stop, without waiting.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops it as a signal would, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(PATIENCE, &mut self.serving).await;
        let stopped = stopped.expect("the gateway does not stop");
        stopped.unwrap().unwrap();
    }

    /// The errors that it logged so far, which a test meant to cause.
    pub(crate) fn take_errors(&mut self) -> String {
        self.log.take_errors()
    }

    /// What it has logged so far.
    pub(crate) fn log(&mut self) -> String {
        self.log.text()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if thread::panicking() {
            eprintln!("--- what the gateway logged:\n{}", self.log.text());
            return;
        }
        let errors = self.log.errors();
        assert!(errors.is_empty(), "the gateway logged errors:\n{errors}");
    }
}

/// `usher serve` as a process, which dies with the test.
pub(crate) struct Process {
    pub(crate) at: SocketAddr,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts one; port 0 takes a free one. Returns when it is ready.
    pub(crate) async fn serve(db: &Database, listen: SocketAddr) -> Self {
        let process = Self::start(db, listen, &[("SUPABASE_JWT_SECRET", JWT_SECRET)]).await;
        until("usher serve is ready", async || {
            get(process.at, "/readyz", &[]).await.status == 200
        })
        .await;
        process
    }

    /// Starts one with these settings, among them how tokens are verified. Returns when it accepts connections.
    pub(crate) async fn start(
        db: &Database,
        listen: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_usher"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", &db.gateway_url)
            .env("USHER_RESUME_SECRET", RESUME_SECRET)
            .env("USHER_LISTEN", listen.to_string())
            .env("USHER_LOG_FORMAT", "json")
            .env("USHER_LIMIT_MESSAGES", "off")
            .env("USHER_REPEAT_SECONDS", "0")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let (bound, mut address) = tokio::sync::mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = event["address"].as_str() {
                    let _ = bound.send(address.parse().unwrap());
                }
                let _ = sender.send(line);
            }
        });
        let mut process = Self {
            at: listen,
            child,
            lines,
        };
        match tokio::time::timeout(PATIENCE, address.recv()).await {
            Ok(Some(at)) => process.at = at,
            _ => panic!("usher serve does not start"),
        }
        process
    }

    /// Its resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        usher_load::proc::process(self.child.id())
            .unwrap()
            .resident_bytes
    }

    /// What it has logged since the last call.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Kills it without a warning, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal; says how it ended.
    pub(crate) fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let lines: Vec<String> = self.lines.try_iter().collect();
        if thread::panicking() {
            eprintln!("--- what the gateway logged:\n{}", lines.join("\n"));
            return;
        }
        let errors = lines
            .iter()
            .filter(|line| line.contains(r#""level":"ERROR""#));
        assert_eq!(errors.count(), 0, "{}", lines.join("\n"));
    }
}

fn config(db: &Database) -> Config {
    #[derive(clap::Parser)]
    struct Settings {
        #[command(flatten)]
        raw: Raw,
    }
    let settings = Settings::parse_from([
        "usher",
        "--database-url",
        &db.gateway_url,
        "--supabase-jwt-secret",
        JWT_SECRET,
        "--resume-secret",
        RESUME_SECRET,
        "--listen",
        "127.0.0.1:0",
        "--fanout-loops",
        "2",
        // A test that is not about limits has none.
        "--limit-messages=off",
        "--limit-moderator-messages=off",
        "--limit-votes=off",
        "--limit-frames=off",
        "--limit-bytes=off",
        "--limit-joins=off",
        "--repeat-seconds=0",
    ]);
    let mut config = Config::from_raw(&settings.raw).unwrap();
    config.drain = Duration::from_secs(1);
    config
}
