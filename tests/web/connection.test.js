import assert from "node:assert/strict";
import { test } from "node:test";
import { delayMs, verdict } from "../../src/web/backoff.js";
import { Connection } from "../../src/web/connection.js";
import { FakeWorld } from "./fakes.js";

function connect({ token = null, random = 0.5 } = {}) {
  const world = new FakeWorld();
  const seen = { links: [], ready: 0, frames: [], token };
  const connection = new Connection({
    open: world.open,
    timers: world.timers,
    now: world.now,
    random: () => random,
    token: () => seen.token,
    onLink: (link) => seen.links.push(link),
    onReady: () => (seen.ready += 1),
    onFrame: (frame) => seen.frames.push(frame),
  });
  connection.start();
  return { world, seen, connection, phase: () => seen.links.findLast((link) => link.phase)?.phase };
}

test("a guest is ready with the welcome, a signed-in viewer after the answer to auth", () => {
  const guest = connect();
  guest.world.say({ type: "welcome" });
  assert.equal(guest.seen.ready, 1);
  const viewer = connect({ token: "jwt" });
  viewer.world.say({ type: "welcome" });
  assert.deepEqual(
    [viewer.seen.ready, viewer.world.socket.sent],
    [0, [{ type: "auth", id: "auth", token: "jwt" }]],
  );
  viewer.world.say({ type: "authenticated", id: "auth" });
  assert.equal(viewer.seen.ready, 1);
});

test("a refused token ends it by name", () => {
  const { world, seen, phase } = connect({ token: "jwt" });
  world.say({ type: "welcome" });
  world.say({ type: "error", id: "auth", code: "unauthorized" });
  world.pass(600_000);
  assert.deepEqual(
    [phase(), seen.links.at(-1).stop.reason, world.sockets.length],
    ["stopped", "unauthorized", 1],
  );
});

test("a dropped socket comes back after a jittered wait", () => {
  const { world, seen, phase } = connect();
  world.say({ type: "welcome" });
  world.cut();
  assert.deepEqual([phase(), seen.links.at(-1).retryAt - world.time], ["waiting", 250]);
  world.pass(249);
  assert.equal(world.sockets.length, 1);
  world.pass(1);
  assert.equal(world.sockets.length, 2);
});

test("waits grow while connections are short, and are forgiven after a stable one", () => {
  const { world, seen, connection } = connect();
  for (let round = 0; round < 4; round += 1) {
    world.say({ type: "welcome" });
    connection.settled();
    world.pass(1000);
    world.cut();
    world.pass(seen.links.at(-1).retryAt - world.time);
  }
  assert.equal(seen.links.findLast((link) => link.phase === "waiting").failures, 4);
  world.say({ type: "welcome" });
  connection.settled();
  world.pass(5000);
  world.cut();
  assert.equal(seen.links.at(-1).failures, 1);
});

test("close codes from 4500 stay away, below come back", () => {
  assert.deepEqual([1001, 1006, 1012, 4008, 4499].map(verdict), Array(5).fill("retry"));
  assert.deepEqual([4500, 4501, 4777, 4999].map(verdict), Array(4).fill("stop"));
  const { world, seen } = connect();
  world.say({ type: "welcome" });
  world.cut(4503);
  world.pass(600_000);
  assert.deepEqual([seen.links.at(-1).stop.reason, world.sockets.length], ["banned", 1]);
});

test("an expired token comes back only with a fresh one", () => {
  const same = connect({ token: "old" });
  same.world.say({ type: "welcome" });
  same.world.cut(4001);
  assert.equal(same.seen.links.at(-1).stop.reason, "token_expired");
  const fresh = connect({ token: "old" });
  fresh.world.say({ type: "welcome" });
  fresh.seen.token = "new";
  fresh.world.cut(4001);
  assert.equal(fresh.phase(), "waiting");
});

test("the server's advice sets the wait, and is followed even when it does not close", () => {
  const { world, seen } = connect();
  world.say({ type: "welcome" });
  world.say({ type: "reconnect", reason: "draining", after_ms: 1840 });
  world.cut(1012);
  assert.equal(seen.links.at(-1).retryAt - world.time, 1840);
  const left = connect();
  left.world.say({ type: "welcome" });
  left.world.say({ type: "reconnect", after_ms: 1000 });
  left.world.pass(1001);
  assert.equal(left.world.sockets.length, 2);
});

test("silence is answered by a ping, and no answer by a new socket", () => {
  const { world } = connect();
  world.say({ type: "welcome", heartbeat_ms: 10_000 });
  world.pass(10_000);
  assert.deepEqual(world.socket.sent, [{ type: "ping" }]);
  world.say({ type: "pong" });
  world.pass(16_000);
  assert.equal(world.socket.sent.length, 2);
  world.pass(4000);
  assert.equal(world.sockets.length, 2);
});

test("a machine that slept asks at once and does not wait long", () => {
  const { world } = connect();
  world.say({ type: "welcome", heartbeat_ms: 25_000 });
  world.sleep(3_600_000);
  assert.deepEqual(world.socket.sent, [{ type: "ping" }]);
  world.pass(3200);
  assert.equal(world.sockets.length, 2);
});

test("a socket that was given up is not heard any more", () => {
  const { world, seen } = connect();
  const first = world.socket;
  world.pass(10_500);
  assert.equal(world.sockets.length, 2);
  first.onmessage({ data: '{"type":"welcome"}' });
  first.onclose({ code: 4503 });
  assert.deepEqual([seen.ready, seen.links.at(-1).phase], [0, "connecting"]);
});

test("what is not JSON is passed over", () => {
  const { world, seen } = connect();
  world.socket.onmessage({ data: "{" });
  world.socket.onmessage({ data: "null" });
  assert.equal(seen.frames.length, 0);
});

test("a wait lies below its bound, and patience is kept where it is asked for", () => {
  assert.equal(delayMs(0, 1006, 0), 0);
  assert.ok(delayMs(3, 1006, 0.999) < 4000);
  assert.ok(delayMs(99, 1006, 0.999) < 20_000);
  assert.ok(delayMs(0, 4029, 0) >= 5000);
});
