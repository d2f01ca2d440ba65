//! What somebody who waits sees: a line that moves at a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::load::outcome::Tick;

/// Seconds between lines where nobody watches them move.
const LINE_SECONDS: f64 = 5.0;

/// Where progress goes: standard error, since standard output is for results.
#[derive(Debug)]
pub enum Progress {
    /// A line that moves.
    Live(ProgressBar),
    /// A line now and then; the second of the last.
    Lines {
        /// When the next is due.
        next_seconds: f64,
        /// What was going on at the last.
        phase: &'static str,
    },
    /// Nothing but warnings.
    Quiet,
}

impl Progress {
    /// What fits whoever watches.
    #[must_use]
    pub fn new(is_quiet: bool) -> Self {
        if is_quiet {
            return Self::Quiet;
        }
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}");
            bar.set_style(style.expect("the template is fixed"));
            bar.enable_steady_tick(Duration::from_millis(120));
            return Self::Live(bar);
        }
        Self::Lines {
            next_seconds: 0.0,
            phase: "",
        }
    }

    /// Something that stays.
    pub fn say(&self, text: &str) {
        match self {
            Self::Live(bar) => bar.suspend(|| line(text)),
            Self::Lines { .. } | Self::Quiet => line(text),
        }
    }

    /// A second has passed.
    pub(super) fn tick(&mut self, tick: &Tick) {
        match self {
            Self::Live(bar) => bar.set_message(describe(tick)),
            Self::Lines {
                next_seconds,
                phase,
            } => {
                if tick.at_seconds >= *next_seconds || tick.phase != *phase {
                    line(&describe(tick));
                    (*next_seconds, *phase) = (tick.at_seconds + LINE_SECONDS, tick.phase);
                }
            }
            Self::Quiet => {}
        }
    }

    /// Nothing more will come.
    pub fn finish(&self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(text: &str) {
    // That nobody reads it any more is no reason to end.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn describe(tick: &Tick) -> String {
    let mut text = format!(
        "{:>4.0} s  {:<9} {} viewers  {:.0} sent/s  {:.0} deliveries/s",
        tick.at_seconds, tick.phase, tick.watching, tick.sent, tick.deliveries
    );
    if let (Some(p50), Some(p99)) = (tick.p50_ms, tick.p99_ms) {
        text.push_str(&format!("  p50 {p50:.1} ms  p99 {p99:.1} ms"));
    }
    text.push_str(&format!(
        "  lost {}  generator {:.0} %",
        tick.lost,
        tick.generator_busy * 100.0
    ));
    if let Some(cores) = tick.gateway_cores {
        text.push_str(&format!("  gateway {cores:.2} cores"));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_second_is_one_line() {
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
        expect!["  12 s  measuring 1000 viewers  20 sent/s  20000 deliveries/s  p50 2.1 ms  p99 8.4 ms  lost 0  generator 31 %  gateway 0.50 cores"]
            .assert_eq(&describe(&tick));
    }
}
