import assert from "node:assert/strict";
import { test } from "node:test";
import { IDLE } from "../../src/web/client/connection_state.js";
import { RefusedError } from "../../src/web/client/errors.js";
import { INITIAL_STATE, reduce as fold } from "../../src/web/client/state.js";
import { continues, messageById } from "../../src/web/items.js";
import { initialRoom, linkPhase, LOST, reduce, sendBar, serverNow, stopCode, voteBar } from "../../src/web/room.js";

const SESSION = "5e551000-0000-4000-8000-000000000001";
const ME = { sub: "me", name: "Me", anonymous: false, expiresAt: null };
const CAN = { send: true, vote: true, moderate: false };
const INFO = { title: "Night", status: "live", slow_mode_seconds: 0, chat_enabled: true };

test("poll lines and dividers appear between the messages in log order", () => {
  const { room } = new Page().subscribed(0).events(said(1, "a"), opened(2), said(3, "b"));
  assert.deepEqual(words(room), ["a", "Poll opened: Which?", "b"]);
  assert.equal(messageById(room.items, "m3").body, "b");
});

test("the line of a closed poll names the winner, but not in a tie", () => {
  const closed = (counts) => new Page().subscribed(0).events(closedWith(1, counts)).room;
  assert.deepEqual(words(closed([{ movie: "x", votes: 2 }, { movie: "y", votes: 1 }])), ["Poll closed: X wins with 2 votes"]);
  assert.deepEqual(words(closed([{ movie: "x", votes: 2 }, { movie: "y", votes: 2 }])), ["Poll closed: Which?"]);
});

test("a divider counts the missed messages, and a notice appears once all have arrived", () => {
  const page = new Page().subscribed(0).events(said(1, "before"));
  page.frame({ type: "subscribed", session: SESSION, epoch: "e", seq: 1, head: 3, recovered: true, reason: null });
  page.events(said(2, "missed"));
  assert.equal(page.room.toast, null);
  page.events(said(3, "missed too"));
  assert.deepEqual(words(page.room), ["before", "2 caught up", "missed", "missed too"]);
  assert.equal(page.room.toast.text, "Reconnected: 2 missed messages loaded");
  page.events(said(4, "live"));
  assert.equal(page.room.recovered, 2);
});

test("a fresh start with a gap shows a divider and a notice", () => {
  const page = new Page().subscribed(0).events(said(1, "before"));
  page.frame({ type: "reset", session: SESSION, epoch: "e", seq: 50, reason: "too_old", head: 51 });
  page.events(said(51, "after"));
  assert.deepEqual(words(page.room), ["lost", "after"]);
  assert.equal(page.room.toast.text, LOST);
});

test("a time-out blocks the composer until its end by the database's clock", () => {
  const page = new Page().subscribed(0);
  assert.equal(sendBar(page.room, 0), null);
  const until = "2026-11-26T20:10:00Z";
  page.events(event(1, "member.banned", { user_id: "me", until }));
  page.frame({ type: "access", session: SESSION, can: { send: false, vote: false } });
  assert.equal(sendBar(page.room, Date.parse(until) - 1000), "You are timed out.");
  assert.equal(sendBar(page.room, Date.parse(until) + 1000), "You can read this chat but not write in it.");
});

test("slow mode delays the next message, but not for a moderator", () => {
  const slow = { info: { ...INFO, slow_mode_seconds: 30 } };
  assert.equal(new Page().subscribed(0, slow).act({ type: "sent", now: 1000 }).room.slowUntil, 31_000);
  const moderator = { ...slow, can: { ...CAN, moderate: true } };
  assert.equal(new Page().subscribed(0, moderator).act({ type: "sent", now: 1000 }).room.slowUntil, 0);
  const error = new RefusedError("slow_mode", "wait", 2500);
  assert.equal(new Page().subscribed(0).act({ type: "refused", error, now: 1000 }).room.slowUntil, 3500);
});

test("the viewer can write immediately when slow mode ends", () => {
  const page = new Page().subscribed(0, { info: { ...INFO, slow_mode_seconds: 30 } }).act({ type: "sent", now: 1000 });
  page.events(event(1, "session.updated", { slow_mode_seconds: 10 }));
  assert.equal(page.room.slowUntil, 31_000);
  page.events(event(2, "session.updated", { slow_mode_seconds: 0 }));
  assert.equal(page.room.slowUntil, 0);
});

test("voting is blocked by a final vote, a closed poll and a passed closing time", () => {
  const voting = { status: "open", allow_change: false, mine: "x", wish: null, closes_at: null };
  const { room } = new Page().subscribed(0);
  assert.match(voteBar(room, voting, 0), /cannot be changed/);
  assert.equal(voteBar(room, { ...voting, mine: null }, 0), null);
  assert.match(voteBar(room, { ...voting, status: "closed" }, 0), /closed/);
  assert.match(voteBar(room, { ...voting, closes_at: "2026-11-26T20:00:00Z" }, Date.parse("2026-11-26T20:00:01Z")), /Time is up/);
});

test("linkPhase and stopCode follow the connection, and the session's error comes first", () => {
  const page = new Page();
  const connection = (change) => page.act({ type: "connection", state: { ...IDLE, ...change } }).room;
  assert.equal(linkPhase(connection({ status: "connecting" })), "connecting");
  assert.equal(linkPhase(connection({ status: "waiting", online: false })), "offline");
  assert.equal(linkPhase(connection({ status: "waiting" })), "waiting");
  connection({ status: "open" });
  assert.equal(linkPhase(page.subscribed(0).room), "live");
  page.fold({ type: "stopped", error: new RefusedError("banned", "out") });
  assert.deepEqual([linkPhase(page.room), stopCode(page.room)], ["stopped", "banned"]);
});

test("an unchanged message gives the same item", () => {
  const page = new Page().subscribed(0).events(said(1, "a"));
  const [first] = page.room.items;
  page.events(said(2, "b"));
  assert.equal(page.room.items[0], first);
  assert.equal(continues(page.room.items[1], first), true);
  page.events(event(3, "chat.deleted", { id: "m1", deleted_at: "2026-11-26T20:00:00Z" }));
  assert.deepEqual([page.room.items[0].deleted, page.room.items[0].body], [true, null]);
});

test("serverNow recovers after the page's clock jumps ahead or falls behind", () => {
  const page = new Page().subscribed(0);
  const at = Date.parse("2026-11-26T20:00:00Z");
  const hears = (seq, ours) => {
    const latest = [{ ...said(seq, "x"), at: new Date(at).toISOString() }];
    return page.act({ type: "session", state: { ...page.room.session, latest }, now: ours }).room;
  };
  const hour = 3_600_000;
  assert.equal(serverNow(hears(1, at + hour), at + hour), at);
  // The machine slept for an hour that the page's clock did not count, or the clock was set back.
  assert.equal(serverNow(hears(2, at), at), at);
  assert.equal(serverNow(hears(3, at + hour), at + hour), at);
  // A slow network does not change the estimate.
  assert.equal(serverNow(hears(4, at + hour + 3000), at + hour + 3000), at + 3000);
});

/** A page whose client receives the test's frames. */
class Page {
  room = initialRoom(SESSION, ME);
  #session = INITIAL_STATE;

  act(action) {
    this.room = reduce(this.room, action);
    return this;
  }

  fold(action) {
    this.#session = fold(this.#session, action);
    return this.act({ type: "session", state: this.#session, now: Date.parse("2026-11-26T20:00:00Z") });
  }

  frame(frame) {
    return this.fold({ type: "frame", frame });
  }

  subscribed(seq, change = {}) {
    return this.frame({ type: "subscribed", session: SESSION, epoch: "e", seq, recovered: false, reason: "fresh", can: CAN, info: INFO, ...change });
  }

  events(...events) {
    return this.frame({ type: "events", session: SESSION, events });
  }
}

function event(seq, type, data) {
  return { seq, type, at: "2026-11-26T20:00:00Z", data };
}

function said(seq, body) {
  const author = { username: "ann", display_name: null, role: "viewer" };
  return event(seq, "chat.created", { id: `m${seq}`, user_id: "ann", body, nonce: null, reply_to: null, created_at: "2026-11-26T20:00:00Z", author });
}

const VOTING = { id: "v", question: "Which?", options: [{ movie: "x", title: "X" }, { movie: "y", title: "Y" }] };

function opened(seq) {
  return event(seq, "voting.opened", { ...VOTING, state: "open" });
}

function closedWith(seq, counts) {
  return event(seq, "voting.closed", { ...VOTING, state: "closed", results: { total: 3, counts } });
}

function words(room) {
  return room.items.map((item) => {
    if (item.kind === "divider") return item.divides === "lost" ? "lost" : `${item.count} caught up`;
    return item.body ?? item.text;
  });
}
