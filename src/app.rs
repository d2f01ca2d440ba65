//! The gateway: builds its parts in order and stops them in reverse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::causes::with_causes;
use crate::clock::{self, moment};
use crate::config::Config;
use crate::http;
use crate::http::state::Api;
use crate::keyring::Keyring;
use crate::limits::{COMMAND_QUEUE_LEN, HEARD_QUEUE_LEN, STOP_TIMEOUT};
use crate::metrics::Metrics;
use crate::net::accept::handshake_auth::HandshakeContext;
use crate::net::accept::tls::Renewal;
use crate::net::accept::{self, Acceptor};
use crate::net::admission::access_checks::{AccessChecks, access_checks};
use crate::net::admission::rate_limits::RateLimits;
use crate::net::admission::singleflight::AdmissionQueries;
use crate::net::connection::ConnectionContext;
use crate::net::fanout::Fanout;
use crate::net::fanout::loops::{FanoutLoops, Pulse};
use crate::net::fanout::tally_reader::TallyReader;
use crate::net::fanout::viewer_counts::ViewerCounts;
use crate::net::maintenance::Maintenance;
use crate::net::queries::Queries;
use crate::net::readiness::{self, DatabaseState, Readiness};
use crate::net::shutdown::Shutdown;
use crate::net::writes::Writes;
use crate::postgres::batcher;
use crate::postgres::listener::{ListenEvent, Listener};
use crate::postgres::store::Store;
use usher_core::protocol::id::VotingId;
use usher_core::relay::peer_context::Rules;
use usher_core::relay::resume::ResumeKey;
use usher_core::relay::tally::Conflation;
use usher_core::relay::write_queue::Bounds;

/// Serves until `shutdown`. Calls `ready` with the address once the gateway can accept a viewer.
///
/// # Errors
/// The address is not available, or a task of the gateway fails.
pub async fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let listener = accept::bind(config.listen)?;
    let address = listener.local_addr().context("ask for the address")?;
    let mut parts = Parts::build(&config);
    let mut is_listening = parts.readiness.is_listening.clone();
    let mut database = parts.readiness.database.clone();
    let mut keyring = parts.readiness.keyring.clone();
    parts
        .tasks
        .spawn(accept::run(listener, parts.acceptor.clone()));
    info!(%address, "accepting connections");

    let mut ready = Some(ready);
    let failure = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break None,
            Some(ended) = parts.tasks.join_next() => break Some(ended),
            () = wait_until_ready(&mut is_listening, &mut database, &mut keyring), if ready.is_some() => {
                if let Some(ready) = ready.take() {
                    ready(address);
                }
            }
        }
    };
    parts.stop().await;
    match failure {
        None => Ok(()),
        Some(Ok(())) => bail!("a task of the gateway ended before the shutdown"),
        Some(Err(error)) => Err(error).context("a task of the gateway failed"),
    }
}

/// Waits until the database is migrated, LISTEN receives, and the keyring can verify tokens. Cancel-safe: changes nothing.
async fn wait_until_ready(
    is_listening: &mut watch::Receiver<bool>,
    database: &mut watch::Receiver<DatabaseState>,
    keyring: &mut Keyring,
) {
    let found = database
        .wait_for(|database| database.is_migrated)
        .await
        .is_ok()
        && is_listening
            .wait_for(|is_listening| *is_listening)
            .await
            .is_ok()
        && keyring.wait_for_keys().await;
    if !found {
        // The senders are gone, together with the gateway.
        std::future::pending::<()>().await;
    }
}

/// The parts of a running gateway.
struct Parts {
    acceptor: Acceptor,
    readiness: Arc<Readiness>,
    shutdown: Arc<Shutdown>,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
    stop_listening: CancellationToken,
}

impl Parts {
    fn build(config: &Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store = Store::new(config.database.pool(config.pool_size));
        let (listening, is_listening) = watch::channel(false);
        let stop_listening = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let Loops {
            loops,
            subscribers,
            changed_votings,
        } = spawn_loops(config, &store, &metrics, &mut tasks, &stop_listening);
        let (writer, batchers) =
            batcher::batchers(&store, Bounds::default(), &subscribers, &metrics);
        tasks.spawn(batchers.run());
        let (looked, database) = watch::channel(DatabaseState::default());
        tasks.spawn(readiness::watch_database(
            store.clone(),
            looked,
            stop_listening.clone(),
        ));
        let maintenance = Maintenance {
            store: store.clone(),
            age_max: config.log_retention,
            events_max: config.log_retention_events,
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(maintenance.run(stop_listening.clone()));
        let listener = Listener {
            target: config.listen_database.clone(),
            store: store.clone(),
            subscribers,
            changed_votings,
            is_listening: listening,
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(listener.run(stop_listening.clone()));
        let rate_limits = Arc::new(RateLimits::new(&config.rates));
        tasks.spawn(Arc::clone(&rate_limits).sweep(stop_listening.clone()));
        let (keyring, refresher) = Keyring::new(&config.token_keys, clock::unix_seconds);
        if let Some(refresher) = refresher {
            tasks.spawn(refresher.run(Arc::clone(&metrics), stop_listening.clone()));
        }
        let shutdown = Arc::new(Shutdown::new(config.drain));
        let permits = Arc::new(Semaphore::new(config.connections_max));
        let queries = Queries {
            admissions: AdmissionQueries::new(store.clone(), Arc::clone(&metrics)),
            access_checks: spawn_checker(&store, &loops, &metrics, &mut tasks, &stop_listening),
            store,
            metrics: Arc::clone(&metrics),
        };
        let writes = Writes::new(writer, Arc::clone(&rate_limits), Arc::clone(&metrics));
        let handshake = Arc::new(HandshakeContext {
            keyring: keyring.clone(),
            allowed_origins: config.allowed_origins.clone(),
            rate_limits,
            permits: Arc::clone(&permits),
            shutdown: Arc::clone(&shutdown),
            metrics: Arc::clone(&metrics),
        });
        let connections = Arc::new(ConnectionContext {
            rules: Arc::new(rules(config)),
            rates: config.rates.clone(),
            keyring: keyring.clone(),
            queries: Arc::new(queries),
            writes: Arc::new(writes),
            loops: Arc::clone(&loops),
            shutdown: Arc::clone(&shutdown),
            metrics: Arc::clone(&metrics),
        });
        let readiness = Arc::new(Readiness {
            database,
            is_listening,
            keyring,
            loops,
            permits,
            shutdown: Arc::clone(&shutdown),
        });
        let routes = http::routes(Api {
            handshake: Arc::clone(&handshake),
            connections: Arc::clone(&connections),
            readiness: Arc::clone(&readiness),
        });
        let acceptor = Acceptor {
            tls: spawn_renewal(config, &metrics, &mut tasks, &stop_listening),
            handshake,
            connections,
            routes,
        };
        Self {
            acceptor,
            readiness,
            shutdown,
            metrics,
            tasks,
            stop_listening,
        }
    }

    /// Stops the connections first, then the tasks that serve them, then the tasks below those.
    async fn stop(mut self) {
        let shutdown = self.shutdown;
        let connections = u64::try_from(self.metrics.connections.get()).unwrap_or(0);
        let leave = shutdown.begin(connections);
        info!(connections, over_ms = shutdown.leave_ms(), "stopping");
        if tokio::time::timeout(leave + STOP_TIMEOUT, shutdown.tasks.wait())
            .await
            .is_err()
        {
            warn!(
                connections = shutdown.tasks.len(),
                "some connections did not end in time"
            );
        }
        self.stop_listening.cancel();
        // A fan-out loop ends with its last sender.
        drop((self.acceptor, self.readiness));
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    error!(error = with_causes(&error), "a task of the gateway failed");
                }
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            // A bug of ours: every task has an owner that ends it.
            error!(parts = self.tasks.len(), "some tasks did not end in time");
            self.tasks.abort_all();
        }
    }
}

/// Returns the TLS configuration if there is a certificate, and starts its renewal.
fn spawn_renewal(
    config: &Config,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<Arc<rustls::ServerConfig>> {
    let (files, first) = config.tls.as_ref()?;
    let (renewal, tls) = Renewal::new(files.clone(), first, Arc::clone(metrics));
    tasks.spawn(renewal.run(stop.clone()));
    Some(tls)
}

/// Starts the repeated access checks.
fn spawn_checker(
    store: &Store,
    loops: &Arc<FanoutLoops>,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> AccessChecks {
    let (checks, checker) = access_checks(store.clone(), Arc::clone(loops), Arc::clone(metrics));
    tasks.spawn(checker.run(stop.clone()));
    checks
}

/// The fan-out loops and the senders of the listener.
struct Loops {
    loops: Arc<FanoutLoops>,
    subscribers: Vec<mpsc::Sender<Arc<ListenEvent>>>,
    changed_votings: mpsc::Sender<Vec<VotingId>>,
}

/// Starts the fan-out loops and the reader of counts that they share.
fn spawn_loops(
    config: &Config,
    store: &Store,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Loops {
    let viewer_counts = Arc::new(ViewerCounts::default());
    let (changed_votings, changed) = mpsc::channel(HEARD_QUEUE_LEN);
    let (recount, recounts) = mpsc::channel(HEARD_QUEUE_LEN);
    let (mut senders, mut subscribers, mut pulses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..config.fanout_loops {
        let (subscriber, heard) = mpsc::channel(HEARD_QUEUE_LEN);
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE_LEN);
        let pulse = Arc::new(Pulse::new(moment()));
        let fanout = Fanout::new(
            config.ring_events,
            Arc::clone(&viewer_counts),
            store.clone(),
            recount.clone(),
            Arc::clone(metrics),
            Arc::clone(&pulse),
        );
        pulses.push(pulse);
        tasks.spawn(fanout.run(heard, commands));
        senders.push(sender);
        subscribers.push(subscriber);
    }
    let loops = Arc::new(FanoutLoops::new(senders, pulses));
    let reader = TallyReader {
        conflation: Conflation::new(Duration::from_secs(1) / config.tally_hz),
        changed,
        recounts,
        store: store.clone(),
        loops: Arc::clone(&loops),
        metrics: Arc::clone(metrics),
    };
    tasks.spawn(reader.run(stop.clone()));
    Loops {
        loops,
        subscribers,
        changed_votings,
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        resume_key: ResumeKey::new(config.resume_secret.expose_secret().as_bytes()),
        resume_ttl: config.resume_ttl,
        heartbeat: config.heartbeat,
        allow_anonymous: config.is_anonymous_allowed,
        access_check: config.access_check,
    }
}
