//! Outcomes for tests.

use crate::audit::Audit;
use crate::interval::{Spread, Times, WriteCounts};
use crate::outcome::{
    Outcome, Recovered, Resources, Run, SearchOutcome, SearchStep, StormOutcome, Tick, Verdict,
};

/// Returns a good run of 1,000 viewers.
pub(crate) fn outcome() -> Outcome {
    let mut times = Times::default();
    for us in 1..10_000_u64 {
        times.record(800 + us * us / 4_000);
    }
    let lateness = Spread {
        p50_ms: 0.08,
        p99_ms: 0.4,
        ..times.spread().unwrap()
    };
    Outcome {
        format: 1,
        run: run(),
        verdict: Verdict::default(),
        latency: times.spread(),
        latency_curve: times.curve(),
        latency_bars: times.bars(48),
        ack: times.spread(),
        vote_ack: None,
        insert: None,
        connect: times.spread(),
        join: times.spread(),
        audit: Audit {
            received: 640_000,
            ..Audit::default()
        },
        expected: 640_000,
        deliveries_per_second: 20_000.0,
        bytes: 291_000_000,
        frames: 512_345,
        messages: WriteCounts {
            due: 640,
            sent: 640,
            acknowledged: 640,
            ..WriteCounts::default()
        },
        votes: WriteCounts::default(),
        closes: [].into(),
        failures: [].into(),
        absent: 0,
        storm: None,
        slow: None,
        search: None,
        resources: Resources {
            generator_busy: 0.31,
            generator_cores: 0.33,
            generator_lateness: Some(lateness),
            generator_kib_per_viewer: Some(1.4),
            gateway_cores: Some(0.42),
            gateway_us_per_delivery: Some(6.3),
            gateway_mib: Some(19.0),
            gateway_kib_per_viewer: Some(3.9),
            machine_busy: Some(0.48),
            limited_by: "nothing: there was spare capacity".to_owned(),
        },
        timeline: (1..=36).map(tick).collect(),
    }
}

/// Returns the same run with a storm and a search, so that the report has every plot.
pub(crate) fn outcome_with_everything() -> Outcome {
    let step = |rate: f64, p99_ms: f64| SearchStep {
        rate,
        offered: rate * 1_000.0,
        delivered: rate * 1_000.0,
        p50_ms: p99_ms / 3.0,
        p99_ms,
        is_good: p99_ms <= 250.0,
        reason: (p99_ms > 250.0).then(|| format!("p99 was {p99_ms:.0} ms")),
        generator_busy: 0.5,
        gateway_cores: Some(0.9),
    };
    Outcome {
        storm: Some(StormOutcome {
            at_seconds: 20.0,
            dropped: 500,
            whole: 500,
            recovery: outcome().join,
            curve: (1..=20)
                .map(|point: u32| Recovered {
                    ms: f64::from(point) * 40.0,
                    whole: u64::from(point) * 25,
                })
                .collect(),
        }),
        search: Some(SearchOutcome {
            bound_ms: 250.0,
            steps: vec![
                step(20.0, 9.0),
                step(30.0, 14.0),
                step(45.0, 60.0),
                step(67.5, 900.0),
                step(55.1, 210.0),
            ],
            knee_rate: Some(55.1),
            knee_deliveries: Some(55_100.0),
            limited_by: "the gateway's CPU; p99 was 900 ms".to_owned(),
        }),
        ..outcome()
    }
}

fn run() -> Run {
    Run {
        command: "usher load --dev ready.json --database-url '***'".to_owned(),
        id: "0a1b2c3d".to_owned(),
        started_at: 1_790_000_000,
        version: "0.1.0".to_owned(),
        server: "usher/0.1.0".to_owned(),
        target: "ws://127.0.0.1:4000/v1/socket".to_owned(),
        cores: 2,
        system: "linux 6.1".to_owned(),
        sessions: 1,
        viewers: 1_000,
        chatters: 40,
        rate: 20.0,
        message_characters: 120,
        written_by: "gateway",
        ramp: 500.0,
        warm_up_seconds: 2.0,
        measured_seconds: 30.0,
        threads: 1,
        addresses: 1,
        ..Run::default()
    }
}

fn tick(second: u32) -> Tick {
    let phase = match second {
        0..=2 => "joining",
        3..=4 => "warming",
        _ => "measuring",
    };
    let wave = f64::from(second % 7);
    Tick {
        at_seconds: second.into(),
        phase,
        watching: u64::from(second.min(2)) * 500,
        sent: 20.0,
        deliveries: 20_000.0 + 90.0 * wave,
        bytes: 9_000_000.0,
        p50_ms: (second > 4).then_some(4.0 + wave / 5.0),
        p99_ms: (second > 4).then_some(9.0 + wave),
        max_ms: (second > 4).then_some(14.0 + 2.0 * wave),
        lost: 0,
        generator_busy: 0.3,
        gateway_cores: Some(0.42),
        gateway_mib: Some(19.0),
        machine_busy: Some(0.5),
    }
}
