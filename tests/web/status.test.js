import assert from "node:assert/strict";
import { test } from "node:test";
import { grownBy, parse, quantileOf, rateOf, valueOf } from "../../src/web/openmetrics.js";
import { settingsOf } from "../../src/web/settings.js";

const reading = (change) =>
  parse(`# HELP usher_connections Sockets that are open.
# TYPE usher_connections gauge
usher_connections ${change.sockets ?? 0}
# TYPE usher_refusals counter
usher_refusals_total{kind="slow_mode"} ${change.slow ?? 0}
usher_refusals_total{kind="odd \\"one\\""} ${change.odd ?? 0}
usher_lag_seconds_bucket{le="0.001"} ${change.fast ?? 0}
usher_lag_seconds_bucket{le="0.5"} ${(change.fast ?? 0) + (change.late ?? 0)}
usher_lag_seconds_bucket{le="+Inf"} ${(change.fast ?? 0) + (change.late ?? 0) + (change.lost ?? 0)}
# EOF
`);

test("valueOf, rateOf and grownBy read two readings", () => {
  const [before, after] = [reading({ slow: 2 }), reading({ sockets: 7, slow: 12, odd: 1 })];
  assert.equal(valueOf(after, "usher_connections"), 7);
  assert.equal(valueOf(after, "usher_nothing"), 0);
  assert.equal(rateOf(before, after, 2, "usher_refusals_total"), 5.5);
  assert.deepEqual(grownBy(before, after, "usher_refusals_total"), [
    { name: "slow_mode", value: 10 },
    { name: 'odd \\"one\\"', value: 1 },
  ]);
});

test("a restart of the gateway gives a gap and not a negative rate", () => {
  assert.ok(Number.isNaN(rateOf(reading({ slow: 9 }), reading({ slow: 1 }), 2, "usher_refusals_total")));
});

test("a quantile covers the time between two readings, and is NaN without values", () => {
  const before = reading({ fast: 1000 });
  assert.equal(quantileOf(before, reading({ fast: 1090, late: 10 }), "usher_lag_seconds", 0.5), 0.001);
  assert.equal(quantileOf(before, reading({ fast: 1090, late: 10 }), "usher_lag_seconds", 0.99), 0.5);
  assert.equal(quantileOf(before, reading({ fast: 1000, lost: 3 }), "usher_lag_seconds", 0.5), 0.5);
  assert.ok(Number.isNaN(quantileOf(before, before, "usher_lag_seconds", 0.5)));
});

test("parse returns null for text that is not from the gateway", () => {
  assert.equal(parse("<!doctype html><title>404</title>"), null);
  assert.equal(parse(""), null);
});

test("the overlay uses known settings and the defaults for the rest", () => {
  const usual = { side: "right", size: "m", chat: true, votes: true, lines: 8, fadeMs: 0, resultMs: 20_000 };
  assert.deepEqual(settingsOf(""), usual);
  assert.deepEqual(settingsOf("?side=up&size=xxl&show=ads&lines=-1&fade=soon"), usual);
  assert.deepEqual(settingsOf("?side=left&size=l&show=votes&lines=99&fade=9999&result=0"), {
    side: "left",
    size: "l",
    chat: false,
    votes: true,
    lines: 20,
    fadeMs: 600_000,
    resultMs: 0,
  });
  assert.equal(settingsOf("?lines=0").lines, 1);
});
