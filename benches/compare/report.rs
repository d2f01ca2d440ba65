//! Writes the results: table, JSON and drawing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use procfs::{CpuInfo, Current as _};
use serde::{Deserialize, Serialize};

use crate::measure::{Outcome, Plan, Run};
use crate::peers::Peer;
use crate::plot;
use crate::tools::output;

/// Busy share of the generator's core above which a steady run says more about the generator than about the server.
const GENERATOR_BUSY_MAX: f64 = 0.8;

/// All results of a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of Usher.
    usher: String,
    machine: String,
    date: String,
    versions: Vec<(String, String)>,
    plan: Plan,
    outcomes: Vec<Outcome>,
}

/// Results of one server over all rounds.
pub(crate) struct Row {
    pub(crate) peer: Peer,
    pub(crate) per_cpu_second: Spread,
    /// Share of the bare loop's deliveries per CPU-second in the same round.
    pub(crate) of_bare: Option<Spread>,
    pub(crate) p50_ms: Spread,
    pub(crate) p99_ms: Spread,
    pub(crate) saturation: Spread,
    pub(crate) is_generator_full: bool,
    pub(crate) kib: Spread,
    pub(crate) proportional_kib: Spread,
    pub(crate) near_p50_ms: Spread,
    pub(crate) near_p99_ms: Spread,
    pub(crate) bytes: Spread,
    pub(crate) is_held: bool,
    is_generator_busy: bool,
    lost: u64,
    disordered: u64,
    closed: u64,
}

/// Median, lowest and highest value of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) {
            values[middle - 1]
        } else {
            upper
        };
        Some(Self {
            least: values[0],
            median: f64::midpoint(lower, upper),
            most: values[values.len() - 1],
        })
    }
}

impl Report {
    pub(crate) fn new(plan: Plan, outcomes: Vec<Outcome>, versions: Vec<(String, String)>) -> Self {
        let commit =
            output(std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]));
        Self {
            usher: format!(
                "{} ({})",
                env!("CARGO_PKG_VERSION"),
                commit.unwrap_or_default()
            ),
            machine: machine(),
            date: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            versions,
            plan,
            outcomes,
        }
    }

    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::write(folder.join("compare.md"), self.markdown())?;
        fs::write(folder.join("compare.json"), self.json()?)?;
        fs::write(
            folder.join("compare.svg"),
            plot::draw(&self.rows(), &self.caption()),
        )?;
        Ok(())
    }

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Fails if a message was lost, duplicated or out of order at a rate that every server sustains.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for outcome in &self.outcomes {
            for run in [&outcome.steady, &outcome.near] {
                let name = outcome.peer.name();
                ensure!(run.deliveries > 0, "{name} delivered nothing");
                ensure!(
                    run.lost + run.disordered + run.closed == 0,
                    "{name}: {} lost, {} disordered, {} closed",
                    run.lost,
                    run.disordered,
                    run.closed
                );
            }
        }
        Ok(())
    }

    /// Returns the servers by deliveries per CPU-second, the bare loops first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut by_peer: BTreeMap<Peer, Vec<&Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            by_peer.entry(outcome.peer).or_default().push(outcome);
        }
        let mut rows: Vec<Row> = by_peer
            .into_iter()
            .filter_map(|(peer, outcomes)| self.row(peer, &outcomes))
            .collect();
        rows.sort_by(|a, b| {
            let is_limit = |row: &Row| matches!(row.peer, Peer::Bare | Peer::BareCoalescing);
            is_limit(b)
                .cmp(&is_limit(a))
                .then(b.per_cpu_second.median.total_cmp(&a.per_cpu_second.median))
        });
        rows
    }

    fn row(&self, peer: Peer, outcomes: &[&Outcome]) -> Option<Row> {
        let over = |value: &dyn Fn(&Outcome) -> f64| {
            Spread::of(outcomes.iter().map(|outcome| value(outcome)))
        };
        let bare = |round: usize| {
            let mut bare = self.outcomes.iter();
            let bare = bare.find(|bare| bare.peer == Peer::Bare && bare.round == round)?;
            Some(bare.steady.deliveries_per_cpu_second())
        };
        let of_bare = outcomes.iter().filter_map(|outcome| {
            Some(outcome.steady.deliveries_per_cpu_second() / bare(outcome.round)?)
        });
        let sum = |value: &dyn Fn(&Run) -> u64| {
            outcomes
                .iter()
                .map(|outcome| value(&outcome.steady) + value(&outcome.near))
                .sum()
        };
        Some(Row {
            peer,
            per_cpu_second: over(&|outcome| outcome.steady.deliveries_per_cpu_second())?,
            of_bare: Spread::of(of_bare),
            p50_ms: over(&|outcome| outcome.steady.p50_ms)?,
            p99_ms: over(&|outcome| outcome.steady.p99_ms)?,
            saturation: over(&|outcome| outcome.saturation.deliveries_per_second)?,
            is_generator_full: outcomes
                .iter()
                .any(|outcome| outcome.saturation.is_generator_full),
            kib: over(&|outcome| outcome.resident_kib_per_viewer)?,
            proportional_kib: over(&|outcome| outcome.proportional_kib_per_viewer)?,
            near_p50_ms: over(&|outcome| outcome.near.p50_ms)?,
            near_p99_ms: over(&|outcome| outcome.near.p99_ms)?,
            bytes: over(&|outcome| outcome.steady.bytes_per_delivery)?,
            is_held: outcomes
                .iter()
                .all(|outcome| outcome.steady.is_within(1_000.0)),
            is_generator_busy: outcomes
                .iter()
                .any(|outcome| outcome.steady.generator_core_busy > GENERATOR_BUSY_MAX),
            lost: sum(&|run| run.lost),
            disordered: sum(&|run| run.disordered),
            closed: sum(&|run| run.closed),
        })
    }

    /// Returns the line below the drawing.
    fn caption(&self) -> String {
        format!("{} · Usher {} · {}", self.machine, self.usher, self.date)
    }

    pub(crate) fn markdown(&self) -> String {
        let rows = self.rows();
        let mut out = format!(
            "| server | deliveries per CPU-second | of the bare loop | p50 / p99 ms | saturation, deliveries/s | \
             KiB per idle viewer, RSS / PSS | {} viewers: p50 / p99 ms | lost / disordered / closed | bytes per delivery |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            grouped(self.plan.near_viewers as f64)
        );
        for row in &rows {
            row.line(&mut out);
        }
        self.conditions(&mut out);
        for (note, is_wanted) in NOTES {
            if rows.iter().any(is_wanted) {
                let _ = writeln!(out, "\n{note}.");
            }
        }
        out.push_str("\nWhat is compared:\n\n");
        for row in &rows {
            let _ = writeln!(out, "* {}: {}.", row.peer.name(), row.peer.is());
        }
        let versions = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        let versions: Vec<String> = versions.collect();
        if !versions.is_empty() {
            let _ = writeln!(out, "\nVersions: {}.", versions.join(", "));
        }
        out
    }

    fn conditions(&self, out: &mut String) {
        let plan = &self.plan;
        let rounds = self.outcomes.iter().map(|outcome| outcome.round + 1).max();
        let _ = writeln!(
            out,
            "\nMedians of {} rounds in rotating order. {} viewers of one room, {} messages a second of {} bytes, one at a time; \
             latency from the due time of a message (for Usher: before its INSERT) until a viewer read it. The server has core \
             {}; viewers, publisher and Postgres share core {}. Saturation: the highest rate with p99 ≤ 250 ms, no loss and \
             no closed viewer; messages enter in batches of a few ms. {}. Usher {}, {}.",
            rounds.unwrap_or(0),
            grouped(plan.viewers as f64),
            plan.rate,
            plan.message_bytes,
            plan.server_core,
            plan.generator_core,
            self.machine,
            self.usher,
            self.date,
        );
    }
}

/// Meaning of a sign in the table, and the rows that have it.
type Note = (&'static str, fn(&Row) -> bool);

const NOTES: [Note; 3] = [
    (
        "† the core of viewers and Postgres was full there: the server may be capable of more",
        |row| row.is_generator_full,
    ),
    (
        "‡ over its capacity at this rate: the latency is that of a growing queue",
        |row| !row.is_held,
    ),
    (
        "§ the core of viewers and Postgres was more than 80 % busy: its latency counts too",
        |row| row.is_generator_busy,
    ),
];

impl Row {
    fn line(&self, out: &mut String) {
        let name = if self.peer.is_usher() {
            format!("**{}**", self.peer.name())
        } else {
            self.peer.name().to_owned()
        };
        let sign = |is_wanted: bool, sign: &'static str| if is_wanted { sign } else { "" };
        let ratio = self.of_bare.map_or_else(
            || "–".to_owned(),
            |ratio| format!("{:.0} %", ratio.median * 100.0),
        );
        let _ = writeln!(
            out,
            "| {name} | {}{} | {ratio} | {} / {}{} | {}{} | {} / {} | {} / {} | {} / {} / {} | {:.0} |",
            grouped(self.per_cpu_second.median),
            sign(self.is_generator_busy, " §"),
            tenths(self.p50_ms.median),
            tenths(self.p99_ms.median),
            sign(!self.is_held, " ‡"),
            grouped(self.saturation.median),
            sign(self.is_generator_full, " †"),
            tenths(self.kib.median),
            tenths(self.proportional_kib.median),
            tenths(self.near_p50_ms.median),
            tenths(self.near_p99_ms.median),
            self.lost,
            self.disordered,
            self.closed,
            self.bytes.median,
        );
    }
}

/// Describes the processor, its cores and the system.
fn machine() -> String {
    let processors = CpuInfo::current().ok();
    let model = processors
        .as_ref()
        .and_then(|processors| processors.model_name(0));
    let cores = processors.as_ref().map_or(0, CpuInfo::num_cores);
    let kernel = rustix::system::uname();
    format!(
        "{}, {cores} cores, Linux {}",
        model.unwrap_or_default(),
        kernel.release().to_string_lossy()
    )
}

/// Rounds to three significant digits, but never below one.
pub(crate) fn significant(number: f64) -> f64 {
    let power = 10_f64.powf((number.abs().max(1.0).log10().floor() - 2.0).max(0.0));
    (number / power).round() * power
}

/// Formats a number with three significant digits and commas between thousands.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", significant(number));
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub(crate) fn tenths(number: f64) -> String {
    if number >= 100.0 {
        grouped(number)
    } else {
        format!("{number:.1}")
    }
}
