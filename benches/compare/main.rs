//! Compares Usher with other servers: the same viewers and the same messages, one server after another.
//!
//! ```text
//! cargo bench --bench compare                                  everything, about 25 minutes
//! cargo bench --bench compare -- --quick --peers usher,ws      a quick run, one minute
//! ```
//!
//! One core runs the server. Another runs the viewers, the publisher and Postgres. `README.md` in this folder describes
//! the measurements and how they are kept fair.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use usher::postgres::migrations;
use usher_devdb::cluster::{Cluster, ClusterOptions};
use uuid::Uuid;

use clock::Clock;
use measure::{Outcome, Plan, measure};
use peers::{Peer, Stage};
use report::Report;
use tools::Tools;

mod clock;
mod crowd;
mod marks;
mod measure;
mod peers;
mod plot;
mod process;
mod publisher;
mod report;
mod serve;
mod tools;

/// Password of the gateway's role in a database that only this machine can reach.
const PASSWORD: &str = "of-the-comparison";

/// Bytes of a message: at least the stamp, at most a chat message.
const MESSAGE_BYTES: RangeInclusive<i64> = 160..=2_000;

/// Compares Usher with its peers on this machine.
#[derive(Parser)]
struct Arguments {
    /// Servers to compare; their order rotates from round to round.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// Viewers of the main crowd.
    #[arg(long, default_value_t = 5_000)]
    viewers: usize,
    /// Viewers of the smaller crowd for the measurement of latency.
    #[arg(long, default_value_t = 1_000)]
    near_viewers: usize,
    /// Messages per second of the steady load.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Seconds to measure each steady load.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Bytes per message.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(MESSAGE_BYTES))]
    bytes: u16,
    /// Rounds; the table has their medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Quick run: 50 viewers, two seconds, one round, no search for saturation. Fails if a message is lost at the steady
    /// rate.
    #[arg(long)]
    quick: bool,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of viewers, publisher and Postgres.
    #[arg(long, default_value_t = 1)]
    generator_core: usize,
    /// Folder for compare.md, compare.json and compare.svg.
    #[arg(long, default_value = "target/compare")]
    out: PathBuf,
    /// Print the JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Draw and write the results again from a compare.json.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Runs this program as a server.
    #[arg(long, hide = true, value_enum)]
    serve: Option<serve::Kind>,
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
    #[arg(long, hide = true, default_value_t = 0)]
    publish_port: u16,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.viewers, arguments.near_viewers) = (50, 20);
        (arguments.seconds, arguments.rounds) = (2, 1);
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if let Some(kind) = arguments.serve {
        return serve::run(kind, arguments.port, arguments.publish_port);
    }
    let out = peers::made(&arguments.out)?;
    let report = match &arguments.from {
        Some(file) => Report::read(file)?,
        None => compare(&arguments, &out)?,
    };
    report.write(&out)?;
    println!(
        "{}",
        if arguments.json {
            report.json()?
        } else {
            report.markdown()
        }
    );
    eprintln!(
        "  written: {}/compare.md, compare.json, compare.svg",
        out.display()
    );
    if arguments.quick {
        report.check()?;
    }
    Ok(())
}

fn compare(arguments: &Arguments, out: &Path) -> anyhow::Result<Report> {
    let plan = Plan {
        viewers: arguments.viewers,
        rate: arguments.rate,
        seconds: arguments.seconds,
        message_bytes: usize::from(arguments.bytes),
        near_viewers: arguments.near_viewers.min(arguments.viewers),
        search: if arguments.quick {
            (100.0, 100.0)
        } else {
            (20.0, 100_000.0)
        },
        warm_up_ms: if arguments.quick { 500 } else { 2_000 },
        generator_core: arguments.generator_core,
        server_core: arguments.server_core,
    };
    let (limit, _) = rlimit::Resource::NOFILE.get()?;
    ensure!(
        limit > plan.viewers as u64 + 200,
        "{} viewers need as many open files, and this machine allows {limit}: ulimit -n, or fewer --viewers",
        plan.viewers
    );
    let tools = Tools::install(out, &arguments.peers)?;
    let mut cores = CpuSet::new();
    cores.set(plan.generator_core);
    sched_setaffinity(None, &cores)
        .context("two cores are needed, one to serve and one to drive")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cluster = runtime.block_on(Cluster::start(ClusterOptions::default()))?;
    let stage = runtime.block_on(prepare(&cluster, tools, out, &plan));
    let outcomes = stage.and_then(|stage| {
        let outcomes = rounds(arguments, &stage, &plan)?;
        Ok(Report::new(plan, outcomes, stage.tools.versions()))
    });
    runtime.block_on(cluster.stop());
    outcomes
}

fn rounds(arguments: &Arguments, stage: &Stage, plan: &Plan) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for round in 0..arguments.rounds {
        let mut order = arguments.peers.clone();
        let turned = round * order.len() / arguments.rounds;
        order.rotate_left(turned);
        for (place, peer) in order.iter().enumerate() {
            eprint!(
                "  round {}/{}  {}/{}  {:<22}",
                round + 1,
                arguments.rounds,
                place + 1,
                order.len(),
                peer.name()
            );
            let measured = measure(*peer, round, stage, plan, |words| eprint!("  {words}"));
            eprintln!();
            match measured {
                Ok(outcome) => outcomes.push(outcome),
                // The results of the other servers are still useful; the table omits this one.
                Err(error) => eprintln!("  {} was not measured: {error:#}", peer.name()),
            }
        }
    }
    ensure!(!outcomes.is_empty(), "nothing was measured");
    Ok(outcomes)
}

/// Prepares a database with Usher's schema and a live session.
async fn prepare(
    cluster: &Cluster,
    tools: Tools,
    out: &Path,
    plan: &Plan,
) -> anyhow::Result<Stage> {
    let superuser_url = cluster.superuser_url();
    let (mut client, connection) =
        tokio_postgres::connect(&superuser_url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    migrations::shim(&mut client).await?;
    migrations::up(&mut client).await?;
    let (session, author) = (Uuid::new_v4(), Uuid::new_v4());
    client
        .batch_execute(&format!(
            "alter role usher_gateway password '{PASSWORD}';
             insert into auth.users (id, aud, role) values ('{author}', 'authenticated', 'authenticated');
             insert into public.movie_sessions (id, streamer_id, title, status)
             values ('{session}', '{author}', 'a comparison', 'live');
             create table socket_io_attachments (
                id bigserial unique, created_at timestamptz default now(), payload bytea
             );"
        ))
        .await?;
    drop(client);
    driver.await??;
    let database = superuser_url
        .rsplit('/')
        .next()
        .context("a database's name")?;
    Ok(Stage {
        tools,
        folder: out.to_owned(),
        gateway_url: cluster.url_for("usher_gateway", PASSWORD, database),
        superuser_url,
        session,
        author,
        server_core: plan.server_core,
        viewers: plan.viewers,
        clock: Clock::start(),
    })
}
