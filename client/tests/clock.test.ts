// The client's clock, while the device clock changes.

import { readdirSync, readFileSync } from "node:fs";

import fc from "fast-check";
import { expect, test } from "vitest";

import { steadyClock } from "../src/clock.ts";
import { realWorld } from "../src/world.ts";
import { admit, FakeWorld, inFakeWorld, SESSION } from "./fakes.ts";

const HOUR = 3_600_000;

test("the clock ignores a device clock that is set back and follows one that jumps ahead", () => {
  const device = { wall: 1_800_000_000_000, monotonic: 5000.25 };
  const now = steadyClock(
    () => device.wall,
    () => device.monotonic,
  );
  const start = now();
  expect(start).toBe(1_800_000_000_000);
  const pass = (wall: number, monotonic: number) => {
    device.wall += wall;
    device.monotonic += monotonic;
    return now() - start;
  };
  expect(pass(1000, 1000)).toBe(1000);
  expect(pass(-HOUR, 0)).toBe(1000);
  expect(pass(25_000, 25_000)).toBe(26_000);
  // The machine sleeps after the clock was set back. The monotonic clock does not count the sleep.
  expect(pass(HOUR, 0)).toBe(26_000 + HOUR);
  expect(pass(5000, 5000)).toBe(31_000 + HOUR);
  // The device clock is corrected.
  expect(pass(HOUR, 10)).toBe(31_000 + 2 * HOUR);
});

test("the clock never runs backwards and never falls behind the monotonic clock", () => {
  const step = fc.record({
    wall: fc.integer({ min: -HOUR, max: HOUR }),
    monotonic: fc.double({ min: 0, max: HOUR, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const device = { wall: 1e12, monotonic: 0 };
      const now = steadyClock(
        () => device.wall,
        () => device.monotonic,
      );
      let last = now();
      for (const { wall, monotonic } of steps) {
        device.wall += wall;
        device.monotonic += monotonic;
        const time = now();
        expect(time - last).toBeGreaterThanOrEqual(Math.floor(monotonic) - 1);
        last = time;
      }
    }),
  );
});

test("the clock does not accumulate small drift between the two clocks", () => {
  const device = { wall: 1e12, monotonic: 0 };
  const now = steadyClock(
    () => Math.floor(device.wall),
    () => device.monotonic,
  );
  const start = now();
  for (let count = 0; count < 100_000; count += 1) {
    device.wall += 0.7;
    device.monotonic += 0.7;
    now();
  }
  expect(Math.abs(now() - start - 70_000)).toBeLessThanOrEqual(1);
});

test("the client detects a dead socket after the device clock is set back", async () => {
  const device = new SteadyWorld();
  const { world, usher } = inFakeWorld({}, device);
  usher.session(SESSION);
  await admit(world);
  device.setBackBy = HOUR;
  await world.pass(25_000);
  expect(world.socket.of("ping")).toHaveLength(1);
  await world.pass(6000);
  expect(usher.connection.status).toBe("waiting");
  await world.pass(500);
  expect(world.sockets).toHaveLength(2);
});

test("a device clock that is set back does not delay a planned reconnect", async () => {
  const device = new SteadyWorld();
  const { world, usher } = inFakeWorld({}, device);
  usher.session(SESSION);
  await admit(world);
  world.socket.say({ type: "reconnect", reason: "draining", after_ms: 2000 });
  world.socket.cut(1012);
  device.setBackBy = HOUR;
  world.signal("wake");
  await world.pass(2000);
  expect(world.sockets).toHaveLength(2);
});

test("realWorld uses this clock", () => {
  const { now } = realWorld();
  const before = now();
  const { now: wall } = Date;
  try {
    Date.now = () => wall() - HOUR;
    expect(now()).toBeGreaterThanOrEqual(before);
    expect(now() - before).toBeLessThan(60_000);
  } finally {
    Date.now = wall;
  }
});

test("an app can count down to the next attempt with the client's clock", async () => {
  const device = new SteadyWorld();
  const { world, usher } = inFakeWorld({}, device);
  usher.session(SESSION);
  await admit(world);
  world.socket.cut();
  device.setBackBy = HOUR;
  const left = (usher.connection.retryAt ?? 0) - usher.now();
  expect(left).toBeGreaterThan(0);
  await world.pass(left - 1);
  expect([world.sockets.length, (usher.connection.retryAt ?? 0) - usher.now()]).toEqual([1, 1]);
  await world.pass(1);
  expect(world.sockets).toHaveLength(2);
});

test("only the clock and token expiry read the device clock, in the example too", () => {
  const readers = ["../src/", "../example/src/"].flatMap((path) => {
    const folder = new URL(path, import.meta.url);
    return readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.tsx?$/.test(name))
      .filter((name) => /Date\.now|new Date\(\)/.test(readFileSync(new URL(name, folder), "utf8")));
  });
  expect(readers.toSorted()).toEqual(["clock.ts", "jwt.ts", "supabase.ts"]);
});

/** A fake world with a device clock that a test can set back. */
class SteadyWorld extends FakeWorld {
  setBackBy = 0;

  override now = steadyClock(
    () => this.time - this.setBackBy,
    () => this.time,
  );
}
