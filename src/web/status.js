// The operator's status page: plots of /metrics over the last ten minutes.

import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { count, shortCount } from "./format.js";
import { addressOf, placeOf } from "./identity.js";
import { grownBy, parse, quantileOf, rateOf, valueOf } from "./openmetrics.js";
import { now as time } from "./now.js";
import { plotView } from "./plot.js";

const POLL_MS = 2000;
const TIMEOUT_MS = 5000;
const SPAN_MS = 10 * 60_000;
const READINGS_MAX = SPAN_MS / POLL_MS + 1;
const REASONS_MAX = 12;

const PLOTS = [
  plot("audience", "Connections", [["sockets", "amber", now("usher_connections")]]),
  plot("audience", "Sessions watched", [["sessions", "blue", now("usher_sessions")]]),
  plot("audience", "Subscriptions", [["subscriptions", "green", now("usher_subscriptions")]]),
  plot("delivery", "Event chunks per second", [["chunks", "amber", rate("usher_chunks_delivered_total")]], whole),
  plot("delivery", "Bytes sent per second", [["bytes", "blue", rate("usher_bytes_sent_total")]], bytes),
  plot(
    "delivery",
    "Lag from the event's timestamp to fan-out",
    [
      ["p50", "green", quantile("usher_lag_seconds", 0.5)],
      ["p99", "amber", quantile("usher_lag_seconds", 0.99)],
    ],
    duration,
  ),
  plot("queues", "Writes", [["writes", "amber", now("usher_write_queue")]]),
  plot("queues", "Queries", [["queries", "blue", now("usher_query_queue")]]),
  plot("queues", "Commands for the busiest loop", [["commands", "green", now("usher_command_queue")]]),
  plot(
    "refused",
    "New subscriptions per second",
    [
      ["resumed", "green", startRate((kind) => kind.startsWith("recovered"))],
      ["fresh", "amber", startRate((kind) => !kind.startsWith("recovered"))],
    ],
    decimal,
  ),
  plot(
    "refused",
    "Refusals per second",
    [
      ["frames", "amber", rate("usher_refusals_total")],
      ["handshakes", "red", rate("usher_handshake_refusals_total")],
    ],
    decimal,
  ),
  plot("refused", "Failed queries per second", [["failures", "red", rate("usher_query_failures_total")]], decimal),
];
const REFUSALS = ["usher_refusals_total", "usher_handshake_refusals_total", "usher_closes_total"];

const KINDS = {
  usher_refusals_total: "frame:",
  usher_handshake_refusals_total: "handshake:",
  usher_closes_total: "closed with",
};
const OPENED = "usher_connections_opened_total";
const NAMES = {
  database: "Database",
  migrations: "Schema",
  listen: "LISTEN",
  keys: "Keys",
  loops: "Fan-out loops",
  room: "Capacity",
  serving: "Serving",
};

let first = null; // The first reading. Refusals count from here.
let last = null; // {at, samples}
let points = []; // {at, values: one list per plot}
let goodAt = null;

const place = placeOf(location.search, location.hash);
for (const link of byId("nav").querySelectorAll("a"))
  link.href = link.dataset.page + (place.session ? addressOf(place.session, place.token) : "");
setShown(byId("nav"), place.session !== null);
void poll();

async function poll() {
  // A hidden page does not read. Its plots show a gap for that time.
  if (document.visibilityState === "visible") await Promise.all([readMetrics(), readChecks()]);
  else leaveHole();
  setTimeout(poll, POLL_MS);
}

async function readMetrics() {
  const answer = await ask("/metrics");
  const samples = answer.ok ? parse(answer.text) : null;
  if (samples === null) return fail(answer);
  setShown(byId("trouble"), false);
  setAttribute(document.querySelector(".board"), "data-stale", null);
  pill("live", "Up to date");
  fold(time(), samples);
}

function fold(at, samples) {
  const before = last ?? { at, samples };
  const seconds = (at - before.at) / 1000;
  // A restarted gateway counts from zero, and so does this page.
  if (first === null || valueOf(samples, OPENED) < valueOf(before.samples, OPENED)) first = samples;
  const values = PLOTS.map(({ series }) => series.map(({ read }) => read(before.samples, samples, seconds)));
  keep({ at, values });
  last = { at, samples };
  goodAt = at;
  for (const [index, { view }] of PLOTS.entries())
    view.draw(
      points.map(({ at, values }) => ({ at, values: values[index] })),
      at,
    );
  drawReasons(samples);
  const sockets = count(valueOf(samples, OPENED));
  setText(byId("facts"), `${sockets} sockets opened and ${count(valueOf(samples, "usher_notifications_total"))} notifications received since the gateway started.`);
}

function keep(point) {
  points = [...points, point].slice(-READINGS_MAX);
}

function leaveHole() {
  keep({ at: time(), values: PLOTS.map(({ series }) => series.map(() => Number.NaN)) });
}

function drawReasons(samples) {
  const reasons = REFUSALS.flatMap((name) => grownBy(first, samples, name).map((one) => ({ ...one, kind: KINDS[name] })));
  setShown(byId("reasons-none"), reasons.length === 0);
  byId("reasons").replaceChildren(
    ...reasons.slice(0, REASONS_MAX).map(({ kind, name, value }) => el("li", {}, `${kind} ${name} `, el("b", {}, shortCount(value)))),
  );
}

async function readChecks() {
  const { text } = await ask("/readyz");
  const checks = checksOf(text);
  if (checks === null) return byId("checks").replaceChildren(el("li", { "data-state": "unknown" }, "unknown"));
  const items = Object.entries(checks).map(([name, good]) =>
    el("li", { "data-state": good ? "good" : "bad" }, NAMES[name] ?? name),
  );
  const shown = [...byId("checks").children].map((item) => item.outerHTML).join();
  if (shown !== items.map((item) => item.outerHTML).join()) byId("checks").replaceChildren(...items);
}

function checksOf(text) {
  try {
    return JSON.parse(text).checks ?? null;
  } catch {
    return null;
  }
}

/** Fetches a path. Returns {ok, status, text}; `status` is 0 without an answer. */
async function ask(path) {
  try {
    const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    return { ok: response.ok, status: response.status, text: await response.text() };
  } catch {
    return { ok: false, status: 0, text: "" };
  }
}

function fail({ ok, status }) {
  last = null;
  leaveHole();
  const since = goodAt === null ? "" : ` The plots end at ${new Date(goodAt).toLocaleTimeString()}.`;
  const [title, text] = troubleOf(ok, status);
  setText(byId("trouble-title"), title);
  setText(byId("trouble-text"), `${text}${since} This page keeps trying.`);
  setShown(byId("trouble"), true);
  setAttribute(document.querySelector(".board"), "data-stale", "yes");
  pill(status === 0 ? "offline" : "waiting", status === 0 ? "No answer" : "Error");
}

function troubleOf(ok, status) {
  if (status === 0) return ["The gateway does not answer", "It may be stopped or starting, or the network is down."];
  if (ok) return ["Unexpected answer from /metrics", "Another server answers here. Open this page at the gateway's address."];
  if (status === 401 || status === 403 || status === 404)
    return [
      "/metrics is blocked here",
      "The proxy before the gateway blocks it, as it should for the public. Open this page at the gateway's own address.",
    ];
  return ["Cannot read /metrics", `The gateway answered with HTTP ${status}.`];
}

function pill(phase, text) {
  byId("link").dataset.phase = phase;
  setText(byId("link-text"), text);
}

function plot(place, label, series, format = count) {
  const view = plotView({ label, spanMs: SPAN_MS, format, series: series.map(([name, tone]) => ({ name, tone })) });
  byId(place).append(view.figure);
  return { view, series: series.map(([, , read]) => ({ read })) };
}

function now(name) {
  return (_, samples) => valueOf(samples, name);
}

function rate(name) {
  return (before, samples, seconds) => rateOf(before, samples, seconds, name);
}

function quantile(name, share) {
  return (before, samples) => quantileOf(before, samples, name, share);
}

function startRate(isWanted) {
  return (before, samples, seconds) => {
    const grown = grownBy(before, samples, "usher_subscription_starts_total").filter(({ name }) => isWanted(name));
    return seconds > 0 ? grown.reduce((sum, { value }) => sum + value, 0) / seconds : Number.NaN;
  };
}

function whole(value) {
  return shortCount(Math.round(value));
}

function decimal(value) {
  return value >= 10 ? shortCount(Math.round(value)) : String(Math.round(value * 10) / 10);
}

function bytes(value) {
  if (value < 1000) return `${Math.round(value)} B`;
  if (value < 1e6) return `${Number((value / 1000).toPrecision(3))} kB`;
  return `${Number((value / 1e6).toPrecision(3))} MB`;
}

function duration(seconds) {
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(2))} ms` : `${Number(seconds.toPrecision(2))} s`;
}
