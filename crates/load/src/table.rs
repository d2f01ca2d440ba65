//! Renders the outcome as a table for a terminal.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, LineStyle, Table};

use crate::interval::{Spread, WriteCounts};
use crate::outcome::{Class, Outcome, SearchOutcome};

/// Returns the text that is printed at the end of a run.
#[must_use]
pub fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    let run = &outcome.run;
    let _ = writeln!(
        text,
        "\n{} viewers in {} of {}, {} at {}\n",
        number(run.viewers.into()),
        counted(run.sessions, "session"),
        run.server,
        driven(outcome),
        run.target,
    );
    let _ = writeln!(text, "{}\n", run.command);
    let _ = writeln!(text, "{}", times(outcome));
    if let Some(search) = &outcome.search {
        let _ = writeln!(text, "{}", steps(search));
    }
    for (name, value) in figures(outcome) {
        let _ = writeln!(text, "{name:<14}{value}");
    }
    let verdict = &outcome.verdict;
    let headline = match verdict.class {
        Class::Sound => {
            "SOUND: every event arrived once and in order, and the generator had spare capacity"
        }
        Class::Void => "VOID: the figures are the generator's, not the gateway's",
        Class::Broken => {
            "BROKEN: an event was lost, duplicated or out of order, or a viewer was missing"
        }
    };
    let _ = writeln!(text, "\n{headline}");
    for reason in &verdict.reasons {
        let _ = writeln!(text, "  - {reason}");
    }
    for remark in &verdict.remarks {
        let _ = writeln!(text, "  note: {remark}");
    }
    text
}

/// Returns the figures other than percentiles. The report has them, too.
pub(crate) fn figures(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let (audit, resources) = (&outcome.audit, &outcome.resources);
    let mut rows = vec![
        (
            "deliveries",
            format!(
                "{} of {}; {}/s in the measured time; {} in {} frames",
                number(audit.received),
                number(outcome.expected),
                number(whole(outcome.deliveries_per_second)),
                bytes(outcome.bytes),
                number(outcome.frames)
            ),
        ),
        (
            "promise",
            format!(
                "lost {}   doubled {}   gaps {}   out of order {}   skipped with notice {}",
                number(audit.lost),
                number(audit.duplicates),
                number(audit.gaps),
                number(audit.order_errors),
                number(audit.skipped)
            ),
        ),
        ("messages", writes(&outcome.messages)),
    ];
    if outcome.run.voters > 0 {
        rows.push(("votes", writes(&outcome.votes)));
    }
    if let Some(storm) = &outcome.storm {
        let took = storm.recovery.map_or_else(String::new, |recovery| {
            format!(
                ", half of them within {}, the last after {}",
                ms(recovery.p50_ms),
                ms(recovery.max_ms)
            )
        });
        let (whole, dropped) = (number(storm.whole), number(storm.dropped));
        rows.push((
            "storm",
            format!("{whole} of {dropped} viewers that dropped together caught up again{took}"),
        ));
    }
    if let Some(slow) = &outcome.slow {
        let (stalled, evicted) = (number(slow.stalled), number(slow.evicted));
        rows.push((
            "slow readers",
            format!("{stalled} read nothing; the gateway closed {evicted} of their sockets"),
        ));
    }
    rows.push(("generator", generator(outcome)));
    if let Some(cores) = resources.gateway_cores {
        let mut text = format!("{cores:.2} cores");
        if let Some(us) = resources.gateway_us_per_delivery {
            let _ = write!(text, ", {us:.2} µs per delivery");
        }
        if let (Some(mib), Some(kib)) = (resources.gateway_mib, resources.gateway_kib_per_viewer) {
            let _ = write!(
                text,
                "; {mib:.0} MiB with all viewers, {kib:.1} KiB per viewer"
            );
        }
        rows.push(("gateway", text));
    }
    rows.push(("limit", resources.limited_by.clone()));
    rows
}

fn generator(outcome: &Outcome) -> String {
    let resources = &outcome.resources;
    let mut text = format!(
        "{} worked {:.0} % of the time",
        match outcome.run.threads {
            1 => "its thread".to_owned(),
            threads => format!("the busiest of its {threads} threads"),
        },
        resources.generator_busy * 100.0
    );
    if let Some(lateness) = resources.generator_lateness {
        let _ = write!(
            text,
            "; messages were late by p50 {}, p99 {}",
            ms(lateness.p50_ms),
            ms(lateness.p99_ms)
        );
    }
    if let Some(kib) = resources.generator_kib_per_viewer {
        let _ = write!(text, "; {kib:.1} KiB per viewer");
    }
    text
}

/// Describes the load in words.
pub(crate) fn driven(outcome: &Outcome) -> String {
    let run = &outcome.run;
    let way = match (run.written_by, run.chatters) {
        ("database", _) => "inserted with SQL".to_owned(),
        (_, chatters) => format!("from {}", counted(chatters as usize, "chatter")),
    };
    let mut text = match &outcome.search {
        Some(search) => match search.knee_rate {
            Some(rate) => format!("up to {} messages/s {way}", rounded(rate)),
            None => format!("messages {way}"),
        },
        None => format!(
            "{} messages/s {way} for {:.0} s",
            rounded(run.rate),
            run.measured_seconds
        ),
    };
    if run.voters > 0 {
        let _ = write!(
            text,
            ", {} votes/s from {}",
            rounded(run.vote_rate),
            counted(run.voters as usize, "voter")
        );
    }
    text
}

/// Returns the measured times with their names.
pub(crate) fn spreads(outcome: &Outcome) -> Vec<(&'static str, Spread)> {
    let rows = [
        ("message due, until a viewer has it", outcome.latency),
        ("message due, until acknowledged", outcome.ack),
        ("message due, until its INSERT is committed", outcome.insert),
        ("vote due, until acknowledged", outcome.vote_ack),
        ("viewer due, until its socket is open", outcome.connect),
        ("subscribe, until subscribed", outcome.join),
        (
            "dropped, until caught up again",
            outcome.storm.as_ref().and_then(|storm| storm.recovery),
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, spread)| Some((name, spread?)))
        .collect()
}

fn times(outcome: &Outcome) -> Table {
    let mut table = table(&["milliseconds", "count", "p50", "p90", "p99", "p99.9", "max"]);
    for (name, spread) in spreads(outcome) {
        let times = [
            spread.p50_ms,
            spread.p90_ms,
            spread.p99_ms,
            spread.p999_ms,
            spread.max_ms,
        ];
        let cells = [name.to_owned(), number(spread.count)].into_iter();
        table.add_row(cells.chain(times.map(digits)));
    }
    align(table)
}

fn steps(search: &SearchOutcome) -> Table {
    let mut table = table(&[
        "messages/s",
        "deliveries/s",
        "p50 ms",
        "p99 ms",
        "generator",
        "gateway cores",
        "",
    ]);
    for step in &search.steps {
        table.add_row([
            rounded(step.rate),
            number(whole(step.delivered)),
            digits(step.p50_ms),
            digits(step.p99_ms),
            format!("{:.0} %", step.generator_busy * 100.0),
            step.gateway_cores
                .map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}")),
            step.reason
                .clone()
                .unwrap_or_else(|| "within the bound".to_owned()),
        ]);
    }
    align(table)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_header(header.to_vec());
    table
}

fn align(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn writes(writes: &WriteCounts) -> String {
    let refused: u64 = writes.refused.values().sum();
    format!(
        "{} due, {} sent, {} acknowledged, {} refused, {} unanswered",
        number(writes.due),
        number(writes.sent),
        number(writes.acknowledged),
        number(refused),
        number(writes.unanswered())
    )
}

// ---- formatting ----

/// Formats a number with separators between thousands.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a time with three significant digits.
pub(crate) fn digits(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => "never".to_owned(),
        ms if ms >= 1_000.0 => number(whole(ms)),
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 10.0 => format!("{ms:.1}"),
        ms => format!("{ms:.2}"),
    }
}

pub(crate) fn ms(ms: f64) -> String {
    format!("{} ms", digits(ms))
}

/// Formats a rate without insignificant digits.
pub(crate) fn rounded(rate: f64) -> String {
    if rate >= 100.0 || rate.fract() == 0.0 {
        number(whole(rate))
    } else {
        format!("{rate:.1}")
    }
}

pub(crate) fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} kB", bytes / 1e3),
    }
}

pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(count as u64))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are positive, and far from 2^64"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::fixtures;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.123, 9.99, 12.34, 250.4, 12_345.6].map(digits),
            ["0.12", "9.99", "12.3", "250", "12,346"]
        );
        assert_eq!(digits(f64::INFINITY), "never");
        assert_eq!([1.5, 20.0, 1_234.5].map(rounded), ["1.5", "20", "1,235"]);
        assert_eq!(
            [900, 2_500_000, 3_000_000_000].map(bytes),
            ["0.9 kB", "2.5 MB", "3.00 GB"]
        );
    }

    #[test]
    fn the_table_has_every_required_figure() {
        expect![[r#"

            1,000 viewers in 1 session of usher/0.1.0, 20 messages/s from 40 chatters for 30 s at ws://127.0.0.1:4000/v1/socket

            usher load --dev ready.json --database-url '***'

            ──────────────────────────────────────────────────────────────────────────────────
             milliseconds                           count    p50    p90    p99   p99.9    max 
            ══════════════════════════════════════════════════════════════════════════════════
             message due, until a viewer has it     9,999   7.05   21.1   25.3    25.8   25.8 
             message due, until acknowledged        9,999   7.05   21.1   25.3    25.8   25.8 
             viewer due, until its socket is open   9,999   7.05   21.1   25.3    25.8   25.8 
             subscribe, until subscribed            9,999   7.05   21.1   25.3    25.8   25.8 
            ──────────────────────────────────────────────────────────────────────────────────
            deliveries    640,000 of 640,000; 20,000/s in the measured time; 291.0 MB in 512,345 frames
            promise       lost 0   doubled 0   gaps 0   out of order 0   skipped with notice 0
            messages      640 due, 640 sent, 640 acknowledged, 0 refused, 0 unanswered
            generator     its thread worked 31 % of the time; messages were late by p50 0.08 ms, p99 0.40 ms; 1.4 KiB per viewer
            gateway       0.42 cores, 6.30 µs per delivery; 19 MiB with all viewers, 3.9 KiB per viewer
            limit         nothing: there was spare capacity

            SOUND: every event arrived once and in order, and the generator had spare capacity
        "#]].assert_eq(&render(&fixtures::outcome()));
    }
}
