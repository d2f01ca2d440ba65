// Spellings of ids, frames of earlier subscriptions, busy gateways, and the origin of events.

import { expect, test, vi } from "vitest";

import { normalId } from "../src/ids.ts";
import type { SessionEvents } from "../src/index.ts";
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

const UPPER = "5E551000-0000-4000-8000-00000000ABCD";
const LOWER = UPPER.toLowerCase();

test.each([UPPER, LOWER, `{${UPPER}}`, `urn:uuid:${LOWER}`, UPPER.replaceAll("-", "")])(
  "the client follows the session %s, because the gateway accepts this form and answers in its own",
  async (given) => {
    const { world, usher } = inFakeWorld();
    const session = usher.session(given);
    expect([session.id, usher.peek(given), usher.session(LOWER).id]).toEqual([LOWER, session.state, LOWER]);
    await settle();
    world.socket.say(WELCOME);
    expect(world.socket.of("subscribe").map((frame) => frame.session)).toEqual([LOWER]);
    world.socket.say(subscribed({ session: LOWER }));
    world.socket.say({ ...events(chat(1)), session: LOWER });
    expect([session.status, session.messages.length]).toEqual(["live", 1]);
  },
);

test("an id that is not a uuid stays unchanged", () => {
  for (const id of ["42", "Night", "", "5E551000-0000-4000-8000-00000000ABC", `${UPPER}0`])
    expect(normalId(id)).toBe(id);
});

test("ids of polls, movies and messages, and nonces, may be in upper case", async () => {
  const [ballot, movie, nonce] = [UPPER.replace("5E", "AA"), UPPER.replace("5E", "BB"), UPPER.replace("5E", "CC")];
  const option = { movie: movie.toLowerCase(), title: "First", poster: null };
  const { world, session } = await following(
    {},
    { votings: [voting({ voting: ballot.toLowerCase(), options: [option] })] },
  );
  expect(session.tally(ballot)?.options).toHaveLength(1);
  const voted = session.vote(ballot, movie);
  expect(session.tally(ballot)?.mine).toBe(movie.toLowerCase());
  expect(world.socket.last("vote")).toMatchObject({ voting: ballot.toLowerCase(), movie: movie.toLowerCase() });
  world.socket.say({ type: "ack", id: world.socket.last("vote").id });
  await voted;

  const sent = session.send("hello", { replyTo: UPPER, nonce });
  expect(world.socket.last("send")).toMatchObject({ nonce: nonce.toLowerCase(), reply_to: LOWER });
  world.socket.say(events(chat(1, { nonce: nonce.toLowerCase() })));
  expect(await sent).toMatchObject({ seq: 1 });
  expect(session.pending).toHaveLength(0);

  void session.send("again", { nonce });
  world.socket.say({ type: "error", id: world.socket.last("send").id, code: "slow_mode" });
  void session.resend(nonce);
  expect(session.pending).toMatchObject([{ status: "sending" }]);
  session.discard(nonce);
  expect(session.pending).toHaveLength(0);
});

test("a session that the app closes and follows again ignores frames of its first subscription", async () => {
  const { world, usher, session } = await following();
  world.socket.say(events(chat(1)));
  // Keeps the connection open.
  usher.session("other");
  session.close();
  await world.pass(3000);
  const again = usher.session(SESSION);
  const seen: number[] = [];
  again.on("event", ({ seq }) => seen.push(seq));
  const [left, entered] = [world.socket.last("unsubscribe"), world.socket.of("subscribe")[2]];
  expect([left.session, entered?.session]).toEqual([SESSION, SESSION]);
  // The gateway sent all of these frames before it received the `unsubscribe`.
  world.socket.say(events(chat(2), chat(3)));
  world.socket.say({ type: "viewers", session: SESSION, count: 99 });
  world.socket.say({ type: "tally", session: SESSION, ...voting({ total: 99 }) });
  world.socket.say({ type: "resume_token", session: SESSION, token: "of the first" });
  world.socket.say({ type: "access", session: SESSION, can: { send: false, vote: false, moderate: false } });
  world.socket.say({ type: "reset", session: SESSION, epoch: "e0", seq: 9, head: 9, reason: "too_old" });
  world.socket.say({ ...subscribed({ seq: 2 }), id: 1 });
  world.socket.say({ type: "unsubscribed", session: SESSION, reason: "banned" });
  world.socket.say({ type: "unsubscribed", session: SESSION });
  expect(again.status).toBe("connecting");
  expect([again.messages.length, again.viewers, again.tally()]).toEqual([0, null, null]);
  expect(again.continuity).toMatchObject({ stale: 8, seq: null, received: 0 });

  world.socket.say({ ...subscribed({ seq: 0, head: 3 }), id: entered?.id });
  world.socket.say(events(chat(1), chat(2), chat(3)));
  world.socket.say(events(chat(4)));
  expect(seen).toEqual([1, 2, 3, 4]);
  expect(again.messages.map((message) => message.seq)).toEqual([1, 2, 3, 4]);
  expect(again.continuity).toMatchObject({ stale: 8, gaps: 0, duplicates: 0, received: 4 });
  // The next resume uses the token of the second subscription.
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true, seq: 4, head: 4 });
  expect(world.socket.last("subscribe").resume).toEqual({ seq: 4, epoch: "e1", token: "t1" });
});

test("a closed session does not subscribe again after a temporary refusal", async () => {
  const { world, usher } = await following();
  const gone = usher.session("gone");
  const asked = world.socket.last("subscribe");
  gone.close();
  await world.pass(3000);
  world.socket.say({ type: "error", id: asked.id, code: "unavailable", retry_after_ms: 100 });
  await world.pass(10_000);
  expect(world.socket.of("subscribe").filter((frame) => frame.session === "gone")).toHaveLength(1);
});

test("after busy, messages and votes stay pending and go out again in order at the given time", async () => {
  const { world, session } = await following({}, { votings: [voting()] });
  const [first, second] = [session.send("first"), session.send("second")];
  const voted = session.vote(VOTING, FIRST);
  const [asked, other] = world.socket.of("send");
  const busy = { type: "error", code: "busy", message: "the session is busy", retry_after_ms: 700 };
  world.socket.say({ ...busy, id: asked?.id });
  world.socket.say({ ...busy, id: other?.id });
  world.socket.say({ ...busy, id: world.socket.last("vote").id });
  const third = session.send("third");
  expect(world.socket.of("send")).toHaveLength(2);
  expect(session.pending.map((item) => item.status)).toEqual(["sending", "sending", "sending"]);
  expect(session.tally()?.mine).toBe(FIRST);
  await world.pass(699);
  expect(world.socket.of("send")).toHaveLength(2);
  await world.pass(1);
  const again = world.socket.of("send").slice(2);
  expect(again.map((frame) => frame.body)).toEqual(["first", "second", "third"]);
  expect(again[0]?.nonce).toBe(asked?.nonce);
  for (const [index, { id }] of again.entries())
    world.socket.say({ type: "ack", id, seq: index + 1, message: `m${index}` });
  world.socket.say({ type: "ack", id: world.socket.last("vote").id });
  expect((await Promise.all([first, second, third])).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  await voted;
  expect(world.socket.of("vote")).toHaveLength(2);
});

test("a message fails with busy if the gateway stays busy, and the app can send it again", async () => {
  const { world, session } = await following();
  const sent = session.send("hello").catch((error) => error);
  for (let tries = 0; tries < 200; tries += 1) {
    const { id } = world.socket.last("send");
    world.socket.say({ type: "error", id, code: "busy", message: "busy", retry_after_ms: 0 });
    await world.pass(100);
  }
  expect(await sent).toMatchObject({ name: "RefusedError", code: "busy", retryAfterMs: 0 });
  expect(world.socket.of("send").length).toBeLessThanOrEqual(151);
  expect(session.pending).toMatchObject([{ status: "failed", error: { code: "busy" } }]);
  const again = session.resend(String(world.socket.last("send").nonce));
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect((await again).seq).toBe(1);
});

test("a message that waits after busy goes out immediately on the next socket", async () => {
  const { world, session } = await following();
  const sent = session.send("hello");
  world.socket.say({ type: "error", id: world.socket.last("send").id, code: "busy", retry_after_ms: 9000 });
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true });
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect((await sent).seq).toBe(1);
  await world.pass(9000);
  expect(world.socket.of("send")).toHaveLength(1);
});

test("the client subscribes again after busy", async () => {
  const { world, usher } = await following();
  const other = usher.session("other");
  world.socket.say({ type: "error", id: world.socket.last("subscribe").id, code: "busy" });
  await world.pass(2000);
  world.socket.say(subscribed({ session: "other" }));
  expect(other.status).toBe("live");
});

test("a second send with the same nonce starts a new timeout", async () => {
  const { world, session } = await following();
  const nonce = "00000000-0000-4000-8000-00000000000f";
  const first = session.send("hello", { nonce });
  await world.pass(14_000);
  const second = session.send("hello", { nonce });
  await expect(first).rejects.toMatchObject({ code: "superseded" });
  world.socket.say({ type: "pong" });
  await world.pass(2000);
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect((await second).seq).toBe(1);
});

test("the state shows a vote from another socket, but keeps an unconfirmed vote on screen", async () => {
  const { world, session } = await following({}, { votings: [voting()] });
  const mine = (movie: string | null) =>
    world.socket.say({ type: "mine", session: SESSION, voting: VOTING, option: movie, movie });
  mine(FIRST);
  expect(session.tally()?.mine).toBe(FIRST);
  mine(null);
  expect(session.tally()?.mine).toBe(null);
  mine(FIRST);
  const changed = session.vote(VOTING, SECOND);
  mine(null);
  expect(session.tally()).toMatchObject({ mine: SECOND, wish: { movie: SECOND, before: null } });
  world.socket.say({ type: "error", id: world.socket.last("vote").id, code: "voting_closed" });
  await expect(changed).rejects.toMatchObject({ code: "voting_closed" });
  expect(session.tally()?.mine).toBe(null);
  // The client ignores a vote in an unknown poll.
  world.socket.say({ type: "mine", session: SESSION, voting: SESSION, option: FIRST, movie: FIRST });
  expect(session.state.votings).toHaveLength(1);
});

test("an event is marked as history, missed or live", async () => {
  const { world, session } = await following({}, { seq: 0, head: 2 });
  const told: string[] = [];
  const tell = ({ seq, from }: SessionEvents["message"] | SessionEvents["event"]) => told.push(`${seq} ${from}`);
  session.on("message", tell);
  session.on("event", tell);
  // A page of history may contain events newer than `head`.
  world.socket.say(events(chat(1), chat(2), chat(3)));
  expect(told).toEqual(["1 history", "2 history", "3 live", "1 history", "2 history", "3 live"]);
  told.length = 0;
  world.socket.cut();
  await world.pass(1000);
  await admit(world, { recovered: true, seq: 3, head: 4 });
  world.socket.say(events(chat(4)));
  world.socket.say(events(chat(5)));
  world.socket.say({ ...subscribed({ seq: 8, head: 9, epoch: "e2" }), type: "reset" });
  world.socket.say(events(chat(9)));
  expect(told.filter((_, index) => index % 2 === 0)).toEqual(["4 missed", "5 live", "9 history"]);
});

test("the public state does not contain the resume token", async () => {
  const { world, usher, session } = await following();
  world.socket.say({ type: "resume_token", session: SESSION, token: "a secret of one connection" });
  const known = JSON.stringify([session.state, session.continuity, usher.connection, usher.peek(SESSION)]);
  expect(known).not.toContain("a secret of one connection");
  expect(known).not.toContain('"t1"');
  world.socket.cut();
  await world.pass(1000);
  await settle();
  world.socket.say(WELCOME);
  expect(world.socket.last("subscribe").resume).toMatchObject({ token: "a secret of one connection" });
});

test("a held window keeps its start during 4,700 new messages and counts them all", async () => {
  const { world, session } = await following();
  for (let seq = 1; seq <= 300; seq += 1) world.socket.say(events(chat(seq)));
  session.readBack();
  const before = session.state.chat.arrived;
  for (let seq = 301; seq <= 5000; seq += 10)
    world.socket.say(events(...Array.from({ length: 10 }, (_, index) => chat(seq + index))));
  expect(session.state.chat.arrived - before).toBe(4700);
  const numbers = session.messages.map((message) => message.seq);
  expect([numbers[0], numbers.at(-1)]).toEqual([1, 2000]);
  expect(session.state.chat.tail?.map((message) => message.seq)).toEqual(
    Array.from({ length: 500 }, (_, index) => 4501 + index),
  );
  // A deletion also changes messages in the tail.
  const gone = { id: "m4999", session_id: SESSION, deleted_at: "now", deleted_by: null };
  world.socket.say(events({ seq: 5001, type: "chat.deleted", at: "", data: gone }));
  session.newest();
  expect(session.messages.map((message) => message.seq)).toEqual(
    Array.from({ length: 500 }, (_, index) => 4501 + index),
  );
  expect(session.messages.find(({ seq }) => seq === 4999)?.body).toBe(null);
  expect([session.hasOlder, session.state.chat.before, session.state.chat.tail]).toEqual([true, "4501", null]);
});

test("a viewer can load older messages into a full held window, and the newest ones make room", async () => {
  const { world, session } = await following({}, { seq: 3000 });
  for (let seq = 3001; seq <= 3100; seq += 1) world.socket.say(events(chat(seq)));
  session.readBack();
  world.respond = (url) => {
    const before = Number(new URL(url).searchParams.get("before"));
    const messages = Array.from({ length: 200 }, (_, index) => ({
      ...chat(before - 1 - index).data,
      seq: before - 1 - index,
    }));
    return Response.json({ data: { messages, next: before > 201 ? String(before - 200) : null } });
  };
  for (let pages = 0; pages < 15; pages += 1) expect(await session.older(200)).toBe(true);
  expect([session.messages[0]?.seq, session.messages.length, session.hasOlder]).toEqual([1, 2000, false]);
  session.newest();
  expect(session.messages.at(-1)?.seq).toBe(3100);
  await vi.waitUntil(() => session.messages.length <= 500);
});
