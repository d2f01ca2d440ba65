import assert from "node:assert/strict";
import { test } from "node:test";
import { contrast, initials, NAME_BACKGROUND, nameColour, rgb } from "../../src/web/colour.js";
import { characters, countdown, percent, spokenDuration } from "../../src/web/format.js";
import { addressOf, identityOf, isSessionId, placeOf } from "../../src/web/identity.js";
import { sample, SAMPLES_MAX, sparkline, votesPerMinute } from "../../src/web/samples.js";
import { SESSION } from "./fakes.js";

test("every name is readable on the lightest row", () => {
  for (let at = 0; at < 2000; at += 1) {
    const [, hue, saturation, lightness] = nameColour(`user-${at}`)
      .match(/hsl\((\d+) (\d+)% (\d+)%\)/)
      .map(Number);
    assert.ok(contrast(rgb(hue, saturation, lightness), NAME_BACKGROUND) >= 4.5, `user-${at}`);
  }
});

test("the contrast is reckoned as WCAG does", () => {
  assert.equal(contrast([255, 255, 255], [0, 0, 0]), 21);
  assert.deepEqual(rgb(120, 100, 50), [0, 255, 0]);
});

test("initials are found in any writing", () => {
  assert.deepEqual(["The Low Tide", "彩 Aya", "عمر", "🎬", "", "<img>"].map(initials), [
    "LT",
    "彩A",
    "ع",
    "🎬",
    "?",
    "I",
  ]);
});

test("shares never lie at the edges", () => {
  assert.deepEqual([0, 0.001, 0.5, 0.999, 1].map(percent), ["0%", "<1%", "50%", "99%", "100%"]);
});

test("what is left is said in full", () => {
  assert.deepEqual([0, 999, 61_000, 7_384_000].map(countdown), ["0:00", "0:01", "1:01", "2:03:04"]);
  assert.deepEqual([3000, 240_000, 7_500_000].map(spokenDuration), ["3 s", "4 min", "2 h 5 min"]);
});

test("characters are counted as the database counts them", () => {
  assert.equal(characters("a🍿é"), 3);
});

test("the address is read and written alike", () => {
  const address = new URL(addressOf(SESSION, "a.b.c"), "http://x/");
  assert.deepEqual(placeOf(address.search, address.hash), { session: SESSION, token: "a.b.c" });
  assert.deepEqual(placeOf("", ""), { session: null, token: null });
  assert.deepEqual([isSessionId(SESSION), isSessionId("nope")], [true, false]);
});

test("a token names its bearer, and a broken one names nobody", () => {
  const token = (claims) => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;
  assert.equal(
    identityOf(token({ sub: "u", role: "authenticated", user_metadata: { username: "Zoë" } })).name,
    "Zoë",
  );
  assert.equal(identityOf(token({ role: "anon" })).anonymous, true);
  assert.equal(identityOf("rubbish").anonymous, true);
  assert.equal(identityOf(null).name, "Guest");
});

test("the vote rate counts rises of one voting only, and is bounded", () => {
  let samples = [];
  for (const [at, voting, total] of [
    [0, "a", 5],
    [5000, "a", 9],
    [10_000, "b", 50],
    [15_000, "b", 53],
    [20_000, "b", 51],
  ])
    samples = sample(samples, { now: at, viewers: 1, voting, total });
  assert.equal(votesPerMinute(samples, 20_000), 7);
  for (let at = 0; at < 200; at += 1)
    samples = sample(samples, { now: at, viewers: 1, voting: "b", total: 1 });
  assert.equal(samples.length, SAMPLES_MAX);
});

test("a line stays in its box", () => {
  const points = sparkline(
    Array.from({ length: SAMPLES_MAX }, (_, at) => at % 7),
    240,
    48,
  )
    .split(" ")
    .map((point) => point.split(",").map(Number));
  assert.ok(points.every(([x, y]) => x >= -0.1 && x <= 240.1 && y >= 0 && y <= 48));
});
