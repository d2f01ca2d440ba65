// Times that a gateway gives, out of all bounds: a browser runs a timer of more than 31 bits at once, and without end.

import { expect, test } from "vitest";

import { advisedMs } from "../src/backoff.ts";
import { realWorld } from "../src/world.ts";
import { admit, events, following, inFakeWorld, SESSION, settle, subscribed, WELCOME } from "./fakes.ts";

const HUGE = [2 ** 31, 2 ** 40, Number.MAX_VALUE];
const FIVE_MINUTES = 5 * 60_000;

test("a time that is given is kept within its bounds", () => {
  expect(advisedMs(700, 100)).toBe(700);
  expect([advisedMs(0, 100), advisedMs(-5, 100), advisedMs(Number.NaN, 100, 900)]).toEqual([100, 100, 900]);
  expect([advisedMs("700", 100, 900), advisedMs(null, 100), advisedMs(undefined, 100)]).toEqual([900, 100, 100]);
  for (const huge of [...HUGE, Number.POSITIVE_INFINITY]) expect(advisedMs(huge, 100)).toBe(FIVE_MINUTES);
});

test.each(HUGE)(
  "a message that a busy gateway refuses for %d ms goes out again after five minutes at most",
  async (ms) => {
    const { world, session } = await following();
    const outcome = session.send("hello").catch((error: { code: string }) => error.code);
    world.socket.say({ type: "error", id: world.socket.last("send").id, code: "busy", retry_after_ms: ms });
    await world.passAlive(14_000);
    expect(world.socket.of("send")).toHaveLength(1);
    await world.passAlive(2000);
    expect(await outcome).toBe("busy");
  },
);

test.each(HUGE)("a subscription that is refused for %d ms is asked for again after five minutes", async (ms) => {
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

test("a subscription that is refused for no time at all is not asked for without a pause", async () => {
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
  "a heartbeat of %d ms does not ping without end, and a dead socket is noticed",
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

test.each(HUGE)(
  "a gateway that leaves and names %d ms is left, and tried again, after five minutes",
  async (after_ms) => {
    const { world } = await following();
    world.socket.say({ type: "reconnect", reason: "draining", after_ms });
    world.socket.cut(1012);
    await world.pass(FIVE_MINUTES - 1000);
    expect(world.sockets).toHaveLength(1);
    await world.pass(1000);
    expect(world.sockets).toHaveLength(2);
  },
);

test.each(HUGE)(
  "a token that cannot be judged for %d ms on an open socket is asked for again",
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

test.each(HUGE)("a sign-in that is refused for %d ms is tried again after five minutes", async (retry_after_ms) => {
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

test("a timer of the world as it is never runs at once for being too long", async () => {
  const { setTimer, clearTimer } = realWorld();
  let hasRun = false;
  const timers = HUGE.map((ms) => setTimer(() => (hasRun = true), ms));
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (const timer of timers) clearTimer(timer);
  expect(hasRun).toBe(false);
});
