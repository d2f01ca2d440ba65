import assert from "node:assert/strict";
import { test } from "node:test";
import { resumeOf } from "../../src/web/continuity.js";
import { Session } from "../../src/web/session.js";
import { initialState, linkPhase, reduce } from "../../src/web/state.js";
import { chatEvent, FakeWorld, SESSION, subscribed, VOTING } from "./fakes.js";

function follow() {
  const world = new FakeWorld();
  const box = {
    state: initialState(SESSION, { sub: "me", role: "authenticated", name: "Me", anonymous: false }),
    sent: [],
    stopped: null,
    uuids: 0,
  };
  const session = new Session({
    connection: {
      send: (frame) => box.sent.push(frame),
      settled: () => {},
      stop: (reason) => (box.stopped = reason),
    },
    dispatch: (action) => (box.state = reduce(box.state, action)),
    state: () => box.state,
    resume: () => resumeOf(box.state.position),
    now: world.now,
    timers: world.timers,
    uuid: () => `nonce-${(box.uuids += 1)}`,
  });
  return { world, box, session, last: () => box.sent.at(-1) };
}

function admitted(more) {
  const it = follow();
  it.session.subscribe();
  it.session.onFrame(subscribed(more));
  return it;
}

test("the first subscription asks for history, the next resumes", () => {
  const { session, box, last } = admitted();
  assert.equal(box.sent[0].history, 100);
  session.onFrame({ type: "events", session: SESSION, events: [chatEvent(1)] });
  session.onLost();
  session.subscribe();
  assert.deepEqual(last().resume, { seq: 1, epoch: "e1", token: "t1" });
  assert.equal("history" in last(), false);
});

test("it is level after a moment of quiet, or after a while in a busy chat", () => {
  const quiet = admitted();
  quiet.world.pass(600);
  assert.equal(linkPhase(quiet.box.state), "live");
  const busy = admitted();
  for (let seq = 1; seq <= 40; seq += 1) {
    busy.session.onFrame({ type: "events", session: SESSION, events: [chatEvent(seq)] });
    busy.world.pass(100);
    if (seq === 20) assert.equal(linkPhase(busy.box.state), "catching_up");
  }
  assert.equal(linkPhase(busy.box.state), "live");
});

test("a message caught by a lost socket goes out again under its nonce, and settles once", () => {
  const { session, box, last } = admitted();
  const nonce = session.send("hello");
  session.onLost();
  session.subscribe();
  session.onFrame(subscribed({ recovered: true }));
  assert.deepEqual([last().type, last().nonce, last().body], ["send", nonce, "hello"]);
  session.onFrame({ type: "ack", id: last().id, seq: 1, message: "m1" });
  session.onFrame({ type: "events", session: SESSION, events: [chatEvent(1, { user: "me", nonce })] });
  assert.deepEqual([box.state.chat.pending.length, box.state.chat.items.length], [0, 1]);
});

test("a message without an answer fails by name and can be tried again under its nonce", () => {
  const { world, session, box, last } = admitted();
  const nonce = session.send("hello");
  world.pass(15_000);
  assert.deepEqual(
    [box.state.chat.pending[0].status, box.state.chat.pending[0].error.code],
    ["failed", "no_answer"],
  );
  session.retry(nonce);
  assert.deepEqual([last().nonce, box.state.chat.pending[0].status], [nonce, "sending"]);
});

test("a message typed while away waits for the subscription", () => {
  const { session, box } = admitted();
  session.onLost();
  const before = box.sent.length;
  session.send("later");
  assert.equal(box.sent.length, before);
  session.subscribe();
  session.onFrame(subscribed({ recovered: true }));
  assert.equal(box.sent.at(-1).body, "later");
});

test("a refused vote is taken back and said", () => {
  const votings = [
    {
      voting: VOTING,
      status: "open",
      version: 1,
      total: 0,
      counts: [],
      options: [{ movie: "a", title: "A" }],
      mine: null,
    },
  ];
  const { session, box, last } = admitted({ votings });
  session.vote(VOTING, "a");
  assert.equal(box.state.votings[0].mine, "a");
  session.onFrame({ type: "error", id: last().id, code: "voting_closed", message: "closed" });
  assert.equal(box.state.votings[0].mine, null);
  assert.match(box.state.toast.text, /too late/);
});

test("a vote caught by a lost socket goes out again", () => {
  const votings = [
    {
      voting: VOTING,
      status: "open",
      version: 1,
      total: 0,
      counts: [],
      options: [{ movie: "a", title: "A" }],
      mine: null,
    },
  ];
  const { session, last } = admitted({ votings });
  session.vote(VOTING, "a");
  session.onLost();
  session.subscribe();
  session.onFrame(subscribed({ recovered: true, votings }));
  assert.deepEqual([last().type, last().movie], ["vote", "a"]);
});

test("a refused subscription stops by name, or tries again when told when", () => {
  const gone = follow();
  gone.session.subscribe();
  gone.session.onFrame({ type: "error", id: 1, code: "not_found" });
  assert.equal(gone.box.stopped, "not_found");
  const busy = follow();
  busy.session.subscribe();
  busy.session.onFrame({ type: "error", id: 1, code: "unavailable", retry_after_ms: 700 });
  busy.world.pass(700);
  assert.deepEqual([busy.box.sent.length, busy.box.stopped], [2, null]);
});

test("being put out of the session stops by name", () => {
  const { session, box } = admitted();
  session.onFrame({ type: "unsubscribed", session: SESSION, reason: "banned" });
  assert.equal(box.stopped, "banned");
});
