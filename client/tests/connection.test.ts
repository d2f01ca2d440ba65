// Connecting, signing in, liveness checks and reconnecting, in a fake world whose time the tests control.

import { expect, test } from "vitest";

import { delayMs, verdict } from "../src/backoff.ts";
import { StoppedError } from "../src/errors.ts";
import { admit, following, inFakeWorld, SESSION, settle, subscribed, WELCOME } from "./fakes.ts";

test("the client opens no socket before the app follows a session, and one socket for all sessions", async () => {
  const { world, usher } = inFakeWorld();
  await world.pass(60_000);
  expect(world.sockets).toHaveLength(0);
  usher.session(SESSION);
  usher.session("other");
  await settle();
  world.socket.say(WELCOME);
  expect(world.sockets).toHaveLength(1);
  expect(world.socket.url).toBe("wss://gateway.example/v1/socket");
  expect(world.socket.of("subscribe").map((frame) => frame.session)).toEqual([SESSION, "other"]);
});

test.each([
  ["https://gateway.example/", "wss://gateway.example/v1/socket"],
  ["wss://gateway.example/v1/socket", "wss://gateway.example/v1/socket"],
  ["http://127.0.0.1:4000", "ws://127.0.0.1:4000/v1/socket"],
  ["https://example.org/usher", "wss://example.org/usher/v1/socket"],
])("the socket of %s is %s", async (url, socket) => {
  const { world, usher } = inFakeWorld({ url });
  usher.session(SESSION);
  await settle();
  expect(world.socket.url).toBe(socket);
});

test("connect throws for a URL without a scheme", () => {
  expect(() => inFakeWorld({ url: "gateway.example" })).toThrow(StoppedError);
});

test("the client signs in before it subscribes, and keeps the token out of the URL", async () => {
  const { world, usher } = inFakeWorld({ getToken: async () => "secret" });
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  expect(world.socket.said.map((frame) => frame.type)).toEqual(["auth"]);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  expect(world.socket.said.map((frame) => frame.type)).toEqual(["auth", "subscribe"]);
  expect(world.socket.url).not.toContain("secret");
});

test("the client unsubscribes 3 s after the last close, and disconnects after the last session", async () => {
  const { world, usher, session } = await following();
  const again = usher.session(SESSION);
  session.close();
  session.close();
  await world.pass(10_000);
  expect(usher.connection.status).toBe("open");
  again.close();
  usher.session(SESSION).close();
  await world.pass(2000);
  expect(usher.connection.status).toBe("open");
  await world.pass(2000);
  expect(usher.connection.status).toBe("idle");
  expect(world.socket.of("unsubscribe")).toHaveLength(1);
  expect(world.socket.closed).toBe(1000);
  expect([world.timers, world.watchers.size]).toEqual([0, 0]);
});

test("the range of a close code decides the reaction, even for unknown codes", () => {
  const codes = [1006, 1001, 1012, 1013, 4000, 4001, 4008, 4029, 4444, 4499, 4500, 4501, 4503, 4509, 4777];
  expect(Object.fromEntries(codes.map((code) => [code, verdict(code)]))).toMatchInlineSnapshot(`
    {
      "1001": "retry",
      "1006": "retry",
      "1012": "retry",
      "1013": "retry_later",
      "4000": "retry",
      "4001": "renew_token",
      "4008": "retry",
      "4029": "retry_later",
      "4444": "retry",
      "4499": "retry",
      "4500": "stop",
      "4501": "renew_token",
      "4503": "stop",
      "4509": "retry",
      "4777": "stop",
    }
  `);
});

test("the delay has full jitter below a bound that doubles", () => {
  expect([0, 1, 2, 5, 20].map((failures) => delayMs(failures, 1006, 0.999999))).toEqual([
    500, 1000, 2000, 16_000, 20_000,
  ]);
  expect(delayMs(5, 1006, 0)).toBe(0);
  expect(delayMs(0, 4029, 0)).toBe(5000);
});

test("the client reconnects with growing delays, and resets them after a stable connection", async () => {
  const { world, usher } = await following();
  for (let failures = 1; failures <= 4; failures += 1) {
    world.socket.cut();
    expect(usher.connection).toMatchObject({ status: "waiting", failures });
    const wait = (usher.connection.retryAt ?? 0) - world.time;
    expect(wait).toBe(0.5 * 500 * 2 ** (failures - 1));
    await world.pass(wait);
    expect(world.sockets).toHaveLength(1 + failures);
  }
  await admit(world, { recovered: true });
  expect(usher.connection.failures).toBe(4);
  await world.pass(5000);
  expect(usher.connection.failures).toBe(0);
});

test("the client reconnects exactly at the time that the gateway gives, even if a signal wakes it", async () => {
  const { world, usher } = await following();
  world.socket.say({ type: "reconnect", reason: "draining", after_ms: 1840 });
  world.socket.cut(1012);
  expect((usher.connection.retryAt ?? 0) - world.time).toBe(1840);
  world.signal("wake");
  world.signal("online");
  usher.wake();
  await world.pass(1839);
  expect(world.sockets).toHaveLength(1);
  await world.pass(1);
  expect(world.sockets).toHaveLength(2);
});

test("the client leaves a gateway that announces a restart and then hangs", async () => {
  const { world } = await following();
  world.socket.say({ type: "reconnect", reason: "draining", after_ms: 1000 });
  await world.pass(1600);
  expect(world.sockets).toHaveLength(2);
});

test("close codes from 4500 stop the connection with an error code until the app asks again", async () => {
  const { world, usher, session } = await following();
  world.socket.cut(4777);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: "refused", closeCode: 4777 } });
  expect([session.status, session.state.error?.code]).toEqual(["stopped", "refused"]);
  await expect(session.send("hello")).rejects.toMatchObject({ code: "refused" });
  await world.pass(600_000);
  world.signal("online");
  expect(world.sockets).toHaveLength(1);
  usher.renewToken();
  await admit(world, { recovered: true });
  expect(session.status).toBe("live");
});

test("the client pings after each silent interval, and reconnects if no answer arrives", async () => {
  const { world, usher } = await following();
  await world.pass(25_000);
  expect(world.socket.of("ping")).toHaveLength(1);
  world.socket.say({ type: "pong" });
  await world.pass(25_000);
  expect(world.socket.of("ping")).toHaveLength(2);
  await world.pass(6000);
  expect(world.socket.closed).toBe(1000);
  expect(usher.connection.status).toBe("waiting");
});

test("after a sleep, the client waits only 2.5 s for an answer", async () => {
  const { world } = await following();
  await world.sleep(8 * 3_600_000);
  expect(world.socket.of("ping")).toHaveLength(1);
  await world.pass(2500 + 250);
  expect(world.sockets).toHaveLength(2);
});

test("when the page wakes up or the network returns, the client checks the socket immediately", async () => {
  const { world, usher } = await following();
  world.signal("offline");
  expect(usher.connection.online).toBe(false);
  world.socket.say({ type: "pong" });
  world.signal("wake");
  world.signal("wake");
  expect(world.socket.of("ping")).toHaveLength(2);
  await world.pass(2500);
  expect(usher.connection).toMatchObject({ status: "waiting", online: false });
  world.signal("online");
  await settle();
  expect(usher.connection.online).toBe(true);
  await world.pass(0);
  expect(world.sockets).toHaveLength(2);
});

test("the client ignores frames of an abandoned socket", async () => {
  const { world, usher, session } = await following();
  const old = world.socket;
  old.cut();
  await world.pass(250);
  old.say({ type: "viewers", session: SESSION, count: 99 });
  old.cut(4503);
  expect(session.viewers).toBe(3);
  expect(usher.connection.status).toBe("connecting");
});

test("the client gives up a socket that does not open in 15 s", async () => {
  const { world, usher } = inFakeWorld();
  usher.session(SESSION);
  await world.pass(15_000);
  expect(usher.connection).toMatchObject({ status: "waiting", failures: 1, error: null });
  expect(world.sockets).toHaveLength(1);
});

test("after 4001 the client reconnects immediately with a new token, or waits until the app has one", async () => {
  let token = "old";
  const { world, usher, session } = await following({ getToken: () => token });
  token = "fresh";
  world.socket.cut(4001);
  await settle();
  expect(world.sockets).toHaveLength(2);
  await admit(world, { recovered: true });
  expect(world.socket.last("auth").token).toBe("fresh");
  expect(session.continuity.resumes).toBe(1);

  world.socket.cut(4001);
  await settle();
  expect(world.sockets).toHaveLength(2);
  expect(usher.connection).toMatchObject({ status: "waiting", error: { code: "token_expired", name: "TokenError" } });
  token = "fresher";
  usher.renewToken();
  await world.pass(0);
  expect(world.sockets).toHaveLength(3);
  await admit(world, { recovered: true });
  expect(world.socket.last("auth").token).toBe("fresher");
  expect(usher.connection).toMatchObject({ status: "open", error: null });
});

test("after token_expiring the client asks for a new token until it gets one, and sends it", async () => {
  let token = "old";
  const { world } = await following({ getToken: () => token });
  world.socket.say({ type: "token_expiring" });
  await world.pass(15_000);
  expect(world.socket.of("auth")).toHaveLength(1);
  token = "fresh";
  await world.pass(10_000);
  expect(world.socket.of("auth").map((frame) => frame.token)).toEqual(["old", "fresh"]);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  await world.pass(10_000);
  expect([world.sockets.length, world.socket.of("auth").length, world.socket.of("subscribe").length]).toEqual([
    1, 2, 1,
  ]);
});

test("after onTokenChange the client sends a new token immediately, and does not repeat the same token", async () => {
  let token = "old";
  let changed = () => {};
  let isWatched = false;
  const { world, usher } = await following({
    getToken: () => token,
    onTokenChange(on) {
      [changed, isWatched] = [on, true];
      return () => (isWatched = false);
    },
  });
  changed();
  await world.pass(60);
  expect(world.socket.of("auth")).toHaveLength(1);
  token = "fresh";
  changed();
  await settle();
  expect(world.socket.of("auth")).toHaveLength(2);
  usher.close();
  expect(isWatched).toBe(false);
});

test("the client does not send a refused token again, but tries another one", async () => {
  let token = "bad";
  const { world, usher, session } = inFakeWorldFollowing({ getToken: () => token });
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: 0, code: "unauthorized", message: "the token is not valid" });
  await world.pass(60_000);
  expect(world.sockets).toHaveLength(1);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: "unauthorized" } });
  expect(session.state.error?.code).toBe("unauthorized");
  token = "good";
  usher.renewToken();
  await admit(world);
  expect([usher.connection.status, session.status]).toEqual(["open", "live"]);
});

test("the client signs in again later if the gateway cannot check the token yet", async () => {
  const { world, usher } = inFakeWorldFollowing({ getToken: () => "token" });
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: 0, code: "unavailable", message: "try again", retry_after_ms: 3000 });
  expect((usher.connection.retryAt ?? 0) - world.time).toBe(3000);
});

test("a gateway that requires a token stops the connection until the viewer signs in", async () => {
  let token: string | null = null;
  const { world, usher } = inFakeWorldFollowing({ getToken: () => token });
  await settle();
  world.socket.say(WELCOME);
  world.socket.cut(4501);
  await world.pass(60_000);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: "unauthorized" } });
  token = "mine";
  usher.renewToken();
  await settle();
  expect(world.sockets).toHaveLength(2);
});

test("another user gets a new socket, without the pending messages of the first user", async () => {
  let token: string | null = "first";
  const { world, usher, session } = await following({ getToken: () => token });
  const sent = session.send("mine alone");
  token = "second";
  usher.renewToken();
  await settle();
  world.socket.cut(4509);
  await world.pass(500);
  await admit(world, { recovered: true, seq: 0 }, "another user");
  await expect(sent).rejects.toMatchObject({ code: "identity_changed" });
  expect(world.socket.of("send")).toHaveLength(0);
  expect(session.pending).toHaveLength(0);
  expect(world.socket.last("subscribe").resume).toEqual({ seq: 0, epoch: "e1" });

  token = null;
  usher.renewToken();
  await admit(world, { recovered: true });
  expect([world.sockets.length, world.socket.of("auth").length]).toEqual([3, 0]);
});

test("without a WebSocket class the connection stops with no_websocket", async () => {
  const { world, usher, session } = inFakeWorldFollowing();
  world.openSocket = () => {
    throw new StoppedError("no_websocket", "none here");
  };
  await settle();
  expect(usher.connection.error?.code).toBe("no_websocket");
  expect(session.state.error?.code).toBe("no_websocket");
});

test("the client ignores invalid frames and frames of later versions", async () => {
  const { world, session } = await following();
  for (const data of ["", "x", "[]", "null", "1", '{"type":"of_the_future","session":1}', new ArrayBuffer(3)])
    world.socket.onmessage?.({ data });
  world.socket.say({ type: "of_the_future", session: SESSION });
  world.socket.say({ ...subscribed({ recovered: true }), novel: true });
  expect(session.status).toBe("live");
});

function inFakeWorldFollowing(options = {}) {
  const it = inFakeWorld(options);
  return { ...it, session: it.usher.session(SESSION) };
}
