// Following a session through the public client, in a fake world whose time the tests control.

import { expect, test, vi } from "vitest";

import { placeOf } from "../src/chat.ts";
import type { LogEvent, Message } from "../src/index.ts";
import {
  admit,
  chat,
  events,
  FIRST,
  following,
  inFakeWorld,
  SECOND,
  SESSION,
  settle,
  subscribed,
  VOTING,
  voting,
  WELCOME,
} from "./fakes.ts";

test("the first subscription requests history, and the next one resumes from the last number", async () => {
  const { world, session } = await following({ history: 100 });
  expect(world.socket.last("subscribe").history).toBe(100);
  world.socket.say(events(chat(1), chat(2)));
  world.socket.say({ type: "resume_token", session: SESSION, token: "t2" });
  world.socket.cut();
  expect(session.status).toBe("waiting");
  await world.pass(1000);
  await admit(world, { recovered: true, seq: 2, head: 3 });
  expect(world.socket.last("subscribe").resume).toEqual({ seq: 2, epoch: "e1", token: "t2" });
  expect(session.status).toBe("catching_up");
  world.socket.say(events(chat(3)));
  expect(session.status).toBe("live");
  expect(session.messages.map((message) => message.seq)).toEqual([1, 2, 3]);
  expect(session.continuity).toMatchObject({ received: 3, resumes: 1, resets: 0, gaps: 0, duplicates: 0 });
});

test("a session emits each event once", async () => {
  const { world, session } = await following({}, { seq: 0, head: 2 });
  const told: string[] = [];
  session.on("event", (event) => told.push(`event ${event.seq}`));
  session.on("message", (message) => told.push(`message ${message.body}`));
  session.on("status", (status) => told.push(status));
  session.on("viewers", (viewers) => told.push(`${viewers} viewers`));
  session.on("voting", (item) => told.push(`${item.question} ${item.total}`));
  session.on("resume", ({ resumes }) => told.push(`resume ${resumes}`));
  session.on("reset", ({ resets }) => told.push(`reset ${resets}`));
  session.on("discontinuity", ({ gaps, duplicates }) => told.push(`${gaps} missing, ${duplicates} twice`));
  world.socket.say(events(chat(1), chat(2)));
  world.socket.say({ type: "viewers", session: SESSION, count: 4 });
  world.socket.say({ type: "viewers", session: SESSION, count: 4 });
  world.socket.say({ type: "tally", session: SESSION, ...voting({ version: 2, total: 5 }) });
  world.socket.say({ type: "tally", session: SESSION, ...voting({ version: 1, total: 4 }) });
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true, seq: 2, head: 2, viewers: 4 });
  world.socket.say(events(chat(2), chat(5)));
  world.socket.say({ type: "reset", session: SESSION, epoch: "e1", seq: 9, head: 9, reason: "too_old" });
  expect(told).toMatchInlineSnapshot(`
    [
      "event 1",
      "event 2",
      "message message 1",
      "message message 2",
      "live",
      "4 viewers",
      " 5",
      "waiting",
      "live",
      "resume 1",
      "event 5",
      "message message 5",
      "2 missing, 1 twice",
      "reset 1",
    ]
  `);
});

test("a listener that throws does not affect the others, and a removed listener receives nothing", async () => {
  const { world, session } = await following();
  const thrown = vi.fn();
  process.once("uncaughtException", thrown);
  const heard: number[] = [];
  const off = session.on("viewers", () => heard.push(-1));
  session.on("viewers", () => {
    throw new Error("mine");
  });
  session.on("viewers", (viewers) => heard.push(viewers));
  off();
  world.socket.say({ type: "viewers", session: SESSION, count: 7 });
  await new Promise((resolve) => setTimeout(resolve));
  expect(heard).toEqual([7]);
  expect(thrown).toHaveBeenCalledOnce();
});

test("a message is pending immediately, and settles by its ack or by its log event", async () => {
  const { world, session } = await following();
  const byAnswer = session.send("one");
  expect(session.pending).toMatchObject([{ body: "one", status: "sending", seq: null }]);
  const [first] = session.pending;
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect(await byAnswer).toEqual({ seq: 1, id: "m1", nonce: first?.nonce });
  expect(session.pending).toMatchObject([{ status: "sent", seq: 1, id: "m1" }]);
  world.socket.say(events(chat(1, { nonce: first?.nonce })));
  expect([session.pending.length, session.messages.length]).toEqual([0, 1]);

  const byLog = session.send("two", { replyTo: "m1" });
  const said = world.socket.last("send");
  expect(said).toMatchObject({ session: SESSION, body: "two", reply_to: "m1" });
  world.socket.say(events(chat(2, { nonce: said.nonce })));
  expect(await byLog).toEqual({ seq: 2, id: "m2", nonce: said.nonce });
  world.socket.say({ type: "ack", id: said.id, seq: 2, message: "m2" });
  expect([session.pending.length, session.messages.length]).toEqual([0, 2]);
});

test("after a lost socket and the resume, the client sends unanswered messages again, with their nonces", async () => {
  const { world, session } = await following();
  const sent = session.send("hello");
  const { nonce } = world.socket.last("send");
  world.socket.cut();
  const meanwhile = session.send("while away");
  await world.pass(1000);
  expect(world.socket.of("send")).toHaveLength(0);
  await admit(world, { recovered: true });
  expect(world.socket.of("send").map((frame) => frame.body)).toEqual(["hello", "while away"]);
  expect(world.socket.of("send")[0]?.nonce).toBe(nonce);
  for (const [index, frame] of world.socket.of("send").entries())
    world.socket.say({ type: "ack", id: frame.id, seq: index + 1, message: `m${index + 1}` });
  expect((await sent).seq).toBe(1);
  expect((await meanwhile).seq).toBe(2);
});

test("the client sends no message or vote before the subscription succeeds", async () => {
  const { world, session } = await following({}, { votings: [voting()] });
  world.socket.cut();
  await world.pass(1000);
  world.socket.say(WELCOME);
  void session.send("early");
  void session.vote(VOTING, FIRST);
  expect(world.socket.said.map((frame) => frame.type)).toEqual(["subscribe"]);
  world.socket.say(subscribed({ recovered: true }));
  expect(world.socket.said.map((frame) => frame.type)).toEqual(["subscribe", "send", "vote"]);
});

test("a failed message keeps its error, and the app can send it again with its nonce or discard it", async () => {
  const { world, session } = await following();
  const failed: string[] = [];
  session.on("failed", (message) => failed.push(`${message.body}: ${message.error?.code}`));
  const refused = session.send("too fast");
  const { id, nonce } = world.socket.last("send");
  world.socket.say({ type: "error", id, code: "slow_mode", message: "wait 3 s", retry_after_ms: 3000 });
  await expect(refused).rejects.toMatchObject({ name: "RefusedError", code: "slow_mode", retryAfterMs: 3000 });
  expect(session.pending).toMatchObject([{ status: "failed", error: { code: "slow_mode" } }]);

  const again = session.resend(String(nonce));
  expect(session.pending).toMatchObject([{ status: "sending", error: null }]);
  expect(world.socket.last("send").nonce).toBe(nonce);
  await world.pass(15_000);
  await expect(again).rejects.toMatchObject({ code: "no_answer" });
  expect(failed).toEqual(["too fast: slow_mode", "too fast: no_answer"]);
  // The gateway had committed the message.
  world.socket.say(events(chat(1, { nonce })));
  expect(session.pending).toHaveLength(0);

  const other = session.send("other");
  session.discard(String(world.socket.last("send").nonce));
  await expect(other).rejects.toMatchObject({ code: "closed" });
  expect(session.pending).toHaveLength(0);
  await expect(session.resend("unknown")).rejects.toMatchObject({ code: "closed" });
});

test("send rejects with queue_full beyond 32 unanswered messages", async () => {
  const { session } = await following();
  for (let count = 0; count < 32; count += 1) void session.send(`message ${count}`);
  await expect(session.send("one too many")).rejects.toMatchObject({ code: "queue_full" });
  expect(session.pending).toHaveLength(32);
});

test("the state shows a vote immediately, and reverts a refused one", async () => {
  const { world, session } = await following({}, { votings: [voting({ mine: FIRST })] });
  const changed = session.vote(VOTING, SECOND);
  expect(session.tally()).toMatchObject({ mine: SECOND, wish: { movie: SECOND, before: FIRST } });
  world.socket.say({ type: "ack", id: world.socket.last("vote").id, voting: VOTING, movie: SECOND });
  await changed;
  expect(session.tally()).toMatchObject({ mine: SECOND, wish: null });
  const withdrawn = session.vote(VOTING, null);
  expect(session.tally()?.mine).toBe(null);
  world.socket.say({ type: "error", id: world.socket.last("vote").id, code: "conflict", message: "no" });
  await expect(withdrawn).rejects.toMatchObject({ code: "conflict" });
  expect(session.tally()?.mine).toBe(SECOND);
});

test("the last of several quick votes counts, even across a lost socket", async () => {
  const { world, session } = await following({}, { votings: [voting()] });
  const first = session.vote(VOTING, FIRST);
  const second = session.vote(VOTING, SECOND);
  await expect(first).rejects.toMatchObject({ code: "superseded" });
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true, votings: [voting({ mine: FIRST })] });
  expect(session.tally()?.mine).toBe(SECOND);
  expect(world.socket.of("vote").map((frame) => frame.movie)).toEqual([SECOND]);
  world.socket.say({ type: "ack", id: world.socket.last("vote").id, voting: VOTING, movie: SECOND });
  await second;
});

test("a loop receives each event once and in order across reconnects, and ends on close", async () => {
  const { world, session } = await following();
  const seen: number[] = [];
  const loop = (async () => {
    for await (const event of session) seen.push(event.seq);
  })();
  world.socket.say(events(chat(1), chat(2)));
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true, seq: 2, head: 2 });
  world.socket.say(events(chat(2), chat(3)));
  await settle();
  session.close();
  await loop;
  expect(seen).toEqual([1, 2, 3]);
});

test("a loop throws after the pending events when the gateway ends the session", async () => {
  const { world, session } = await following();
  const seen: LogEvent[] = [];
  const loop = (async () => {
    for await (const event of session) seen.push(event);
  })();
  world.socket.say(events(chat(1)));
  world.socket.say({ type: "unsubscribed", session: SESSION, reason: "banned" });
  world.socket.cut(4503);
  await expect(loop).rejects.toMatchObject({ code: "banned", name: "RefusedError" });
  expect(seen).toHaveLength(1);
  expect(session.state.error?.name).toBe("RefusedError");
});

test("a loop over a stopped session throws immediately", async () => {
  const { world, session } = await following();
  world.socket.say({ type: "unsubscribed", session: SESSION, reason: "banned" });
  await expect(session[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "banned" });
});

test("closing the client ends its loops, and an old handle cannot close a later session", async () => {
  const { world, usher, session } = await following();
  const loop = session[Symbol.asyncIterator]().next();
  usher.close();
  expect(await loop).toEqual({ done: true, value: undefined });
  const later = usher.session(SESSION);
  await admit(world);
  session.close();
  await world.pass(10_000);
  expect([later.status, world.sockets.length, world.socket.closed]).toEqual(["live", 2, null]);
});

test("a loop that falls too far behind throws slow_consumer, and a loop that breaks stops queueing", async () => {
  const { world, session } = await following();
  const slow = session[Symbol.asyncIterator]();
  queueMicrotask(() => world.socket.say(events(chat(1))));
  for await (const event of session) {
    expect(event.seq).toBe(1);
    break;
  }
  for (let seq = 2; seq <= 1002; seq += 1) world.socket.say(events(chat(seq)));
  await expect(slow.next()).rejects.toMatchObject({ code: "slow_consumer" });
  expect(await slow.next()).toEqual({ done: true, value: undefined });
  expect(session.status).toBe("live");
});

test("the window is bounded, and the app can load older messages page by page", async () => {
  const { world, session } = await following({ getToken: () => "token" });
  for (let seq = 1; seq <= 700; seq += 1) world.socket.say(events(chat(seq)));
  expect([session.messages.length, session.messages[0]?.seq, session.hasOlder]).toEqual([500, 201, true]);
  world.respond = () => page(152, 200, null);
  expect(await session.older()).toBe(true);
  expect(world.requests[0]?.url).toBe(`https://gateway.example/v1/sessions/${SESSION}/messages?before=201&limit=50`);
  expect(new Headers(world.requests[0]?.init.headers).get("authorization")).toBe("Bearer token");
  expect([session.messages[0]?.seq, session.messages.length, session.hasOlder]).toEqual([152, 549, false]);
  expect(await session.older()).toBe(false);
  // While the viewer reads older messages, the window keeps them, up to 2,000 messages.
  for (let seq = 701; seq <= 2500; seq += 1) world.socket.say(events(chat(seq)));
  expect(session.messages).toHaveLength(2000);
  session.newest();
  expect([session.messages.length, session.messages[0]?.seq, session.hasOlder]).toEqual([500, 2001, true]);
});

test("older pages continue by time for messages that left the log, and skip empty pages", async () => {
  const { world, session } = await following({}, { seq: 9 });
  const old = { ...chat(1).data, seq: null, created_at: "2026-11-26T12:11:30.889899+00:00" };
  const asked: (string | null)[] = [];
  const answers = [
    { messages: [{ ...chat(8).data, seq: 8 }], next: "8" },
    { messages: [], next: "4" },
    {
      messages: [
        { ...old, id: "b" },
        { ...old, id: "a" },
      ],
      next: "1795695090889899_a",
    },
    { messages: [], next: null },
  ];
  world.respond = (url) => {
    asked.push(new URL(url).searchParams.get("before"));
    return Response.json({ data: answers.shift() });
  };
  for (let count = 0; count < 3; count += 1) expect(await session.older()).toBe(true);
  expect(await session.older()).toBe(false);
  expect(asked).toEqual(["10", "8", "4", "1795695090889899_a"]);
  expect(session.messages.map((message) => message.id)).toEqual(["a", "b", "m8"]);
  expect(placeOf(session.messages[0] as Message)).toBe("1795695090889899_a");
});

test("the client drops an older page that arrives after a reset", async () => {
  const { world, session } = await following({}, { seq: 100 });
  let answer = (_: Response) => {};
  world.respond = () => new Promise<Response>((resolve) => (answer = resolve));
  const loading = session.older();
  await vi.waitUntil(() => world.requests.length === 1);
  world.socket.say({ type: "reset", session: SESSION, epoch: "e2", seq: 500, head: 500, reason: "ahead" });
  answer(page(51, 100, "51"));
  expect(await loading).toBe(true);
  expect([session.messages.length, session.state.chat.before]).toEqual([0, "501"]);
});

test("a failure to load older messages rejects with an error code", async () => {
  const { world, session } = await following({}, { seq: 100 });
  world.respond = () => new Response('{"error":{"code":"not_found","message":"no such session"}}', { status: 404 });
  await expect(session.older()).rejects.toMatchObject({ code: "not_found" });
  world.respond = () => new Response("<html>", { status: 503, headers: { "retry-after": "7" } });
  await expect(session.older()).rejects.toMatchObject({ code: "unavailable", retryAfterMs: 7000 });
  world.respond = () => Promise.reject(new TypeError("failed to fetch"));
  await expect(session.older()).rejects.toMatchObject({ code: "no_answer" });
});

test("a fresh start keeps the messages if no event is missing, and drops them otherwise", async () => {
  const { world, session } = await following();
  world.socket.say(events(chat(1), chat(2)));
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: false, reason: "too_old", seq: 1, head: 2 });
  world.socket.say(events(chat(2)));
  expect(session.messages.map((message) => message.seq)).toEqual([1, 2]);
  world.socket.say({ type: "reset", session: SESSION, epoch: "e1", seq: 50, head: 51, reason: "slow_consumer" });
  expect([session.messages.length, session.hasOlder, session.status]).toEqual([0, true, "catching_up"]);
  world.socket.say(events(chat(51)));
  world.socket.say({ type: "reset", session: SESSION, epoch: "e2", seq: 50, head: 50, reason: "ahead" });
  expect([session.messages.length, session.status]).toEqual([0, "live"]);
  expect(session.continuity).toMatchObject({ resets: 3, gaps: 0, duplicates: 0, epoch: "e2", seq: 50 });
});

test("a refused subscription stops only its session, and a temporary refusal is retried", async () => {
  const { world, usher, session } = await following();
  const gone = usher.session("gone");
  world.socket.say({ type: "error", id: world.socket.last("subscribe").id, code: "not_found", message: "no" });
  expect([gone.status, gone.state.error?.code, session.status]).toEqual(["stopped", "not_found", "live"]);
  const busy = usher.session("busy");
  world.socket.say({ type: "error", id: world.socket.last("subscribe").id, code: "unavailable", retry_after_ms: 900 });
  await world.pass(900);
  expect(busy.status).toBe("connecting");
  expect(world.socket.of("subscribe").filter((frame) => frame.session === "busy")).toHaveLength(2);
});

test.each([
  // The reason of the last `unsubscribed` is also the error of the connection.
  ["banned", "banned"],
  ["forbidden", "forbidden"],
  ["a_reason_of_a_newer_gateway", "a_reason_of_a_newer_gateway"],
])(
  "withdrawn access (%s) stops the connection (%s), and the app can still follow another session",
  async (reason, code) => {
    const { world, usher, session } = await following();
    world.socket.say({ type: "unsubscribed", session: SESSION, reason });
    world.socket.cut(4503);
    expect(usher.connection).toMatchObject({ status: "stopped", error: { code, closeCode: 4503 } });
    expect(session.state.error?.code).toBe(code);
    usher.session("other");
    await settle();
    expect(world.sockets).toHaveLength(2);
  },
);

test("a 4503 without a reason means forbidden, and the reason on an earlier socket does not count", async () => {
  const { world, usher } = await following();
  world.socket.say({ type: "unsubscribed", session: SESSION, reason: "banned" });
  world.socket.cut();
  await world.pass(1000);
  world.socket.cut(4503);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: "forbidden", closeCode: 4503 } });
});

test("the state shows changed permissions and session properties immediately", async () => {
  const { world, session } = await following();
  world.socket.say({ type: "access", session: SESSION, can: { send: false, vote: false, moderate: false } });
  expect(session.can).toEqual({ send: false, vote: false, moderate: false });
  world.socket.say(
    events({ seq: 1, type: "session.updated", at: "", data: { title: "Later", slow_mode_seconds: 5, ended_at: "x" } }),
  );
  expect(session.info).toEqual({ title: "Later", status: "live", slow_mode_seconds: 5, chat_enabled: true });
});

test("closing the client rejects unanswered messages and votes with closed", async () => {
  const { usher, session } = await following();
  const sent = session.send("hello");
  const voted = session.vote(VOTING, FIRST);
  usher.close();
  await expect(sent).rejects.toMatchObject({ code: "closed" });
  await expect(voted).rejects.toMatchObject({ code: "closed" });
  expect(usher.connection.status).toBe("idle");
});

test("a rejection that the app ignores does not crash the process", async () => {
  const unhandled = vi.fn();
  process.once("unhandledRejection", unhandled);
  const { usher, session } = await following();
  void session.send("hello");
  void session.vote(VOTING, FIRST);
  usher.close();
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(unhandled).not.toHaveBeenCalled();
});

test("a message from before the first connection goes out after the subscription", async () => {
  const { world, usher } = inFakeWorld();
  const session = usher.session(SESSION);
  const sent = session.send("early");
  await admit(world);
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect((await sent).seq).toBe(1);
});

function page(from: number, to: number, next: string | null) {
  const messages = [];
  for (let seq = to; seq >= from; seq -= 1) messages.push({ ...chat(seq).data, seq });
  return Response.json({ data: { messages, next } });
}

test("a reset drops messages that the log does not contain, and keeps unanswered ones", async () => {
  const { world, session } = await following({}, { votings: [voting()] });
  world.socket.say(events(chat(1), chat(2)));
  // The gateway delivers a forged event before the true event with this number.
  world.socket.say(events(chat(3, { id: "forged", body: "forged" })));
  const [waiting, sent] = [session.send("waits for its answer"), session.send("is acknowledged")];
  const [asked, other] = world.socket.of("send");
  world.socket.say({ type: "ack", id: other?.id, seq: 4, message: "m4" });
  world.socket.say({
    ...subscribed({ seq: 0, head: 4, votings: [voting()] }),
    type: "reset",
    reason: "ahead",
    id: undefined,
  });
  expect(session.pending.map(({ body, status }) => [body, status])).toEqual([["waits for its answer", "sending"]]);
  world.socket.say(events(chat(1), chat(2), chat(3, { body: "true" }), chat(4, { nonce: other?.nonce })));
  expect(session.messages.map(({ id, body }) => [id, body])).toEqual([
    ["m1", "message 1"],
    ["m2", "message 2"],
    ["m3", "true"],
    ["m4", "message 4"],
  ]);
  world.socket.say({ type: "ack", id: asked?.id, seq: 5, message: "m5" });
  world.socket.say(events(chat(5, { nonce: asked?.nonce })));
  expect((await Promise.all([waiting, sent])).map(({ seq }) => seq)).toEqual([5, 4]);
  expect([session.pending.length, session.messages.length, world.socket.of("send").length]).toEqual([0, 5, 2]);
  expect(session.continuity).toMatchObject({ resets: 1, gaps: 0, duplicates: 0 });
});
