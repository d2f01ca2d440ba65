//! Renders the report: one self-contained HTML file.
//!
//! It starts with the verdict, then the main figures, then the plots, then all details.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::charts;
use crate::outcome::{Class, Outcome};
use crate::plot::escape;
use crate::table::{self, bytes, counted, digits, number, rounded, whole};

const STYLE: &str = include_str!("page.css");

/// The method of every run, for the report.
const METHOD: &[(&str, &str)] = &[
    (
        "Open loop",
        "Every message has a due time, whether or not the messages before it have arrived, and all latency counts from \
         the due time. A gateway that stalls is charged for every message that waits.",
    ),
    (
        "One clock",
        "One process writes and receives the messages, and measures with its monotonic clock. No other clock is \
         involved, so there is no clock skew.",
    ),
    (
        "Every number is checked",
        "Each viewer checks the numbers of its events against the promise: consecutive, each once, in order. A skipped \
         number that never arrives is lost. So is an event at the end of the log that a viewer has not received.",
    ),
    (
        "All deliveries count",
        "Percentiles cover all deliveries: histograms are merged, never averaged. They exclude the warm-up, slow readers, \
         and messages written while the run had dropped a viewer on purpose.",
    ),
    (
        "The generator is watched",
        "A run is void if a thread of the generator works more than 85 % of its time, or if messages are sent late: the \
         figures would then be the generator's.",
    ),
];

/// Renders the report.
#[must_use]
pub fn render(outcome: &Outcome) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Load report · {}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&title(outcome))
    );
    head(&mut out, outcome);
    tiles(&mut out, outcome);
    notes(&mut out, outcome);
    out.push_str("<section class=\"plots\">\n");
    for chart in charts::all(outcome) {
        let _ = writeln!(
            out,
            "<figure{}><figcaption><h2>{}</h2><p>{}</p></figcaption>{}{}</figure>",
            if chart.is_wide { " class=\"full\"" } else { "" },
            escape(chart.title),
            escape(&chart.words),
            legend(&chart.legend),
            chart.plot.svg(chart.title)
        );
    }
    out.push_str("</section>\n");
    times(&mut out, outcome);
    steps(&mut out, outcome);
    details(&mut out, outcome);
    method(&mut out);
    let _ = write!(
        out,
        "<footer>Made by <b>usher load</b> {} · run {} · the JSON of the run has every figure of this page</footer>\n\
         </main>\n</body>\n</html>\n",
        escape(&outcome.run.version),
        escape(&outcome.run.id)
    );
    out
}

fn title(outcome: &Outcome) -> String {
    format!("{} viewers", number(outcome.run.viewers.into()))
}

fn head(out: &mut String, outcome: &Outcome) {
    let run = &outcome.run;
    let class = outcome.verdict.class;
    let (badge, words) = match class {
        Class::Sound => (
            "Sound",
            "Every event arrived once and in order, and the generator had spare capacity.",
        ),
        Class::Void => (
            "Void",
            "The figures are the generator's, not the gateway's.",
        ),
        Class::Broken => (
            "Broken",
            "An event was lost, duplicated or out of order, or a viewer was missing.",
        ),
    };
    let _ = writeln!(
        out,
        "<header><p class=\"brand\">usher load</p><h1>{} in {}</h1><p class=\"lead\">{}</p>\
         <p class=\"where\">{} at {} · {} · {} · {}</p>\
         <div class=\"verdict {}\"><b>{badge}</b><span>{words}</span></div></header>",
        escape(&counted(run.viewers as usize, "viewer")),
        escape(&counted(run.sessions, "session")),
        escape(&table::driven(outcome)),
        escape(&run.server),
        escape(&run.target),
        escape(&counted(run.cores, "core")),
        escape(&run.system),
        escape(&utc(run.started_at)),
        class.name(),
    );
}

/// A name, a figure, its unit, and a remark.
type Tile = (&'static str, String, &'static str, String);

fn tiles(out: &mut String, outcome: &Outcome) {
    out.push_str("<section class=\"tiles\">\n");
    for (name, figure, unit, words) in first_figures(outcome) {
        let class = if name == "lost" && !outcome.audit.is_clean() {
            " class=\"bad\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<div{class}><p>{name}</p><strong>{}<small> {unit}</small></strong><p>{}</p></div>",
            escape(&figure),
            escape(&words)
        );
    }
    out.push_str("</section>\n");
}

/// Returns the main figures.
fn first_figures(outcome: &Outcome) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    if let Some(search) = &outcome.search {
        let deliveries = search
            .knee_deliveries
            .map_or_else(|| "none".to_owned(), |count| number(whole(count)));
        let rate = search.knee_rate.map_or_else(String::new, |rate| {
            format!("at {} messages/s", rounded(rate))
        });
        tiles.push((
            "highest rate within the bound",
            deliveries,
            "deliveries/s",
            rate,
        ));
    }
    if let Some(latency) = &outcome.latency {
        tiles.push((
            "median latency",
            digits(latency.p50_ms),
            "ms",
            "until a viewer has it".to_owned(),
        ));
        tiles.push((
            "99th percentile",
            digits(latency.p99_ms),
            "ms",
            format!("the slowest delivery took {} ms", digits(latency.max_ms)),
        ));
    }
    if outcome.search.is_none() {
        let rate = number(whole(outcome.deliveries_per_second));
        tiles.push((
            "deliveries",
            rate,
            "/s",
            format!("{} in all", number(outcome.audit.received)),
        ));
    }
    let audit = &outcome.audit;
    tiles.push((
        "lost",
        number(audit.lost),
        "",
        format!(
            "{} doubled, {} gaps, {} out of order",
            number(audit.duplicates),
            number(audit.gaps),
            number(audit.order_errors)
        ),
    ));
    if let Some(storm) = &outcome.storm {
        let last = storm
            .recovery
            .map_or_else(|| "never".to_owned(), |recovery| digits(recovery.max_ms));
        let words = format!(
            "{} of {} dropped viewers",
            number(storm.whole),
            number(storm.dropped)
        );
        tiles.push(("all caught up", last, "ms", words));
    }
    if let Some(cores) = outcome.resources.gateway_cores {
        let each = outcome.resources.gateway_us_per_delivery;
        let words = each.map_or_else(String::new, |us| format!("{us:.2} µs per delivery"));
        tiles.push(("gateway", format!("{cores:.2}"), "cores", words));
    }
    tiles
}

fn notes(out: &mut String, outcome: &Outcome) {
    let verdict = &outcome.verdict;
    if verdict.reasons.is_empty() && verdict.remarks.is_empty() {
        return;
    }
    out.push_str("<section class=\"notes\"><ul>\n");
    for reason in &verdict.reasons {
        let _ = writeln!(out, "<li class=\"reason\">{}</li>", escape(reason));
    }
    for remark in &verdict.remarks {
        let _ = writeln!(out, "<li>{}</li>", escape(remark));
    }
    out.push_str("</ul></section>\n");
}

fn legend(entries: &[(&'static str, &'static str)]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let entries: String = entries
        .iter()
        .map(|(class, name)| format!("<span class=\"key {class}\">{}</span>", escape(name)))
        .collect();
    format!("<p class=\"legend\">{entries}</p>")
}

fn times(out: &mut String, outcome: &Outcome) {
    out.push_str(
        "<section><h2>Times</h2><div class=\"scroll\"><table class=\"stacked\"><thead><tr><th>milliseconds</th><th>count</th><th>p50</th>\
         <th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr></thead><tbody>\n",
    );
    for (name, spread) in table::spreads(outcome) {
        let count = number(spread.count);
        let _ = write!(
            out,
            "<tr><td>{name}</td><td data-column=\"count\">{count}</td>"
        );
        for (column, ms) in [
            ("p50", spread.p50_ms),
            ("p90", spread.p90_ms),
            ("p99", spread.p99_ms),
            ("p99.9", spread.p999_ms),
            ("max", spread.max_ms),
        ] {
            let _ = write!(out, "<td data-column=\"{column}\">{}</td>", digits(ms));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn steps(out: &mut String, outcome: &Outcome) {
    let Some(search) = &outcome.search else {
        return;
    };
    out.push_str(
        "<section><h2>Measured rates</h2><div class=\"scroll\"><table class=\"stacked\"><thead><tr><th>rate</th>\
         <th>deliveries/s</th><th>p50 ms</th><th>p99 ms</th><th>generator</th><th>gateway cores</th><th>outcome</th>\
         </tr></thead><tbody>\n",
    );
    for step in &search.steps {
        let cores = step
            .gateway_cores
            .map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"));
        let _ = writeln!(
            out,
            "<tr><td>{} messages/s</td><td data-column=\"deliveries/s\">{}</td><td data-column=\"p50 ms\">{}</td>\
             <td data-column=\"p99 ms\">{}</td><td data-column=\"generator\">{:.0} %</td>\
             <td data-column=\"gateway cores\">{cores}</td><td data-column=\"outcome\">{}</td></tr>",
            rounded(step.rate),
            number(whole(step.delivered)),
            digits(step.p50_ms),
            digits(step.p99_ms),
            step.generator_busy * 100.0,
            escape(step.reason.as_deref().unwrap_or("within the bound"))
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn details(out: &mut String, outcome: &Outcome) {
    let run = &outcome.run;
    out.push_str("<section><h2>Details</h2><dl>\n");
    let mut rows: Vec<(&str, String)> = vec![("command", run.command.clone())];
    rows.extend(table::figures(outcome));
    rows.push((
        "load",
        format!(
            "{} characters per message; {} viewers connected per second; {:.0} s of warm-up, {:.0} s measured",
            run.message_characters,
            rounded(run.ramp),
            run.warm_up_seconds,
            run.measured_seconds
        ),
    ));
    rows.push((
        "sockets",
        format!(
            "{}, {}, {} from {}; {} received",
            counted(run.viewers as usize, "viewer"),
            counted(run.chatters as usize, "chatter"),
            counted(run.voters as usize, "voter"),
            if run.addresses == 1 {
                "one address".to_owned()
            } else {
                format!("{} addresses", run.addresses)
            },
            bytes(outcome.bytes)
        ),
    ));
    for (name, value) in rows {
        let value = escape(&value);
        let value = match name {
            "command" => format!("<code>{value}</code>"),
            _ => value,
        };
        let _ = writeln!(out, "<dt>{name}</dt><dd>{value}</dd>");
    }
    out.push_str("</dl></section>\n");
}

fn method(out: &mut String) {
    out.push_str("<section><h2>Method</h2><dl>\n");
    for (name, words) in METHOD {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{words}</dd>");
    }
    out.push_str("</dl></section>\n");
}

/// Formats a time as a date with hours and minutes.
fn utc(unix: u64) -> String {
    let at = i64::try_from(unix)
        .ok()
        .and_then(|unix| Timestamp::from_second(unix).ok());
    at.map_or_else(
        || "unknown".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_page_is_self_contained_and_has_every_plot() {
        let page = render(&fixtures::outcome_with_everything());
        for outside in ["http://", "https://", "src=", "href=", "@import", "url("] {
            let found = page.match_indices(outside).next();
            assert!(found.is_none(), "{outside} at {found:?}");
        }
        assert_eq!(page.matches("<figure").count(), 6);
        for tag in [
            "html", "head", "body", "main", "svg", "section", "table", "figure", "dl", "code",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(
            !page.contains("NaN") && !page.contains("inf"),
            "a figure is not a number"
        );
    }

    #[test]
    fn nothing_is_due_to_slow_readers() {
        let mut outcome = fixtures::outcome();
        (outcome.run.viewers, outcome.run.slow_readers) = (1_000, 100);
        (outcome.run.rate, outcome.run.sessions) = (20.0, 1);
        let page = render(&outcome);
        assert!(page.contains("due: 18,000/s") && page.contains("18,000/s were due"));
    }

    #[test]
    fn the_command_is_in_the_report() {
        let mut outcome = fixtures::outcome();
        outcome.run.command = "usher load --url 'ws://<host>'".to_owned();
        let page = render(&outcome);
        assert!(page.contains(
            "<dt>command</dt><dd><code>usher load --url 'ws://&lt;host&gt;'</code></dd>"
        ));
    }

    #[test]
    fn text_from_the_gateway_cannot_become_markup() {
        let mut outcome = fixtures::outcome();
        outcome.run.server = "<script>alert(1)</script>".to_owned();
        outcome.verdict.remarks = vec!["<img src=x>".to_owned()];
        let page = render(&outcome);
        assert!(!page.contains("<script") && !page.contains("<img"));
    }

    #[test]
    fn a_loss_is_highlighted() {
        let mut outcome = fixtures::outcome();
        outcome.audit.lost = 1_234;
        outcome.verdict = crate::verdict::judge(&outcome);
        let page = render(&outcome);
        assert!(
            page.contains("verdict broken")
                && page.contains("<div class=\"bad\"><p>lost</p><strong>1,234")
        );
    }

    #[test]
    fn a_run_without_measurements_still_has_a_page() {
        let mut outcome = fixtures::outcome();
        outcome.latency = None;
        outcome.latency_curve.clear();
        outcome.latency_bars.clear();
        outcome.timeline.clear();
        let page = render(&outcome);
        assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
    }

    #[test]
    fn times_are_formatted_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(1_790_000_000), "2026-09-21 14:13 UTC");
    }
}
