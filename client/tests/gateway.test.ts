// The built package against real gateways: kills, drains and expiring tokens lose no event.

import { type ConnectOptions, connect, type LogEvent, type Session, type SocketClass, type Usher } from "@usher/client";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";

import { type Demo, mint, startDemo, startGateway } from "./gateway.ts";

let demo: Demo;
let clients: Usher[] = [];
let gateways: { stop: () => Promise<void> }[] = [];

beforeAll(async () => {
  demo = await startDemo();
});
afterEach(async () => {
  for (const client of clients) client.close();
  clients = [];
  for (const gateway of gateways) await gateway.stop().catch(() => {});
  gateways = [];
});
afterAll(async () => {
  await demo?.stop();
});

test("two viewers chat and vote, and each receives every event once and in order", async () => {
  const [ayla, bram] = [as("ayla"), as("bram")];
  await ayla.reached("live");
  await bram.reached("live");
  const first = await ayla.session.send("hello from ayla");
  const second = await bram.session.send("hello from bram", { replyTo: first.id });
  expect(second.seq).toBeGreaterThan(first.seq);
  for (const { session } of [ayla, bram]) {
    await until(() => session.messages.some((message) => message.id === second.id));
    expect(session.messages.slice(-2)).toMatchObject([
      { body: "hello from ayla", author: { username: "ayla" }, seq: first.seq },
      { body: "hello from bram", author: { username: "bram" }, reply_to: first.id },
    ]);
    await until(() => session.pending.length === 0);
  }

  const { movies, voting } = demo;
  await ayla.session.vote(voting, movies[0]);
  await bram.session.vote(voting, movies[0]);
  await until(() => ayla.session.tally(voting)?.counts?.find(({ movie }) => movie === movies[0])?.votes === 2);
  expect(ayla.session.tally()?.mine).toBe(movies[0]);
  await ayla.session.vote(voting, null);
  await until(() => bram.session.tally()?.counts?.find(({ movie }) => movie === movies[0])?.votes === 1);
  await until(() => (ayla.session.viewers ?? 0) >= 2);
  for (const each of [ayla, bram]) each.isWhole();
});

test("the gateway refuses invalid requests with an error code", async () => {
  const nobody = connectTo(demo.url);
  await nobody.reached("live");
  expect(nobody.session.can).toMatchObject({ send: false, vote: false });
  await expect(nobody.session.send("hello")).rejects.toMatchObject({ name: "RefusedError" });
  const { session } = as("lina");
  await expect(session.send("")).rejects.toMatchObject({ code: "bad_request" });
  await expect(session.send("x".repeat(2001))).rejects.toMatchObject({ code: "too_large" });
  await expect(session.vote(demo.voting, demo.session)).rejects.toMatchObject({ code: "bad_request" });
  const unknown = clients[0]?.session("00000000-0000-4000-8000-000000000000");
  await until(() => unknown?.status === "stopped");
  expect(unknown?.state.error?.code).toBe("not_found");
});

test("a viewer loads the chat page by page up to its first message, each message once", async () => {
  const late = connectTo(demo.url, { getToken: () => userOf("lina").token, history: 1 });
  await late.reached("live");
  let pages = 0;
  while (late.session.hasOlder) {
    await late.session.older(5);
    pages += 1;
    expect(pages).toBeLessThan(20);
  }
  const { messages } = late.session;
  expect(messages[0]).toMatchObject({ seq: 1, author: { username: "nora" } });
  const numbers = messages.map(({ seq }) => Number(seq));
  expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
  expect(pages).toBeGreaterThan(1);
  expect(await late.session.older()).toBe(false);
});

test("no message is missing or doubled after two kills of the gateway during a chat", async () => {
  const gateway = await startGateway(demo);
  gateways.push(gateway);
  const [otto, yuki] = [as("otto", gateway.url), as("yuki", gateway.url)];
  await otto.reached("live");
  await yuki.reached("live");
  const sent: Promise<{ seq: number }>[] = [];
  let isTalking = true;
  const talking = (async () => {
    for (let count = 0; isTalking; count += 1) {
      sent.push(otto.session.send(`line ${count}`));
      await pause(120);
    }
  })();
  for (let round = 0; round < 2; round += 1) {
    await pause(700);
    await gateway.kill();
    // Another gateway commits a message while this one is down.
    await as("sol").session.send(`meanwhile ${round}`);
    await gateway.start();
    await yuki.reached("live");
    await otto.reached("live");
  }
  isTalking = false;
  await talking;
  const settled = await Promise.all(sent);
  const numbers = settled.map(({ seq }) => seq);
  expect(new Set(numbers).size).toBe(numbers.length);
  await until(() => (yuki.session.continuity.seq ?? 0) >= Math.max(...numbers));
  const bodies = yuki.seen.flatMap((event) => (event.type === "chat.created" ? [event.data.body] : []));
  const lines = bodies.filter((body) => body?.startsWith("line "));
  expect(lines.toSorted()).toEqual(settled.map((_, count) => `line ${count}`).toSorted());
  expect(bodies.filter((body) => body?.startsWith("meanwhile"))).toEqual(["meanwhile 0", "meanwhile 1"]);
  expect(yuki.session.continuity).toMatchObject({ gaps: 0, duplicates: 0, resets: 0, resumes: 2 });
  otto.isWhole();
  yuki.isWhole();
  // No message of the sender stays pending or appears twice.
  expect(otto.session.pending).toHaveLength(0);
});

test("with blocked WebSockets the client works over HTTP and loses nothing when the gateway is killed", async () => {
  const gateway = await startGateway(demo);
  gateways.push(gateway);
  const lina = as("lina", gateway.url, BlockedSocket);
  await lina.reached("live");
  expect(lina.usher.connection).toMatchObject({ status: "open", transport: "http" });
  const bram = as("bram", gateway.url);
  await bram.reached("live");

  const sent = await lina.session.send("over HTTP");
  await until(() => bram.session.messages.some(({ id }) => id === sent.id));
  const answer = await bram.session.send("over a WebSocket", { replyTo: sent.id });
  await until(() => lina.session.messages.some(({ id }) => id === answer.id));
  await expect(lina.session.send("x".repeat(2001))).rejects.toMatchObject({ code: "too_large" });
  const { movies, voting } = demo;
  const votes = () => bram.session.tally(voting)?.counts?.find(({ movie }) => movie === movies[2])?.votes;
  await lina.session.vote(voting, movies[2]);
  await until(() => votes() === 1 && lina.session.tally(voting)?.mine === movies[2]);
  await lina.session.vote(voting, null);
  await until(() => votes() === 0);

  const isCut = lina.reached("waiting");
  await gateway.kill();
  await isCut;
  for (let count = 0; count < 3; count += 1) await as("sol").session.send(`past it ${count}`);
  const waiting = lina.session.send("said into the gap");
  await gateway.start();
  await lina.reached("live");
  expect(lina.usher.connection.transport).toBe("http");
  await waiting;
  await until(() => lina.session.messages.some(({ body }) => body === "said into the gap"));
  const bodies = lina.seen.flatMap((event) => (event.type === "chat.created" ? [event.data.body] : []));
  expect(bodies.filter((body) => body?.startsWith("past it"))).toEqual(["past it 0", "past it 1", "past it 2"]);
  expect(bodies.filter((body) => body === "said into the gap")).toHaveLength(1);
  expect(lina.session.continuity).toMatchObject({ resumes: 1, resets: 0 });
  lina.isWhole();
});

test("viewers of a stopping gateway reconnect and miss nothing", async () => {
  const gateway = await startGateway(demo, { USHER_DRAIN_SECONDS: "2" });
  gateways.push(gateway);
  const lina = as("lina", gateway.url);
  await lina.reached("live");
  await gateway.stop();
  await lina.reached("waiting");
  await as("sol").session.send("while it was down");
  await gateway.start();
  await lina.reached("live");
  await until(() => lina.session.messages.some(({ body }) => body === "while it was down"));
  expect(lina.session.continuity).toMatchObject({ resumes: 1, resets: 0 });
  lina.isWhole();
});

test("the client renews an expiring token on the open socket", async () => {
  const user = userOf("bram");
  const tokens: string[] = [];
  const bram = connectTo(demo.url, {
    getToken() {
      // The gateway warns 60 s before.
      tokens.push(mint(demo, user, tokens.length === 0 ? 61 : 3600));
      return tokens.at(-1) ?? null;
    },
  });
  await bram.reached("live");
  await until(() => tokens.length === 2);
  await bram.session.send("still here");
  expect(bram.session.continuity.resumes).toBe(0);
  expect(bram.usher.connection.failures).toBe(0);
});

test("after the token expires, the client reconnects with a new one and misses nothing", async () => {
  const user = userOf("bram");
  let token = mint(demo, user, 3);
  const bram = connectTo(demo.url, { getToken: () => token });
  await bram.reached("live");
  await until(() => bram.usher.connection.status === "waiting");
  await as("sol").session.send("while the token was old");
  token = mint(demo, user, 3600);
  await bram.reached("live");
  await until(() => bram.session.messages.some(({ body }) => body === "while the token was old"));
  expect(bram.session.continuity).toMatchObject({ resumes: 1, resets: 0 });
  bram.isWhole();
});

test("an invalid token stops the session with unauthorized", async () => {
  const liar = connectTo(demo.url, { getToken: () => `${userOf("nora").token.slice(0, -6)}AAAAAA` });
  await until(() => liar.session.status === "stopped");
  expect(liar.session.state.error).toMatchObject({ code: "unauthorized" });
});

test.each([
  ["over a WebSocket", WebSocket],
  ["over HTTP", undefined],
] as const)("a refused token gives an error code for its reason, %s", async (_, Socket) => {
  const issuer = "https://project.example/auth/v1";
  const gateway = await startGateway(demo, { USHER_ISSUER: issuer });
  gateways.push(gateway);
  const user = userOf("lina");
  const tokens: [name: string, token: string][] = [
    ["issuer_not_accepted", mint(demo, user, 3600, { iss: "https://elsewhere.example/auth/v1" })],
    ["issuer_not_accepted", mint(demo, user, 3600)],
    ["token_expired", mint(demo, user, -60, { iss: issuer })],
    ["token_too_large", mint(demo, user, 3600, { iss: issuer, user_metadata: { bio: "x".repeat(26_000) } })],
    ["token_too_large", mint(demo, user, 3600, { iss: issuer, user_metadata: { bio: "x".repeat(50_000) } })],
  ];
  for (const [name, token] of tokens) {
    const viewer = connectTo(gateway.url, { getToken: () => token, WebSocket: Socket ?? BlockedSocket });
    await until(() => viewer.usher.connection.error !== null);
    expect(viewer.usher.connection.error?.code).toBe(name);
    expect(viewer.usher.connection.error?.message).not.toContain("elsewhere");
    viewer.usher.close();
  }
  const long = mint(demo, user, 3600, { iss: `${issuer}/`, user_metadata: { bio: "x".repeat(20_000) } });
  const viewer = connectTo(gateway.url, { getToken: () => long, WebSocket: Socket ?? BlockedSocket });
  await viewer.reached("live");
  expect(viewer.session.can.send).toBe(true);
});

test("over HTTP, a failover to another database causes a reset, and old and new messages do not mix", async () => {
  const gateway = await startGateway(demo);
  gateways.push(gateway);
  const lina = as("lina", gateway.url, BlockedSocket);
  await lina.reached("live");
  const { epoch, seq } = lina.session.continuity;
  await gateway.kill();
  const database = new pg.Client(demo.database_url);
  await database.connect();
  await database.query("update usher.identity set id = gen_random_uuid()");
  await database.end();
  await gateway.start();
  await until(() => lina.session.continuity.resets === 1 && lina.session.status === "live");
  expect(lina.session.continuity.epoch).not.toBe(epoch);
  expect(lina.session.continuity).toMatchObject({ resumes: 0, gaps: 0, duplicates: 0 });
  const numbers = lina.session.messages.map((message) => message.seq);
  expect(numbers).toEqual([...new Set(numbers)]);
  expect(lina.session.continuity.seq).toBeGreaterThanOrEqual(seq ?? 0);
});

test("the client follows a session by its id in upper case", async () => {
  const usher = connect({ url: demo.url, WebSocket });
  clients.push(usher);
  const session = usher.session(demo.session.toUpperCase());
  await until(() => session.status === "live");
  expect(session.id).toBe(demo.session);
  expect(session.messages.length).toBeGreaterThan(0);
});

/** A WebSocket that never opens, as behind a proxy that blocks WebSockets. */
class BlockedSocket extends WebSocket {
  constructor(_url: string) {
    // No process listens on this port.
    super("ws://127.0.0.1:1");
  }
}

/** Connects a demo user to the demo's session. `isWhole` of the result checks every event number. */
function as(username: string, url: string = demo.url, Socket: SocketClass = WebSocket) {
  return connectTo(url, { getToken: () => userOf(username).token, WebSocket: Socket });
}

function connectTo(url: string, options: Pick<ConnectOptions, "getToken" | "history" | "WebSocket"> = {}) {
  const usher = connect({ url, WebSocket, ...options });
  clients.push(usher);
  const session = usher.session(demo.session);
  const seen: LogEvent[] = [];
  session.on("event", (event) => seen.push(event));
  return {
    usher,
    session,
    seen,
    reached: (status: Session["status"]) => until(() => session.status === status),
    isWhole() {
      const numbers = seen.map((event) => event.seq);
      expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index));
      expect(session.continuity).toMatchObject({ gaps: 0, duplicates: 0, received: seen.length });
    },
  };
}

function userOf(username: string) {
  const user = demo.users.find((user) => user.username === username);
  if (!user) throw new Error(`the demo has no ${username}`);
  return user;
}

async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`still false after 30 s: ${holds}`);
    await pause(20);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
