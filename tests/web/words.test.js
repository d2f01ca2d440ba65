import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { contrast, initials, NAME_BACKGROUNDS, nameColour, rgb } from "../../src/web/colour.js";
import { characters, countdown, percent, spokenDuration } from "../../src/web/format.js";
import { addressOf, identityOf, isSessionId, placeOf } from "../../src/web/identity.js";
import { niceTop, pathOf } from "../../src/web/plot.js";
import { sample, SAMPLES_MAX, votesPerMinute } from "../../src/web/samples.js";
import { hasInk } from "../../src/web/text.js";

const SESSION = "5e551000-0000-4000-8000-000000000001";

test("every name is readable on the worst background of each colour scheme", () => {
  for (let at = 0; at < 2000; at += 1) {
    const [light, dark] = [...nameColour(`user-${at}`).matchAll(/hsl\((\d+) (\d+)% (\d+)%\)/g)].map((match) =>
      rgb(...match.slice(1).map(Number)),
    );
    assert.ok(contrast(light, NAME_BACKGROUNDS.light) >= 4.5, `user-${at} on light`);
    assert.ok(contrast(dark, NAME_BACKGROUNDS.dark) >= 4.5, `user-${at} on dark`);
  }
});

test("contrast follows the WCAG formula", () => {
  assert.equal(contrast([255, 255, 255], [0, 0, 0]), 21);
  assert.deepEqual(rgb(120, 100, 50), [0, 255, 0]);
});

test("initials work in any script", () => {
  assert.deepEqual(["The Low Tide", "彩 Aya", "عمر", "🎬", "", "<img>"].map(initials), [
    "LT",
    "彩A",
    "ع",
    "🎬",
    "?",
    "I",
  ]);
});

test("percent shows 0% and 100% only for exact values", () => {
  assert.deepEqual([0, 0.001, 0.5, 0.999, 1].map(percent), ["0%", "<1%", "50%", "99%", "100%"]);
});

test("countdown and spokenDuration format the remaining time", () => {
  assert.deepEqual([0, 999, 61_000, 7_384_000].map(countdown), ["0:00", "0:01", "1:01", "2:03:04"]);
  assert.deepEqual([3000, 240_000, 7_500_000].map(spokenDuration), ["3 s", "4 min", "2 h 5 min"]);
});

test("characters counts like the database", () => {
  assert.equal(characters("a🍿é"), 3);
});

test("placeOf reads what addressOf writes", () => {
  const address = new URL(addressOf(SESSION, "a.b.c"), "http://x/");
  assert.deepEqual(placeOf(address.search, address.hash), { session: SESSION, token: "a.b.c" });
  assert.deepEqual(placeOf("", ""), { session: null, token: null });
  assert.deepEqual([isSessionId(SESSION), isSessionId("nope")], [true, false]);
});

test("identityOf reads the name in a token, and returns a guest for a broken one", () => {
  const token = (claims) => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;
  assert.equal(
    identityOf(token({ sub: "u", role: "authenticated", user_metadata: { username: "Zoë" } })).name,
    "Zoë",
  );
  assert.equal(identityOf(token({ role: "anon" })).anonymous, true);
  assert.equal(identityOf("rubbish").anonymous, true);
  assert.equal(identityOf(null).name, "Guest");
});

test("the vote rate counts growth within one poll, and the samples are bounded", () => {
  let samples = [];
  const at = (now, voting, total) => (samples = sample(samples, { now, viewers: 1, voting, total }));
  at(0, "a", 5);
  at(2000, "a", 9);
  at(4000, "a", 9);
  // Four votes in four seconds.
  assert.equal(votesPerMinute(samples), 60);
  at(6000, "b", 50);
  assert.equal(samples.at(-1).rose, 0);
  at(60_000, "b", 49);
  assert.equal(votesPerMinute(samples), 0);
  // A hidden tab takes a sample only once a minute. No vote is lost.
  at(120_000, "b", 139);
  assert.equal(votesPerMinute(samples), 90);
  for (let now = 0; now < SAMPLES_MAX + 200; now += 1) at(130_000 + now, "b", 49);
  assert.equal(samples.length, SAMPLES_MAX);
});

test("the top of a plot is a round number not below any value", () => {
  assert.deepEqual([0, 0.003, 1, 3, 7, 12, 20, 480].map(niceTop), [1, 0.003, 1, 3, 8, 20, 20, 500]);
});

test("a line stays in its box, starts at the edge, and leaves a gap for missing values", () => {
  const box = { from: 100, to: 200, top: 10, width: 600, height: 120 };
  const points = [50, 100, 150, 160, 200].map((at) => ({ at, value: at === 160 ? Number.NaN : 10 }));
  const { line, area } = pathOf(points, box);
  assert.equal(line, "M0.0,2.0L300.0,2.0M600.0,2.0");
  assert.equal(area.match(/M/g).length, 2);
  assert.deepEqual(pathOf([], box), { line: "", area: "" });
});

test("a text is visible if it has one visible character", () => {
  for (const blank of ["", " \n", "\u200b\u00a0\u3000", "\u3164\ufe0f", "\u{e0020}"])
    assert.equal(hasInk(blank), false, blank);
  for (const text of ["a", " . ", "\u200f\u05d0", "\u{1f469}\u200d\u{1f680}"]) assert.equal(hasInk(text), true, text);
});

test("placeOf accepts a session id in upper case, in braces or as a urn", () => {
  const upper = "5E551000-0000-4000-8000-00000000ABCD";
  for (const text of [upper, `{${upper}}`, `urn:uuid:${upper}`, upper.replaceAll("-", ""), ` ${upper} `])
    assert.equal(placeOf(`?session=${encodeURIComponent(text)}`, "").session, upper.toLowerCase());
  assert.equal(isSessionId(upper), true);
  assert.equal(isSessionId("movie night"), false);
  assert.equal(placeOf("?session=Movie", "").session, "Movie");
});

test("identityOf returns the user id in lower case, as the server's messages do", () => {
  const claims = { sub: "AAAAAAAA-0000-4000-8000-00000000000A", role: "authenticated" };
  const token = `head.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.signature`;
  assert.equal(identityOf(token).sub, claims.sub.toLowerCase());
});

test("no page reads the device clock directly, because it can be set back", () => {
  const folder = new URL("../../src/web/", import.meta.url);
  const readers = readdirSync(folder)
    .filter((name) => name.endsWith(".js"))
    .filter((name) => /Date\.now|new Date\(\)/.test(readFileSync(new URL(name, folder), "utf8")));
  assert.deepEqual(readers, []);
});
