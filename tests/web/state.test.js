import assert from "node:assert/strict";
import { test } from "node:test";
import { ITEMS_MAX } from "../../src/web/chat.js";
import { initialState, linkPhase, LOST, reduce, sendBar, voteBar } from "../../src/web/state.js";
import { chatEvent, SESSION, subscribed, VOTING } from "./fakes.js";

const ME = { sub: "me", role: "authenticated", name: "Me", anonymous: false };
const frame = (frame, now = 0) => ({ type: "frame", frame, now });
const events = (...list) => frame({ type: "events", session: SESSION, events: list });
const run = (...actions) => actions.reduce(reduce, initialState(SESSION, ME));
const bodies = (state) => state.chat.items.map((item) => item.body ?? item.divides ?? item.text ?? null);
const live = { type: "link", link: { phase: "live" } };

test("history is shown, and is not counted as caught up", () => {
  const state = run(live, frame(subscribed()), events(chatEvent(1), chatEvent(2)), { type: "level" });
  assert.deepEqual(bodies(state), ["message 1", "message 2"]);
  assert.equal(state.toast, null);
  assert.equal(linkPhase(state), "live");
});

test("a resume counts what was said meanwhile by others, behind a divider", () => {
  const state = run(
    live,
    frame(subscribed()),
    events(chatEvent(1)),
    { type: "level" },
    { type: "link", link: { phase: "waiting" } },
    live,
    frame(subscribed({ seq: 1, recovered: true })),
    events(chatEvent(2), chatEvent(3, { user: "me" })),
    events(chatEvent(4)),
    { type: "level" },
  );
  assert.deepEqual(bodies(state), ["message 1", "caught_up", "message 2", "message 3", "message 4"]);
  assert.equal(state.chat.items[1].count, 2);
  assert.match(state.toast.text, /2 messages caught up/);
  assert.deepEqual([state.position.resumes, state.position.recovered, state.position.gaps], [1, 3, 0]);
});

test("a resume after which nothing was said says nothing", () => {
  const state = run(live, frame(subscribed()), { type: "level" }, frame(subscribed({ recovered: true })), {
    type: "level",
  });
  assert.equal(state.toast, null);
  assert.equal(state.chat.items.length, 0);
});

test("an unrecovered history of the same log keeps what was shown and marks the hole", () => {
  const state = run(
    live,
    frame(subscribed()),
    events(chatEvent(1)),
    frame(subscribed({ seq: 100, reason: "too_old" })),
    events(chatEvent(101)),
  );
  assert.deepEqual(bodies(state), ["message 1", "lost", "message 101"]);
  assert.equal(state.toast.text, LOST);
  assert.equal(state.position.gaps, 0);
});

test("a history that reaches back to what was shown leaves no hole and repeats nothing", () => {
  const state = run(
    live,
    frame(subscribed()),
    events(chatEvent(1), chatEvent(2)),
    frame(subscribed({ seq: 1, reason: "too_old" })),
    events(chatEvent(2), chatEvent(3)),
  );
  assert.deepEqual(bodies(state), ["message 1", "message 2", "message 3"]);
  assert.equal(state.toast, null);
});

test("another epoch forgets what was shown", () => {
  const state = run(
    live,
    frame(subscribed()),
    events(chatEvent(1)),
    frame({ type: "reset", session: SESSION, epoch: "e2", seq: 0, reason: "ahead" }),
    events(chatEvent(1, { body: "anew" })),
  );
  assert.deepEqual(bodies(state), ["lost", "anew"]);
});

test("the head in a subscribed frame tells exactly when the client is level", () => {
  const state = run(live, frame(subscribed({ head: 2 })), events(chatEvent(1)));
  assert.equal(linkPhase(state), "catching_up");
  assert.equal(linkPhase(reduce(state, events(chatEvent(2)))), "live");
});

test("a deleted message loses its text, live and in replay, and an edit after it brings nothing back", () => {
  const gone = { seq: 2, type: "chat.deleted", at: "", data: { id: "m1" } };
  const edit = { seq: 3, type: "chat.updated", at: "", data: { id: "m1", body: "back", edited_at: "x" } };
  const replayed = chatEvent(4, { body: null, deleted_at: "2026-01-01T00:00:00Z" });
  const state = run(frame(subscribed()), events(chatEvent(1), gone, edit, replayed));
  assert.deepEqual(
    state.chat.items.map((item) => [item.body, item.deleted]),
    [
      [null, true],
      [null, true],
    ],
  );
});

test("an edit changes the text and marks it", () => {
  const edit = { seq: 2, type: "chat.updated", at: "", data: { id: "m1", body: "better", edited_at: "x" } };
  const [item] = run(frame(subscribed()), events(chatEvent(1), edit)).chat.items;
  assert.deepEqual([item.body, item.edited], ["better", true]);
});

test("unknown frames, events and keys are ignored", () => {
  const state = run(
    frame(subscribed()),
    frame({ type: "confetti", session: SESSION }),
    events({ seq: 1, type: "gift.sent", at: "", data: null }, { seq: 2, type: "chat.updated" }),
  );
  assert.deepEqual([state.position.seq, state.chat.items.length], [2, 0]);
});

test("frames of another session change nothing", () => {
  const before = run(frame(subscribed()));
  assert.equal(reduce(before, frame({ type: "viewers", session: "other", count: 9 })), before);
});

for (const [order, steps] of Object.entries({
  "ack first": (ack, event) => [ack, event],
  "event first": (ack, event) => [event, ack],
})) {
  test(`an optimistic message settles to one, ${order}`, () => {
    const send = { type: "send", message: { nonce: "n", body: "hi", replyTo: null, at: 0 } };
    const ack = { type: "sent", nonce: "n", seq: 1, message: "m1", now: 0 };
    const state = run(
      frame(subscribed()),
      send,
      ...steps(ack, events(chatEvent(1, { user: "me", nonce: "n" }))),
    );
    assert.equal(state.chat.pending.length, 0);
    assert.deepEqual(bodies(state), ["message 1"]);
  });
}

test("an acknowledged message whose number has passed does not linger", () => {
  const send = { type: "send", message: { nonce: "n", body: "hi", replyTo: null, at: 0 } };
  const state = run(
    frame(subscribed()),
    send,
    { type: "sent", nonce: "n", seq: 5, message: "m5", now: 0 },
    frame(subscribed({ seq: 9, reason: "too_old" })),
    events(chatEvent(10)),
  );
  assert.equal(state.chat.pending.length, 0);
});

test("a refused message fails by name, and slow mode holds the next one back", () => {
  const send = { type: "send", message: { nonce: "n", body: "hi", replyTo: null, at: 0 } };
  const state = run(frame(subscribed()), send, {
    type: "send_failed",
    nonce: "n",
    code: "slow_mode",
    message: "wait 3 s",
    retryAfterMs: 3000,
    now: 100,
  });
  assert.deepEqual(
    [state.chat.pending[0].status, state.chat.pending[0].error.code, state.slowUntil],
    ["failed", "slow_mode", 3100],
  );
});

test("the chat is bounded and says how much it forgot", () => {
  const many = Array.from({ length: ITEMS_MAX + 7 }, (_, at) => chatEvent(at + 1));
  const { chat } = run(frame(subscribed()), events(...many));
  assert.deepEqual([chat.items.length, chat.dropped], [ITEMS_MAX, 7]);
});

test("why one may not write is said by its cause", () => {
  const closed = { can: { send: false, vote: false, moderate: false } };
  const bar = (state) => sendBar(state, 0);
  assert.equal(bar(run(frame(subscribed()))), null);
  assert.match(bar({ ...run(frame(subscribed(closed))), me: { ...ME, anonymous: true } }), /Sign in/);
  assert.match(bar(run(frame(subscribed({ ...closed, info: { status: "ended" } })))), /ended/);
  assert.match(bar(run(frame(subscribed({ ...closed, info: { chat_enabled: false } })))), /turned chat off/);
  const banned = {
    seq: 1,
    type: "member.banned",
    at: "",
    data: { user_id: "me", until: new Date(60_000).toISOString() },
  };
  assert.match(bar(run(frame(subscribed(closed)), events(banned))), /timed out/);
});

test("a voting whose time is up takes no more votes, by the server's clock", () => {
  const voting = {
    voting: VOTING,
    status: "open",
    version: 1,
    total: 0,
    counts: [],
    closes_at: new Date(10_000).toISOString(),
    question: "?",
    options: [],
  };
  const state = run(frame(subscribed({ votings: [voting] })));
  assert.equal(voteBar(state, state.votings[0], 9_000), null);
  assert.match(voteBar({ ...state, clockOffset: 5000 }, state.votings[0], 9_000), /Time is up/);
});

test("a clock that is right is left alone, a wrong one is mended by live events", () => {
  const level = [frame(subscribed()), { type: "level" }];
  const at = (now) => frame({ type: "events", session: SESSION, events: [chatEvent(1)] }, now);
  assert.equal(run(...level, at(1100)).clockOffset, 0);
  assert.equal(run(...level, at(61_000)).clockOffset, -60_000);
});
