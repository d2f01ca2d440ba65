//! Chooses the plots of a report and writes their captions.

use crate::outcome::{Outcome, SearchOutcome, SearchStep, StormOutcome, Tick};
use crate::plot::{Axis, Layer, Plot};
use crate::table::{digits, ms, number, rounded, whole};

/// A plot with its title and caption.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) words: String,
    pub(crate) plot: Plot,
    /// Classes of lines, with their names.
    pub(crate) legend: Vec<(&'static str, &'static str)>,
    pub(crate) is_wide: bool,
}

/// Returns the plots that the run has data for.
pub(crate) fn all(outcome: &Outcome) -> Vec<Chart> {
    let mut charts = Vec::new();
    charts.extend(outcome.search.as_ref().and_then(knee));
    charts.extend(percentiles(outcome));
    charts.extend(histogram(outcome));
    if !outcome.timeline.is_empty() {
        charts.extend(latency_over_time(outcome));
        charts.push(deliveries_over_time(outcome));
    }
    charts.extend(outcome.storm.as_ref().and_then(recovery));
    charts
}

fn percentiles(outcome: &Outcome) -> Option<Chart> {
    let latency = outcome.latency.as_ref()?;
    let nines = |quantile: f64| -(1.0 - quantile).max(1e-9).log10();
    let points: Vec<(f64, f64)> = outcome
        .latency_curve
        .iter()
        .map(|point| (nines(point.quantile), point.ms))
        .collect();
    let last = points.last()?.0;
    let mut x = Axis::linear("percentile of deliveries", 0.0, last);
    let known = [
        (0.5, "50"),
        (0.9, "90"),
        (0.99, "99"),
        (0.999, "99.9"),
        (0.9999, "99.99"),
        (0.99999, "99.999"),
    ];
    x.ticks = known
        .iter()
        .map(|(quantile, name)| (nines(*quantile), format!("{name} %")))
        .filter(|(place, _)| *place <= last * 1.001)
        .collect();
    let marks = [
        ("p50", 0.5, latency.p50_ms),
        ("p90", 0.9, latency.p90_ms),
        ("p99", 0.99, latency.p99_ms),
        ("p99.9", 0.999, latency.p999_ms),
    ];
    let dots = marks
        .iter()
        .filter(|(_, quantile, _)| nines(*quantile) <= last)
        .map(|(name, quantile, at)| (nines(*quantile), *at, format!("{name}: {}", ms(*at))))
        .collect();
    Some(Chart {
        title: "Latency by percentile",
        words: format!(
            "Half of {} deliveries took up to {}, 99 % up to {}, and the slowest {}.",
            number(latency.count),
            ms(latency.p50_ms),
            ms(latency.p99_ms),
            ms(latency.max_ms)
        ),
        plot: Plot {
            x,
            y: Axis::log("milliseconds", latency.min_ms * 0.9, latency.max_ms * 1.1),
            layers: vec![
                Layer::Area {
                    class: "a",
                    points: points.clone(),
                },
                Layer::Line {
                    class: "a",
                    name: "latency",
                    points,
                },
                Layer::Dots { class: "a", dots },
            ],
        },
        legend: vec![],
        is_wide: false,
    })
}

fn histogram(outcome: &Outcome) -> Option<Chart> {
    let latency = outcome.latency.as_ref()?;
    let (first, last) = (outcome.latency_bars.first()?, outcome.latency_bars.last()?);
    let highest = outcome.latency_bars.iter().map(|bar| bar.count).max()?;
    let bars = outcome
        .latency_bars
        .iter()
        .filter(|bar| bar.count > 0)
        .map(|bar| {
            let words = format!(
                "{} to {}: {}",
                digits(bar.from_ms),
                ms(bar.to_ms),
                number(bar.count)
            );
            (bar.from_ms, bar.to_ms, bar.count as f64, words)
        })
        .collect();
    Some(Chart {
        title: "Latency histogram",
        words: "The number of deliveries by latency. The time axis is logarithmic, so that the slow deliveries are visible.".to_owned(),
        plot: Plot {
            x: Axis::log("milliseconds", first.from_ms, last.to_ms),
            y: Axis::linear("deliveries", 0.0, highest as f64 * 1.08),
            layers: vec![
                Layer::Bars { class: "a", bars },
                Layer::Upright { x: latency.p99_ms, name: format!("p99 {}", ms(latency.p99_ms)) },
            ],
        },
        legend: vec![],
        is_wide: false,
    })
}

fn latency_over_time(outcome: &Outcome) -> Option<Chart> {
    let measured: Vec<&Tick> = outcome
        .timeline
        .iter()
        .filter(|tick| tick.p50_ms.is_some())
        .collect();
    let series = |of: fn(&Tick) -> Option<f64>| -> Vec<(f64, f64)> {
        measured
            .iter()
            .filter_map(|tick| Some((tick.at_seconds, of(tick)?)))
            .collect()
    };
    let (p50, p99, max) = (
        series(|tick| tick.p50_ms),
        series(|tick| tick.p99_ms),
        series(|tick| tick.max_ms),
    );
    let low = p50
        .iter()
        .map(|point| point.1)
        .fold(f64::INFINITY, f64::min);
    let high = max.iter().map(|point| point.1).fold(0.0, f64::max);
    if p50.is_empty() {
        return None;
    }
    let mut layers = spans(outcome);
    layers.extend([
        Layer::Line {
            class: "c",
            name: "slowest",
            points: max,
        },
        Layer::Line {
            class: "b",
            name: "99th percentile",
            points: p99,
        },
        Layer::Line {
            class: "a",
            name: "median",
            points: p50,
        },
    ]);
    layers.extend(events(outcome));
    Some(Chart {
        title: "Latency over time",
        words: "The latency of the deliveries of each second. A healthy gateway draws flat lines."
            .to_owned(),
        plot: Plot {
            x: time(outcome),
            y: Axis::log("milliseconds", low * 0.8, high * 1.25),
            layers,
        },
        legend: vec![("a", "median"), ("b", "99th percentile"), ("c", "slowest")],
        is_wide: true,
    })
}

fn deliveries_over_time(outcome: &Outcome) -> Chart {
    let points: Vec<(f64, f64)> = outcome
        .timeline
        .iter()
        .map(|tick| (tick.at_seconds, tick.deliveries))
        .collect();
    let run = &outcome.run;
    // Slow readers read nothing during the measurement, so no delivery to them is due.
    let readers = run.viewers.saturating_sub(run.slow_readers);
    let due = run.rate * f64::from(readers) / run.sessions.max(1) as f64;
    let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut layers = spans(outcome);
    layers.extend([
        Layer::Area {
            class: "a",
            points: points.clone(),
        },
        Layer::Line {
            class: "a",
            name: "deliveries",
            points,
        },
    ]);
    let words = if outcome.search.is_some() {
        "Events that arrived in each second, while the search raised the rate.".to_owned()
    } else {
        layers.push(Layer::Across {
            y: due,
            name: format!("due: {}/s", number(whole(due))),
        });
        format!(
            "Events that arrived in each second; {}/s were due in the measured time.",
            number(whole(due))
        )
    };
    layers.extend(events(outcome));
    let top = if outcome.search.is_some() {
        highest
    } else {
        highest.max(due)
    };
    Chart {
        title: "Deliveries over time",
        words,
        plot: Plot {
            x: time(outcome),
            y: Axis::linear("deliveries/s", 0.0, top * 1.18),
            layers,
        },
        legend: vec![],
        is_wide: true,
    }
}

fn knee(search: &SearchOutcome) -> Option<Chart> {
    let mut steps: Vec<&SearchStep> = search
        .steps
        .iter()
        .filter(|step| step.p99_ms.is_finite())
        .collect();
    steps.sort_by(|one, other| one.offered.total_cmp(&other.offered));
    let (first, last) = (steps.first()?, steps.last()?);
    let low = steps
        .iter()
        .map(|step| step.p50_ms)
        .fold(f64::INFINITY, f64::min);
    let high = steps
        .iter()
        .map(|step| step.p99_ms)
        .fold(search.bound_ms, f64::max);
    let knee = steps
        .iter()
        .find(|step| Some(step.rate) == search.knee_rate);
    let words = match knee {
        Some(step) => format!(
            "Up to {} deliveries per second ({} messages) the 99th percentile stays within {}. The search ended at: {}.",
            number(whole(step.offered)),
            rounded(step.rate),
            ms(search.bound_ms),
            search.limited_by
        ),
        None => format!(
            "The gateway served no rate within {}: {}.",
            ms(search.bound_ms),
            search.limited_by
        ),
    };
    Some(Chart {
        title: "Highest rate within the bound",
        words,
        plot: Plot {
            x: Axis::log(
                "deliveries/s that were due",
                first.offered * 0.9,
                last.offered * 1.1,
            ),
            y: Axis::log("milliseconds", low * 0.8, high * 1.3),
            layers: knee_layers(search, &steps),
        },
        legend: vec![
            ("a", "median"),
            ("b", "99th percentile"),
            ("good", "within the bound"),
            ("bad", "above the bound"),
        ],
        is_wide: true,
    })
}

fn knee_layers(search: &SearchOutcome, steps: &[&SearchStep]) -> Vec<Layer> {
    let dots = |is_good: bool| -> Vec<(f64, f64, String)> {
        let fitting = steps.iter().filter(|step| step.is_good == is_good);
        let words = |step: &SearchStep| {
            format!("{} messages/s: p99 {}", rounded(step.rate), ms(step.p99_ms))
        };
        fitting
            .map(|step| (step.offered, step.p99_ms, words(step)))
            .collect()
    };
    let mut layers = vec![
        Layer::Line {
            class: "a",
            name: "median",
            points: steps
                .iter()
                .map(|step| (step.offered, step.p50_ms))
                .collect(),
        },
        Layer::Line {
            class: "b",
            name: "99th percentile",
            points: steps
                .iter()
                .map(|step| (step.offered, step.p99_ms))
                .collect(),
        },
        Layer::Dots {
            class: "good",
            dots: dots(true),
        },
        Layer::Dots {
            class: "bad",
            dots: dots(false),
        },
        Layer::Across {
            y: search.bound_ms,
            name: format!("bound {}", ms(search.bound_ms)),
        },
    ];
    let knee = steps
        .iter()
        .find(|step| Some(step.rate) == search.knee_rate);
    layers.extend(knee.map(|step| Layer::Upright {
        x: step.offered,
        name: format!("{}/s", number(whole(step.offered))),
    }));
    layers
}

fn recovery(storm: &StormOutcome) -> Option<Chart> {
    let last = storm.curve.last()?;
    let mut points = vec![(0.0, 0.0)];
    points.extend(
        storm
            .curve
            .iter()
            .map(|point| (point.ms, point.whole as f64)),
    );
    let spread = storm.recovery.as_ref()?;
    Some(Chart {
        title: "Recovery from the storm",
        words: format!(
            "{} viewers dropped together. Half of them caught up again within {}, 99 % within {}, the last after {}; {} \
             did not.",
            number(storm.dropped),
            ms(spread.p50_ms),
            ms(spread.p99_ms),
            ms(spread.max_ms),
            number(storm.dropped.saturating_sub(storm.whole))
        ),
        plot: Plot {
            x: Axis::linear("milliseconds since the drop", 0.0, last.ms),
            y: Axis::linear(
                "viewers that have caught up",
                0.0,
                storm.dropped as f64 * 1.12,
            ),
            layers: vec![
                Layer::Area {
                    class: "good",
                    points: points.clone(),
                },
                Layer::Line {
                    class: "good",
                    name: "caught up",
                    points,
                },
                Layer::Across {
                    y: storm.dropped as f64,
                    name: format!("dropped: {}", number(storm.dropped)),
                },
            ],
        },
        legend: vec![],
        is_wide: true,
    })
}

fn time(outcome: &Outcome) -> Axis {
    let last = outcome.timeline.last().map_or(1.0, |tick| tick.at_seconds);
    Axis::linear("seconds", 0.0, last)
}

/// Returns the phases that are not measured, to be shaded.
fn spans(outcome: &Outcome) -> Vec<Layer> {
    let mut spans: Vec<Layer> = Vec::new();
    let mut from = 0.0;
    for tick in &outcome.timeline {
        let to = tick.at_seconds;
        if matches!(tick.phase, "joining" | "warming" | "draining") {
            match spans.last_mut() {
                Some(Layer::Span { to: end, name, .. }) if name == tick.phase => *end = to,
                _ => spans.push(Layer::Span {
                    from,
                    to,
                    name: tick.phase.to_owned(),
                }),
            }
        }
        from = to;
    }
    spans
}

fn events(outcome: &Outcome) -> Option<Layer> {
    let storm = outcome.storm.as_ref()?;
    let name = format!("{} dropped", number(storm.dropped));
    Some(Layer::Upright {
        x: storm.at_seconds,
        name,
    })
}
