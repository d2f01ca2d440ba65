//! Shows the progress of a run: a moving line on a terminal, otherwise a line every few seconds.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::limits::PROGRESS_TICK;
use crate::outcome::Tick;

/// Seconds between two lines if standard error is not a terminal.
const LINE_SECONDS: f64 = 5.0;

/// Columns of a terminal that does not report its width.
const COLUMNS_DEFAULT: usize = 80;

/// Columns of the bar and its spaces.
const BAR_COLUMNS: usize = 14;

/// The kind of progress display. It writes to standard error, because standard output is for results.
#[derive(Debug)]
pub enum Progress {
    /// A line that changes in place, on a terminal.
    Live {
        /// The bar and its message.
        bar: ProgressBar,
        /// The length of the run, if it is known.
        total: Option<Duration>,
    },
    /// A line every few seconds.
    Lines {
        /// When the next line is due.
        next_seconds: f64,
        /// The phase of the last line.
        phase: &'static str,
        /// The length of the run, if it is known.
        total: Option<Duration>,
    },
    /// Prints only warnings.
    Quiet,
}

impl Progress {
    /// Chooses the display for a run that takes `total`.
    #[must_use]
    pub fn new(is_quiet: bool, total: Option<Duration>) -> Self {
        if is_quiet {
            return Self::Quiet;
        }
        if std::io::stderr().is_terminal() {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total.as_secs().max(1)),
                    "{bar:12.cyan/dim} {msg}",
                ),
                None => (ProgressBar::new_spinner(), "{spinner:.cyan} {msg}"),
            };
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.expect("the template is fixed").progress_chars("━━─"));
            bar.enable_steady_tick(PROGRESS_TICK);
            return Self::Live { bar, total };
        }
        Self::Lines {
            next_seconds: 0.0,
            phase: "",
            total,
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Live { bar, .. } => bar.suspend(|| line(text)),
            Self::Lines { .. } | Self::Quiet => line(text),
        }
    }

    /// Shows the figures of the last second.
    pub(crate) fn tick(&mut self, tick: &Tick) {
        match self {
            Self::Live { bar, total } => {
                if let Some(total) = total {
                    let at = Duration::try_from_secs_f64(tick.at_seconds).unwrap_or_default();
                    bar.set_position(at.min(*total).as_secs());
                }
                let columns = terminal_size::terminal_size_of(std::io::stderr());
                let columns = columns.map_or(COLUMNS_DEFAULT, |(width, _)| width.0.into());
                let room = columns.saturating_sub(BAR_COLUMNS);
                bar.set_message(fitting(&describe(tick, *total), room));
            }
            Self::Lines {
                next_seconds,
                phase,
                total,
            } => {
                if tick.at_seconds >= *next_seconds || tick.phase != *phase {
                    line(&fitting(&describe(tick, *total), usize::MAX));
                    (*next_seconds, *phase) = (tick.at_seconds + LINE_SECONDS, tick.phase);
                }
            }
            Self::Quiet => {}
        }
    }

    /// Ends the display.
    pub fn finish(&self) {
        if let Self::Live { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

fn line(text: &str) {
    // A closed standard error must not end the run.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Returns the parts of a line, the most important first. Parts that do not fit are dropped from the end.
fn describe(tick: &Tick, total: Option<Duration>) -> Vec<String> {
    let at = tick.at_seconds;
    let mut parts = vec![match total {
        Some(total) => format!("{at:>3.0}/{} s {}", total.as_secs(), tick.phase),
        None => format!("{at:>3.0} s {}", tick.phase),
    }];
    if let (Some(p50), Some(p99)) = (tick.p50_ms, tick.p99_ms) {
        parts.push(format!("p50 {p50:.1} p99 {p99:.1} ms"));
    }
    parts.extend([
        format!("lost {}", tick.lost),
        format!("{} viewers", tick.watching),
        format!("{:.0} sent/s", tick.sent),
        format!("{:.0} deliveries/s", tick.deliveries),
        format!("generator {:.0} %", tick.generator_busy * 100.0),
    ]);
    if let Some(cores) = tick.gateway_cores {
        parts.push(format!("gateway {cores:.2} cores"));
    }
    parts
}

/// Joins as many parts as fit into `columns`, and at least the first.
fn fitting(parts: &[String], columns: usize) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() && text.chars().count() + 2 + part.chars().count() > columns {
            break;
        }
        if !text.is_empty() {
            text.push_str("  ");
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn a_tick_is_one_line_of_the_parts_that_fit() {
        let tick = Tick {
            at_seconds: 12.0,
            phase: "measuring",
            watching: 1_000,
            sent: 20.0,
            deliveries: 20_000.0,
            p50_ms: Some(2.13),
            p99_ms: Some(8.4),
            generator_busy: 0.31,
            gateway_cores: Some(0.5),
            ..Tick::default()
        };
        let total = Some(Duration::from_secs(35));
        let check = |columns, expected: Expect| {
            let line = fitting(&describe(&tick, total), columns);
            assert!(columns < 20 || line.chars().count() <= columns, "{line}");
            expected.assert_eq(&line);
        };
        check(
            usize::MAX,
            expect![
                " 12/35 s measuring  p50 2.1 p99 8.4 ms  lost 0  1000 viewers  20 sent/s  20000 deliveries/s  generator 31 %  gateway 0.50 cores"
            ],
        );
        // A terminal with 80 columns, without the bar.
        check(
            COLUMNS_DEFAULT - BAR_COLUMNS,
            expect![" 12/35 s measuring  p50 2.1 p99 8.4 ms  lost 0  1000 viewers"],
        );
        check(45, expect![" 12/35 s measuring  p50 2.1 p99 8.4 ms"]);
        check(5, expect![" 12/35 s measuring"]);
    }
}
