//! Simulates the core under random failures. A seed makes each run repeatable.
//!
//! Routers, peers, tokens and frames are the real ones. The database, the network, the gateways and the clients are
//! models made of queues. Every link between two parts has its own random delay: commits, notifications, the steps of a
//! query (asked, read, answered), commands, replies, and bytes on a socket. The clients decode the frames that arrive
//! and compare them with the committed events.
//!
//! ```text
//! cargo test -p usher-core --test sim                                a budget of a few seconds
//! USHER_SIM_RUNS=100000 cargo test -p usher-core --release --test sim
//! USHER_SIM_SEED=7 cargo test -p usher-core --test sim -- --nocapture    one run, told step by step
//! ```

mod client;
mod database;
mod dice;
mod gateway;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use usher_core::relay::peer_context::Rules;
use usher_core::relay::resume::ResumeKey;

use crate::world::World;

/// Runs of the default test: about five seconds in a debug build on an idle core.
const RUNS_DEFAULT: u64 = 400;

#[test]
fn no_event_is_lost_duplicated_or_out_of_order() {
    let set = Settings::read();
    let mut recovered = 0;
    match set.seed {
        Some(seed) => {
            let outcome = run(seed, set.steps, true);
            assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err().why);
        }
        None => {
            for seed in set.from..set.from + set.runs {
                match run(seed, None, false) {
                    Ok(count) => recovered += count,
                    Err(failure) if set.keeps_going => eprintln!("seed {seed}: {}", failure.why),
                    Err(failure) => fail(seed, &failure),
                }
            }
            assert!(
                recovered > 0 || set.runs < 100,
                "no run ever recovered a position"
            );
        }
    }
}

/// Finds the shortest failing run of the seed, and prints how to repeat it.
#[expect(clippy::panic, reason = "a test fails by it")]
fn fail(seed: u64, failure: &Failure) -> ! {
    let shortest =
        (0..failure.steps).find_map(|steps| Some((steps, run(seed, Some(steps), false).err()?)));
    let (steps, why) = shortest.map_or((failure.steps, failure.why.clone()), |(steps, shorter)| {
        (steps, shorter.why)
    });
    panic!(
        "{why}\n\nto see it: USHER_SIM_SEED={seed} USHER_SIM_STEPS={steps} cargo test -p usher-core --test sim -- --nocapture"
    );
}

struct Failure {
    steps: usize,
    why: String,
}

fn run(seed: u64, steps: Option<usize>, trace: bool) -> Result<u32, Failure> {
    let rules = Rules {
        resume_key: ResumeKey::new(&[7; 32]),
        resume_ttl: Duration::from_secs(4),
        heartbeat: Duration::from_secs(25),
        allow_anonymous: true,
        access_check: Duration::from_secs(3),
    };
    let mut world = World::new(seed, steps, Arc::new(rules), start(), trace);
    // A failed assertion of the core is a failure like any other.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let steps = world.steps();
    match outcome {
        Ok(Ok(())) => Ok(world.recovered()),
        Ok(Err(why)) => Err(Failure { steps, why }),
        Err(_) => Err(Failure {
            steps,
            why: "an assertion failed, see above".to_owned(),
        }),
    }
}

struct Settings {
    seed: Option<u64>,
    steps: Option<usize>,
    from: u64,
    runs: u64,
    keeps_going: bool,
}

impl Settings {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no other way to get settings"
    )]
    fn read() -> Self {
        let number = |name| {
            std::env::var(name)
                .ok()
                .map(|text: String| text.parse().expect("a number"))
        };
        Self {
            seed: number("USHER_SIM_SEED"),
            steps: number("USHER_SIM_STEPS").map(|steps| usize::try_from(steps).expect("a number")),
            from: number("USHER_SIM_FROM").unwrap_or(0),
            runs: number("USHER_SIM_RUNS").unwrap_or(RUNS_DEFAULT),
            keeps_going: std::env::var("USHER_SIM_KEEP_GOING").is_ok(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant has no other constructor"
)]
fn start() -> Instant {
    Instant::now()
}
