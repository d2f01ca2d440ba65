// Plots a few values over the last minutes: lines in an SVG, the newest at the right edge.
//
// Draws only when the caller calls `draw`. Describes the plot in text for screen readers.

import { el, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";

const [WIDTH, HEIGHT] = [600, 120];
/** The shortest time axis. The axis grows with the data up to `spanMs`. */
const SPAN_MS_MIN = 60_000;
const SVG = "http://www.w3.org/2000/svg";

/** Creates a plot over at most `spanMs`. `series` are {name, tone}; `format` formats a value. Returns {figure, draw}. */
export function plotView({ label, series, spanMs, format = count }) {
  const now = el("strong", {}, "–");
  const top = el("span", { class: "plot-top", "aria-hidden": "true" });
  const since = el("span", {});
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const middle = shape("line", { class: "plot-grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
  const lines = series.map(({ tone }) => ({
    area: shape("path", { class: "plot-area", "data-tone": tone }),
    line: shape("path", { class: "plot-line", "data-tone": tone }),
  }));
  svg.append(middle, ...lines.flatMap(({ area, line }) => [area, line]));
  const keys = series.length > 1 ? series.map(key) : [];
  const figure = el(
    "figure",
    { class: "plot" },
    el("figcaption", {}, label),
    el("div", { class: "plot-now" }, now, ...keys.map(({ element }) => element)),
    el("div", { class: "plot-box" }, top, svg),
    el("div", { class: "plot-axis", "aria-hidden": "true" }, since, el("span", {}, "now")),
  );
  return { figure, draw };

  /** Draws the plot. `points` are {at, values}, oldest first, with one value per series. */
  function draw(points, at) {
    const from = Math.max(at - spanMs, Math.min(points[0]?.at ?? at, at - SPAN_MS_MIN));
    setText(since, `${Math.round((at - from) / 60_000)} min ago`);
    const most = Math.max(0, ...points.flatMap(({ values }) => values.filter(Number.isFinite)));
    const ceiling = niceTop(most);
    for (const [index, { area, line }] of lines.entries()) {
      const own = points.map(({ at, values }) => ({ at, value: values[index] }));
      const path = pathOf(own, { from, to: at, top: ceiling, width: WIDTH, height: HEIGHT });
      setAttribute(line, "d", path.line);
      setAttribute(area, "d", path.area);
    }
    const latest = points.at(-1)?.values ?? [];
    setText(now, said(latest[0]));
    for (const [index, { value }] of keys.entries()) setText(value, said(latest[index]));
    setText(top, format(ceiling));
    const all = series.map(({ name }, index) => `${name} ${said(latest[index])}`).join(", ");
    setAttribute(svg, "aria-label", `${label}: ${all} now, maximum ${format(most)} in the time shown`);
  }

  function said(value) {
    return Number.isFinite(value) ? format(value) : "–";
  }
}

/** Returns the top of the axis: the next round number (1, 2, 3, 4, 5, 6, 8, 10, 20, …) that is not below `most`. */
export function niceTop(most) {
  if (!(most > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return unit * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= most * 0.999_999);
}

/** Returns the SVG paths of a line and of the area below it. A value that is not finite leaves a gap. */
export function pathOf(points, { from, to, top, width, height }) {
  const place = ({ at, value }) => {
    const x = Math.min(Math.max(((at - from) / (to - from)) * width, 0), width);
    return { x: x.toFixed(1), y: (height - 1 - (value / top) * (height - 3)).toFixed(1) };
  };
  const runs = [[]];
  for (const point of points) {
    if (point.at < from) continue;
    if (Number.isFinite(point.value)) runs.at(-1).push(place(point));
    else if (runs.at(-1).length > 0) runs.push([]);
  }
  const drawn = runs.filter((run) => run.length > 0);
  const line = drawn.map((run) => `M${run.map(({ x, y }) => `${x},${y}`).join("L")}`).join("");
  const area = drawn.map(
    (run) => `M${run[0].x},${height}L${run.map(({ x, y }) => `${x},${y}`).join("L")}L${run.at(-1).x},${height}Z`,
  );
  return { line, area: area.join("") };
}

function key({ name, tone }) {
  const value = el("b", {}, "–");
  const element = el("span", { class: "plot-key", "data-tone": tone }, el("i", { "aria-hidden": "true" }), `${name} `, value);
  return { element, value };
}

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
