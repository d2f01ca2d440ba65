//! Draws plots as SVG, without external resources: axes, lines, bars and marks.
//!
//! Colours are classes, so the page chooses them for its light and dark modes. A plot is drawn at two widths, and the
//! page shows the one that fits, so that text keeps its size. `benches/compare` draws with the same axes.

use std::fmt::Write as _;

/// The widths of the drawings in their own units: for a desktop and for a phone.
const WIDTHS: [(f64, &str); 2] = [(1040.0, "wide"), (460.0, "narrow")];
const HEIGHT: f64 = 260.0;

/// Margins for the labels.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// A plot: its axes and the layers between them.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) layers: Vec<Layer>,
}

/// An axis with its range and labels.
#[derive(Clone, Debug)]
pub struct Axis {
    pub(crate) label: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) scale: Scale,
    /// Positions with a line and a label; chosen automatically if empty.
    pub(crate) ticks: Vec<(f64, String)>,
}

/// How an axis maps values to positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// The parts of a drawing, from the back to the front.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    /// A shaded range of x, with its name.
    Span { from: f64, to: f64, name: String },
    /// The area between the axis and a line.
    Area {
        class: &'static str,
        points: Vec<(f64, f64)>,
    },
    Line {
        class: &'static str,
        name: &'static str,
        points: Vec<(f64, f64)>,
    },
    /// Bars from x to x with a height; the words appear under the pointer.
    Bars {
        class: &'static str,
        bars: Vec<(f64, f64, f64, String)>,
    },
    /// Dots; the words appear under the pointer.
    Dots {
        class: &'static str,
        dots: Vec<(f64, f64, String)>,
    },
    /// A horizontal line at `y`.
    Across { y: f64, name: String },
    /// A vertical line at `x`.
    Upright { x: f64, name: String },
}

impl Axis {
    /// Creates a linear axis.
    #[must_use]
    pub fn linear(label: &'static str, from: f64, to: f64) -> Self {
        Self {
            label,
            from,
            to: if to > from { to } else { from + 1.0 },
            scale: Scale::Linear,
            ticks: Vec::new(),
        }
    }

    /// Creates a logarithmic axis.
    #[must_use]
    pub fn log(label: &'static str, from: f64, to: f64) -> Self {
        let from = from.max(1e-3);
        Self {
            scale: Scale::Log,
            ..Self::linear(label, from, to.max(from * 1.5))
        }
    }

    /// Returns a value's position on the axis, from 0 to 1.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(1e-9) / self.from).ln() / (self.to / self.from).ln(),
        };
        place.clamp(0.0, 1.0)
    }

    fn found_ticks(&self, count: f64) -> Vec<(f64, String)> {
        if !self.ticks.is_empty() {
            return self.ticks.clone();
        }
        match self.scale {
            Scale::Linear => linear_ticks(self.from, self.to, count),
            Scale::Log => log_ticks(self.from, self.to, count),
        }
    }
}

/// Returns ticks in round steps of 1, 2 or 5 times a power of ten.
fn linear_ticks(from: f64, to: f64, count: f64) -> Vec<(f64, String)> {
    let rough = (to - from) / count;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let mut ticks = Vec::new();
    let mut tick = (from / step).ceil() * step;
    while tick <= to * (1.0 + 1e-9) {
        ticks.push((tick, short(tick)));
        tick += step;
    }
    ticks
}

/// Returns ticks at powers of ten, and at 2 and 5 between them if there is room.
fn log_ticks(from: f64, to: f64, count: f64) -> Vec<(f64, String)> {
    let decades = (to / from).log10();
    if decades < 0.7 {
        return linear_ticks(from, to, count);
    }
    let between: &[f64] = if decades <= 2.2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let mut ticks = Vec::new();
    let mut power = 10_f64.powf(from.log10().floor());
    while power <= to {
        for times in between {
            let tick = power * times;
            if tick >= from * (1.0 - 1e-9) && tick <= to * (1.0 + 1e-9) {
                ticks.push((tick, short(tick)));
            }
        }
        power *= 10.0;
    }
    ticks
}

/// Formats a number in few characters.
#[must_use]
pub fn short(number: f64) -> String {
    let (number, unit) = match number.abs() {
        large if large >= 1e6 => (number / 1e6, " M"),
        large if large >= 1e4 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

impl Plot {
    /// Returns both drawings. The page shows one.
    pub(crate) fn svg(&self, title: &str) -> String {
        WIDTHS
            .iter()
            .map(|(width, class)| self.drawing(*width, class, title))
            .collect()
    }

    fn drawing(&self, width: f64, class: &str, title: &str) -> String {
        let canvas = Canvas { plot: self, width };
        let mut out = format!(
            "<svg class=\"plot {class}\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(title)
        );
        canvas.axes(&mut out);
        for layer in &self.layers {
            canvas.layer(&mut out, layer);
        }
        out.push_str("</svg>");
        out
    }
}

/// A plot at one width.
struct Canvas<'a> {
    plot: &'a Plot,
    width: f64,
}

impl Canvas<'_> {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.plot.x.place(value) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.plot.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, out: &mut String) {
        let (left, right, bottom) = (LEFT, self.width - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in self.plot.y.found_ticks(5.0) {
            let y = self.y(value);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 8.0,
                y + 4.0,
                escape(&label)
            );
        }
        let mut free_from = 0.0;
        for (value, label) in self.plot.x.found_ticks(self.width / 90.0) {
            let x = self.x(value);
            // Labels that would overlap are left out.
            let half = label.chars().count() as f64 * 3.4 + 6.0;
            let is_free = x - half >= free_from;
            let _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {bottom}v4\"/>");
            if is_free {
                free_from = x + half;
                let at = (x.min(self.width - half + 6.0), bottom + 17.0);
                let _ = write!(
                    out,
                    "<text class=\"tick mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    at.0,
                    at.1,
                    escape(&label)
                );
            }
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>\
             <text class=\"label mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"label\" x=\"{left}\" y=\"10\">{}</text>",
            f64::midpoint(left, right),
            HEIGHT - 6.0,
            escape(self.plot.x.label),
            escape(self.plot.y.label),
        );
    }

    fn layer(&self, out: &mut String, layer: &Layer) {
        let (bottom, right) = (HEIGHT - BOTTOM, self.width - RIGHT);
        let _ = match layer {
            Layer::Span { from, to, name } => {
                let (from, to) = (self.x(*from), self.x(*to));
                write!(
                    out,
                    "<rect class=\"span\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\">\
                     <title>{}</title></rect>",
                    (to - from).max(0.0),
                    bottom - TOP,
                    escape(name)
                )
            }
            Layer::Area { class, points } => match (points.first(), points.last()) {
                (Some(first), Some(last)) => write!(
                    out,
                    "<path class=\"area {class}\" d=\"{}L{:.1} {bottom}L{:.1} {bottom}Z\"/>",
                    self.path(points),
                    self.x(last.0),
                    self.x(first.0)
                ),
                _ => Ok(()),
            },
            Layer::Line {
                class,
                name,
                points,
            } => {
                write!(
                    out,
                    "<path class=\"line {class}\" d=\"{}\"><title>{name}</title></path>",
                    self.path(points)
                )
            }
            Layer::Bars { class, bars } => {
                bars.iter().for_each(|bar| self.bar(out, class, bar));
                Ok(())
            }
            Layer::Dots { class, dots } => {
                dots.iter().for_each(|dot| self.dot(out, class, dot));
                Ok(())
            }
            Layer::Across { y, name } => {
                let y = self.y(*y);
                write!(
                    out,
                    "<path class=\"mark\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                     <text class=\"note\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    LEFT + 6.0,
                    y - 5.0,
                    escape(name)
                )
            }
            Layer::Upright { x, name } => {
                let x = self.x(*x);
                let is_late = x > self.width * 0.65;
                let (at, anchor) = if is_late {
                    (x - 5.0, "note end")
                } else {
                    (x + 5.0, "note")
                };
                write!(
                    out,
                    "<path class=\"mark\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                     <text class=\"{anchor}\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                    TOP + 12.0,
                    escape(name)
                )
            }
        };
    }

    fn bar(
        &self,
        out: &mut String,
        class: &str,
        (from, to, high, words): &(f64, f64, f64, String),
    ) {
        let (from, to, y) = (self.x(*from), self.x(*to), self.y(*high));
        let _ = write!(
            out,
            "<rect class=\"bar {class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{}</title></rect>",
            (to - from - 1.0).max(0.8),
            (HEIGHT - BOTTOM - y).max(0.0),
            escape(words)
        );
    }

    fn dot(&self, out: &mut String, class: &str, (x, y, words): &(f64, f64, String)) {
        let _ = write!(
            out,
            "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"><title>{}</title></circle>",
            self.x(*x),
            self.y(*y),
            escape(words)
        );
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (place, (x, y)) in points.iter().enumerate() {
            let verb = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", self.x(*x), self.y(*y));
        }
        path
    }
}

/// Escapes a text for HTML and its attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let words = |ticks: Vec<(f64, String)>| {
            ticks
                .into_iter()
                .map(|tick| tick.1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words(linear_ticks(0.0, 33.0, 6.0)), "0 10 20 30");
        assert_eq!(
            words(linear_ticks(0.0, 21_500.0, 5.0)),
            "0 5000 10 k 15 k 20 k"
        );
        assert_eq!(words(linear_ticks(0.0, 12_700_000.0, 5.0)), "0 5 M 10 M");
        assert_eq!(words(log_ticks(2.0, 300.0, 9.0)), "2 5 10 20 50 100 200");
        assert_eq!(
            words(log_ticks(1_000.0, 2_000.0, 5.0)),
            "1000 1200 1400 1600 1800 2000"
        );
        assert_eq!(words(log_ticks(0.8, 90_000.0, 8.0)), "1 10 100 1000 10 k");
    }

    #[test]
    fn positions_stay_within_the_drawing() {
        let axis = Axis::log("ms", 1.0, 100.0);
        assert_eq!(
            [0.0, 1.0, 10.0, 100.0, f64::INFINITY].map(|value| axis.place(value)),
            [0.0, 0.0, 0.5, 1.0, 1.0]
        );
        let flat = Axis::linear("s", 5.0, 5.0);
        assert!(flat.place(5.0).is_finite());
    }

    #[test]
    fn labels_cannot_become_markup() {
        let plot = Plot {
            x: Axis::linear("x", 0.0, 1.0),
            y: Axis::linear("y", 0.0, 1.0),
            layers: vec![Layer::Across {
                y: 0.5,
                name: "<script>\"&".to_owned(),
            }],
        };
        let svg = plot.svg("a \"title\"");
        assert!(
            svg.contains("&lt;script&gt;&quot;&amp;") && !svg.contains("<script"),
            "{svg}"
        );
    }
}
