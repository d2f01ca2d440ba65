//! Draws the results as one self-contained SVG: a row per server, four panels side by side.
//!
//! Measures where more is better are bars from zero. Measures where less is better span orders of magnitude: they are
//! dots on a logarithmic scale, with a line from the lowest to the highest round.

use std::fmt::Write as _;

use usher_load::plot::{Axis, escape, short};

use crate::peers::Peer;
use crate::report::{Row, Spread, significant, tenths};

const WIDTH: f64 = 1_080.0;
const NAMES: f64 = 176.0;
const PANEL: f64 = 212.0;
const GAP: f64 = 14.0;
const TOP: f64 = 84.0;
const ROW: f64 = 34.0;
const BAR: f64 = 16.0;

/// Space for a number after the longest bar.
const NUMBER: f64 = 62.0;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1b1f27;--soft:#5c6573;--rule:#e4e7ec;--ours:#c2410c;--peer:#7d8ba1;--limit:#c9d0da;\
font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px}\
@media(prefers-color-scheme:dark){svg{--paper:#12151b;--ink:#e8ebf0;--soft:#98a2b3;--rule:#272d37;--ours:#fb923c;\
--peer:#75849b;--limit:#3d4654}}\
.paper{fill:var(--paper)}text{fill:var(--ink)}.soft{fill:var(--soft);font-size:11.5px}.head{font-weight:600;font-size:13.5px}\
.title{font-weight:650;font-size:17px}.end{text-anchor:end}.rule{stroke:var(--rule);fill:none}\
.ours{fill:var(--ours);stroke:var(--ours)}.peer{fill:var(--peer);stroke:var(--peer)}.limit{fill:var(--limit);stroke:var(--limit)}\
rect.ours,rect.peer,rect.limit{stroke:none}.range{stroke-width:2;opacity:.55;fill:none}.number{font-variant-numeric:tabular-nums;paint-order:stroke;stroke:var(--paper);stroke-width:5px}\
.mine{font-weight:650}";

/// One measure of all servers.
struct Panel {
    title: &'static str,
    better: &'static str,
    shape: Shape,
    value: fn(&Row) -> Spread,
    word: fn(f64) -> String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bar,
    Dot,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Deliveries per CPU-second",
        better: "steady load · more is better",
        shape: Shape::Bar,
        value: |row| row.per_cpu_second,
        word,
    },
    Panel {
        title: "Saturation, deliveries/s",
        better: "p99 ≤ 250 ms · more is better",
        shape: Shape::Bar,
        value: |row| row.saturation,
        word,
    },
    Panel {
        title: "Latency p99, ms",
        better: "smaller crowd, log · less is better",
        shape: Shape::Dot,
        value: |row| row.near_p99_ms,
        word: tenths,
    },
    Panel {
        title: "KiB per idle viewer",
        better: "resident, log · less is better",
        shape: Shape::Dot,
        value: |row| row.kib,
        word: tenths,
    },
];

/// Draws the rows.
pub(crate) fn draw(rows: &[Row], caption: &str) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let height = bottom + 38.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Usher beside its peers\"><style>{STYLE}</style>\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\
         <text class=\"title\" x=\"20\" y=\"32\">Usher beside its peers</text>"
    );
    for (place, row) in rows.iter().enumerate() {
        let y = middle(place);
        let class = if row.peer.is_usher() {
            "end mine"
        } else {
            "end"
        };
        let name = escape(&row.peer.name().replace('`', ""));
        let _ = write!(
            out,
            "<text class=\"{class}\" x=\"{:.0}\" y=\"{:.1}\">{name}</text>\
             <path class=\"rule\" d=\"M20 {:.1}H{:.0}\"/>",
            NAMES - 12.0,
            y + 4.5,
            y - ROW / 2.0,
            WIDTH - 20.0
        );
    }
    for (place, panel) in PANELS.iter().enumerate() {
        panel.draw(&mut out, NAMES + (PANEL + GAP) * place as f64, rows);
    }
    let _ = write!(
        out,
        "<path class=\"rule\" d=\"M20 {bottom}H{:.0}\"/>\
         <text class=\"soft\" x=\"20\" y=\"{:.1}\">{}</text></svg>",
        WIDTH - 20.0,
        bottom + 23.0,
        escape(caption)
    );
    out
}

impl Panel {
    fn draw(&self, out: &mut String, left: f64, rows: &[Row]) {
        let _ = write!(
            out,
            "<text class=\"head\" x=\"{left}\" y=\"{:.0}\">{}</text><text class=\"soft\" x=\"{left}\" y=\"{:.0}\">{}</text>",
            TOP - 28.0,
            self.title,
            TOP - 11.0,
            self.better
        );
        let spreads: Vec<Spread> = rows.iter().map(self.value).collect();
        let most = spreads
            .iter()
            .map(|spread| spread.most)
            .fold(0.0, f64::max)
            .max(1e-9);
        // Zero has no place on a logarithmic scale; it is drawn at the edge.
        let floor = |value: f64| value.max(0.03);
        let least = spreads
            .iter()
            .map(|spread| floor(spread.least))
            .fold(f64::INFINITY, f64::min);
        let axis = match self.shape {
            Shape::Bar => Axis::linear(self.title, 0.0, most),
            Shape::Dot => Axis::log(self.title, least * 0.8, most * 1.1),
        };
        let width = PANEL - NUMBER;
        let x = |value: f64| left + axis.place(value) * width;
        for (place, (row, spread)) in rows.iter().zip(&spreads).enumerate() {
            let class = match row.peer {
                Peer::Usher | Peer::UsherEvents => "ours",
                Peer::Bare | Peer::BareCoalescing => "limit",
                Peer::UWebSockets | Peer::Ws | Peer::SocketIo | Peer::Nchan | Peer::Naive => "peer",
            };
            let (y, at) = (middle(place), x(spread.median));
            let _ = match self.shape {
                Shape::Bar => write!(
                    out,
                    "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                    y - BAR / 2.0,
                    (at - left).max(1.5)
                ),
                Shape::Dot => write!(
                    out,
                    "<path class=\"rule\" d=\"M{left} {y:.1}h{width:.1}\"/>\
                     <circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"5\"/>"
                ),
            };
            let (low, high) = (x(spread.least), x(spread.most));
            // The range is drawn below a bar, so that it stays visible.
            let under = if self.shape == Shape::Bar {
                BAR / 2.0 + 3.0
            } else {
                0.0
            };
            let _ = write!(
                out,
                "<path class=\"range {class}\" d=\"M{low:.1} {:.1}H{high:.1}\"/>\
                 <text class=\"number{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                y + under,
                if class == "ours" { " mine" } else { "" },
                at.max(high) + 9.0,
                y + 4.5,
                (self.word)(spread.median)
            );
        }
    }
}

fn middle(place: usize) -> f64 {
    TOP + ROW * (place as f64 + 0.5)
}

/// Writes a number in three significant digits.
fn word(number: f64) -> String {
    short(significant(number))
}
