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
use crate::net::admission::access_checks::access_checks;
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
        let mut starter = Starter {
            config,
            store: Store::new(config.database.pool(config.pool_size)),
            metrics: Arc::new(Metrics::new()),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        let Loops {
            loops,
            subscribers,
            changed_votings,
        } = starter.fan_out();
        let database = starter.watch_database();
        let rate_limits = starter.rate_limits();
        let writes = starter.writes(&subscribers, &rate_limits);
        let is_listening = starter.listen(subscribers, changed_votings);
        let keyring = starter.keyring();
        let queries = starter.queries(&loops);
        let tls = starter.tls();
        let metrics = starter.metrics;
        let shutdown = Arc::new(Shutdown::new(config.drain));
        let permits = Arc::new(Semaphore::new(config.connections_max));
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
            tls,
            handshake,
            connections,
            routes,
        };
        Self {
            acceptor,
            readiness,
            shutdown,
            metrics,
            tasks: starter.tasks,
            stop_listening: starter.stop,
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

/// The fan-out loops and the senders of the listener.
struct Loops {
    loops: Arc<FanoutLoops>,
    subscribers: Vec<mpsc::Sender<Arc<ListenEvent>>>,
    changed_votings: mpsc::Sender<Vec<VotingId>>,
}

/// Starts tasks of the gateway.
struct Starter<'a> {
    config: &'a Config,
    store: Store,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Starter<'_> {
    /// Starts the fan-out loops and the reader of counts that they share.
    fn fan_out(&mut self) -> Loops {
        let viewer_counts = Arc::new(ViewerCounts::default());
        let (changed_votings, changed) = mpsc::channel(HEARD_QUEUE_LEN);
        let (recount, recounts) = mpsc::channel(HEARD_QUEUE_LEN);
        let (mut senders, mut subscribers, mut pulses) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.config.fanout_loops {
            let (subscriber, heard) = mpsc::channel(HEARD_QUEUE_LEN);
            let (sender, commands) = mpsc::channel(COMMAND_QUEUE_LEN);
            let pulse = Arc::new(Pulse::new(moment()));
            let fanout = Fanout::new(
                self.config.ring_events,
                Arc::clone(&viewer_counts),
                self.store.clone(),
                recount.clone(),
                Arc::clone(&self.metrics),
                Arc::clone(&pulse),
            );
            pulses.push(pulse);
            self.tasks.spawn(fanout.run(heard, commands));
            senders.push(sender);
            subscribers.push(subscriber);
        }
        let loops = Arc::new(FanoutLoops::new(senders, pulses));
        let reader = TallyReader {
            conflation: Conflation::new(Duration::from_secs(1) / self.config.tally_hz),
            changed,
            recounts,
            store: self.store.clone(),
            loops: Arc::clone(&loops),
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(reader.run(self.stop.clone()));
        Loops {
            loops,
            subscribers,
            changed_votings,
        }
    }

    /// Starts the readiness checks of the database, and its maintenance.
    fn watch_database(&mut self) -> watch::Receiver<DatabaseState> {
        let (looked, database) = watch::channel(DatabaseState::default());
        let watching = readiness::watch_database(self.store.clone(), looked, self.stop.clone());
        self.tasks.spawn(watching);
        let maintenance = Maintenance {
            store: self.store.clone(),
            age_max: self.config.log_retention,
            events_max: self.config.log_retention_events,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(maintenance.run(self.stop.clone()));
        database
    }

    fn listen(
        &mut self,
        subscribers: Vec<mpsc::Sender<Arc<ListenEvent>>>,
        changed_votings: mpsc::Sender<Vec<VotingId>>,
    ) -> watch::Receiver<bool> {
        let (listening, is_listening) = watch::channel(false);
        let listener = Listener {
            target: self.config.listen_database.clone(),
            store: self.store.clone(),
            subscribers,
            changed_votings,
            is_listening: listening,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(listener.run(self.stop.clone()));
        is_listening
    }

    fn rate_limits(&mut self) -> Arc<RateLimits> {
        let rate_limits = Arc::new(RateLimits::new(&self.config.rates));
        self.tasks
            .spawn(Arc::clone(&rate_limits).sweep(self.stop.clone()));
        rate_limits
    }

    fn keyring(&mut self) -> Keyring {
        let (keyring, refresher) = Keyring::new(&self.config.token_keys, clock::unix_seconds);
        if let Some(refresher) = refresher {
            let metrics = Arc::clone(&self.metrics);
            self.tasks.spawn(refresher.run(metrics, self.stop.clone()));
        }
        keyring
    }

    fn writes(
        &mut self,
        subscribers: &[mpsc::Sender<Arc<ListenEvent>>],
        rate_limits: &Arc<RateLimits>,
    ) -> Writes {
        let (writer, batchers) =
            batcher::batchers(&self.store, Bounds::default(), subscribers, &self.metrics);
        self.tasks.spawn(batchers.run());
        Writes::new(writer, Arc::clone(rate_limits), Arc::clone(&self.metrics))
    }

    fn queries(&mut self, loops: &Arc<FanoutLoops>) -> Queries {
        let (access_checks, checker) = access_checks(
            self.store.clone(),
            Arc::clone(loops),
            Arc::clone(&self.metrics),
        );
        self.tasks.spawn(checker.run(self.stop.clone()));
        Queries {
            admissions: AdmissionQueries::new(self.store.clone(), Arc::clone(&self.metrics)),
            access_checks,
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Returns the TLS configuration if there is a certificate, and starts its renewal.
    fn tls(&mut self) -> Option<Arc<rustls::ServerConfig>> {
        let (files, first) = self.config.tls.as_ref()?;
        let (renewal, tls) = Renewal::new(files.clone(), first, Arc::clone(&self.metrics));
        self.tasks.spawn(renewal.run(self.stop.clone()));
        Some(tls)
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
