// Times from a gateway that are out of bounds. A browser runs a timer of more than 31 bits immediately, in a loop.

import { expect, test } from "vitest";

import { advisedMs } from "../src/backoff.ts";
import { realWorld } from "../src/world.ts";
import { admit, events, following, inFakeWorld, SESSION, settle, subscribed, WELCOME } from "./fakes.ts";

const HUGE = [2 ** 31, 2 ** 40, Number.MAX_VALUE];
const FIVE_MINUTES = 5 * 60_000;

test("advisedMs limits a time to its bounds", () => {
  expect(advisedMs(700, 100)).toBe(700);
  expect([advisedMs(0, 100), advisedMs(-5, 100), advisedMs(Number.NaN, 100, 900)]).toEqual([100, 100, 900]);
  expect([advisedMs("700", 100, 900), advisedMs(null, 100), advisedMs(undefined, 100)]).toEqual([900, 100, 100]);
  for (const huge of [...HUGE, Number.POSITIVE_INFINITY]) expect(advisedMs(huge, 100)).toBe(FIVE_MINUTES);
});

test.each(HUGE)("a message that a busy gateway refuses for %d ms fails with busy after 15 s", async (ms) => {
  const { world, session } = await following();
  const outcome = session.send("hello").catch((error: { code: string }) => error.code);
  world.socket.say({ type: "error", id: world.socket.last("send").id, code: "busy", retry_after_ms: ms });
  await world.passAlive(14_000);
  expect(world.socket.of("send")).toHaveLength(1);
  await world.passAlive(2000);
  expect(await outcome).toBe("busy");
});

test.each(HUGE)("the client subscribes again five minutes after a refusal for %d ms", async (ms) => {
  const { world, usher } = inFakeWorld();
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  const refused = { type: "error", id: world.socket.last("subscribe").id, code: "unavailable", retry_after_ms: ms };
  world.socket.say(refused);
  await world.passAlive(FIVE_MINUTES - 1000);
  expect(world.socket.of("subscribe")).toHaveLength(1);
  await world.passAlive(2000);
  expect(world.socket.of("subscribe")).toHaveLength(2);
});

test("the client waits at least 100 ms after a refusal for 0 ms", async () => {
  const { world, usher } = inFakeWorld();
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  for (let turn = 0; turn < 100; turn += 1) {
    const { id } = world.socket.last("subscribe");
    world.socket.say({ type: "error", id, code: "unavailable", retry_after_ms: 0 });
    await world.pass(10);
  }
  expect(world.socket.of("subscribe").length).toBeLessThanOrEqual(12);
});

test.each(HUGE)(
  "with a heartbeat of %d ms the client pings after five minutes and detects a dead socket",
  async (heartbeat_ms) => {
    const { world, usher } = inFakeWorld();
    usher.session(SESSION);
    await settle();
    const [socket] = world.sockets;
    world.socket.say({ ...WELCOME, heartbeat_ms });
    world.socket.say(subscribed());
    world.socket.say(events());
    await world.pass(60_000);
    expect(socket?.of("ping")).toHaveLength(0);
    await world.pass(FIVE_MINUTES);
    expect(socket?.of("ping")).toHaveLength(1);
    expect(world.socket).not.toBe(socket);
  },
);

test.each(HUGE)("the client reconnects five minutes after a reconnect frame with %d ms", async (after_ms) => {
  const { world } = await following();
  world.socket.say({ type: "reconnect", reason: "draining", after_ms });
  world.socket.cut(1012);
  await world.pass(FIVE_MINUTES - 1000);
  expect(world.sockets).toHaveLength(1);
  await world.pass(1000);
  expect(world.sockets).toHaveLength(2);
});

test.each(HUGE)(
  "the client sends its token again five minutes after a refusal for %d ms on an open socket",
  async (retry_after_ms) => {
    let current = "t1";
    const { world, usher } = await following({ getToken: () => current });
    current = "t2";
    usher.renewToken();
    await settle();
    expect(world.socket.of("auth")).toHaveLength(2);
    world.socket.say({ type: "error", id: 0, code: "unavailable", retry_after_ms });
    await world.passAlive(FIVE_MINUTES - 1000);
    expect(world.socket.of("auth")).toHaveLength(2);
    await world.passAlive(2000);
    expect(world.socket.of("auth")).toHaveLength(3);
  },
);

test.each(HUGE)("the client signs in again five minutes after a refusal for %d ms", async (retry_after_ms) => {
  const { world, usher } = inFakeWorld({ getToken: () => "token" });
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: 0, code: "unavailable", retry_after_ms });
  expect((usher.connection.retryAt ?? 0) - world.time).toBe(FIVE_MINUTES);
  await world.pass(FIVE_MINUTES);
  await admit(world);
  expect([usher.connection.status, world.sockets.length]).toEqual(["open", 2]);
});

test("a timer of realWorld that is too long does not run immediately", async () => {
  const { setTimer, clearTimer } = realWorld();
  let hasRun = false;
  const timers = HUGE.map((ms) => setTimer(() => (hasRun = true), ms));
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (const timer of timers) clearTimer(timer);
  expect(hasRun).toBe(false);
});
