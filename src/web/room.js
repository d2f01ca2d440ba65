// The page's own state of a session, beside the client's: marks in the chat, reasons why the viewer may not write or
// vote, the clock, and notices.
//
// A pure reducer; `action.now` is the time. The client keeps the promises (order, resumes, counts).

import { IDLE } from "./client/connection_state.js";
import { INITIAL_STATE } from "./client/state.js";
import { itemsOf, lineOf, MARKS_MAX } from "./items.js";

/** The page ignores a smaller difference between its clock and the database's clock. */
const CLOCK_TOLERANCE_MS = 2000;
/** An event that seems to be delayed by more than this means that the page's clock has jumped ahead. */
const CLOCK_JUMP_MS = 15_000;
const NO_INFO = { title: "", status: "", slow_mode_seconds: 0, chat_enabled: true };

/** Returns the state before the first action. `me` is {sub, name, anonymous, expiresAt}. */
export function initialRoom(id, me) {
  return {
    id,
    me,
    session: INITIAL_STATE,
    connection: IDLE,
    info: NO_INFO,
    ready: false, // Whether a subscription has ever succeeded.
    marks: [], // Lines and dividers between the messages.
    items: [],
    away: null, // {count, seq} from a resume until all missed events have arrived.
    recovered: 0,
    slowUntil: 0,
    timeoutUntil: 0,
    clockOffset: 0, // The database's clock minus the page's clock; 0 for a difference below the tolerance.
    toast: null, // {id, tone, text}
  };
}

/** Returns the state after one action. */
export function reduce(room, action) {
  switch (action.type) {
    case "session":
      return onSession(room, action.state, action.now);
    case "connection":
      return { ...room, connection: action.state };
    case "sent":
      return onSent(room, action.now);
    case "refused":
      return onRefused(room, action);
    case "toast":
      return toast(room, action.tone, action.text);
    default:
      return room;
  }
}

/** Returns the state of the connection pill: connecting, catching_up, live, waiting, offline or stopped. */
export function linkPhase({ connection, session }) {
  if (stopCode({ connection, session }) !== null) return "stopped";
  if (connection.status === "waiting") return connection.online ? "waiting" : "offline";
  if (connection.status !== "open") return "connecting";
  return session.status === "live" || session.status === "catching_up" ? session.status : "connecting";
}

/** Returns the error code that ended the session for this page; null while it runs. */
export function stopCode({ connection, session }) {
  if (session.status === "stopped") return session.error?.code ?? "refused";
  return connection.status === "stopped" ? (connection.error?.code ?? "refused") : null;
}

/** Returns the estimated time of the database. */
export function serverNow(room, now) {
  return now + room.clockOffset;
}

/** Returns when a poll closes, in milliseconds since 1970; null if the streamer must close it. */
export function closesAt(voting) {
  const time = Date.parse(voting.closes_at ?? "");
  return Number.isNaN(time) ? null : time;
}

/** Returns the poll to show: the open one, or else the one that closed last. */
export function currentVoting(room) {
  return room.session.votings[0] ?? null;
}

/** Returns why the viewer may not write; null if they may. */
export function sendBar(room, now) {
  const { info, session, me } = room;
  if (!room.ready) return "Connecting to the chat…";
  if (info.status === "ended") return "This session has ended. Thanks for watching.";
  if (session.can.send) return null;
  if (me.anonymous) return "Sign in to chat.";
  if (room.timeoutUntil > serverNow(room, now)) return "You are timed out.";
  if (!info.chat_enabled) return "The streamer has turned chat off.";
  return "You can read this chat but not write in it.";
}

/** Returns why the viewer may not vote; null if they may. */
export function voteBar(room, voting, now) {
  const closes = closesAt(voting);
  if (voting.status !== "open") return "This poll is closed.";
  if (closes !== null && closes <= serverNow(room, now)) return "Time is up. Counting the last votes…";
  if (room.info.status === "ended") return "This session has ended.";
  if (!room.session.can.vote) {
    if (room.me.anonymous) return "Sign in to vote.";
    if (room.timeoutUntil > serverNow(room, now)) return "You are timed out and cannot vote.";
    return "You cannot vote in this session.";
  }
  if (!voting.allow_change && voting.mine && !voting.wish) return "Your vote counts. It cannot be changed.";
  return null;
}

function onSession(room, session, now) {
  const before = room.session;
  let next = { ...room, session, info: session.info ?? room.info, ready: session.continuity.seq !== null };
  // When slow mode ends, the viewer may write immediately.
  if (room.info.slow_mode_seconds > 0 && next.info.slow_mode_seconds === 0) next = { ...next, slowUntil: 0 };
  if (session.sub) next = { ...next, me: { ...next.me, sub: session.sub } };
  if (session.continuity.resets > before.continuity.resets) next = onFreshStart(next, before);
  else if (session.continuity.resumes > before.continuity.resumes)
    next = { ...next, away: { count: 0, seq: session.continuity.seq } };
  if (session.latest !== before.latest) next = onEvents(next, session.latest, now);
  if (next.away && session.status === "live") next = onLevel(next);
  if (session.chat.messages !== before.chat.messages || next.marks !== room.marks)
    next = { ...next, items: itemsOf(session.chat, next.marks) };
  return next;
}

// The client shows only the new history. This adds a divider and a notice if events before it are missing.
function onFreshStart(room, before) {
  const { seq, epoch, resets } = room.session.continuity;
  const isWhole = before.continuity.epoch === epoch && seq <= before.continuity.seq;
  const next = { ...room, away: null, marks: isWhole ? room.marks : [] };
  if (isWhole) return next;
  const divider = { kind: "divider", id: `lost-${resets}`, divides: "lost", seq: seq + 0.5 };
  return toast({ ...next, marks: [divider] }, "warn", LOST);
}

function onEvents(room, events, now) {
  let next = room.away ? countCaughtUp(room, events) : room;
  if (!room.away && room.session.status === "live")
    next = { ...next, clockOffset: clockOffset(room.clockOffset, events, now) };
  const lines = events.map(lineOf).filter(Boolean);
  if (lines.length > 0) next = { ...next, marks: mark(next.marks, lines) };
  for (const event of events) next = onEvent(next, event);
  return next;
}

function onEvent(room, { type, data }) {
  const isMine = data.user_id !== undefined && data.user_id === room.me.sub;
  if (!isMine) return room;
  if (type === "member.banned") return { ...room, timeoutUntil: Date.parse(data.until ?? "") || 0 };
  if (type === "member.unbanned") return { ...room, timeoutUntil: 0 };
  const name = type === "chat.created" && (data.author?.display_name || data.author?.username);
  return name && name !== room.me.name ? { ...room, me: { ...room.me, name } } : room;
}

// Shows a divider before the first missed message, with the number of missed messages so far.
function countCaughtUp(room, events) {
  const isOthers = (event) => event.type === "chat.created" && event.data.user_id !== room.me.sub;
  const count = room.away.count + events.filter(isOthers).length;
  const next = { ...room, recovered: room.recovered + events.length, away: { ...room.away, count } };
  if (count === 0) return next;
  const { seq } = room.away;
  const divider = { kind: "divider", id: `away-${seq}`, divides: "caught_up", seq: seq + 0.5, count };
  return { ...next, marks: mark(next.marks, [divider]) };
}

function onLevel(room) {
  const { count } = room.away;
  const next = { ...room, away: null };
  return count > 0 ? toast(next, "good", caughtUpText(count)) : next;
}

function onSent(room, now) {
  const { slow_mode_seconds: seconds } = room.info;
  return room.session.can.moderate || !seconds ? room : { ...room, slowUntil: now + seconds * 1000 };
}

function onRefused(room, { error, now }) {
  if (error.code !== "slow_mode" && error.code !== "rate_limited") return room;
  return { ...room, slowUntil: now + (error.retryAfterMs ?? 1000) };
}

// A live event is as old as the network delay, so the largest difference is the best estimate.
function clockOffset(offset, events, now) {
  const latest = Date.parse(events.at(-1)?.at ?? "");
  if (Number.isNaN(latest)) return offset;
  const difference = latest - now;
  if (offset === 0) return Math.abs(difference) > CLOCK_TOLERANCE_MS ? difference : 0;
  if (difference < offset - CLOCK_JUMP_MS) return difference;
  return Math.max(offset, difference);
}

function mark(marks, fresh) {
  const ids = new Set(fresh.map((item) => item.id));
  return [...marks.filter((item) => !ids.has(item.id)), ...fresh].slice(-MARKS_MAX);
}

function toast(room, tone, text) {
  return { ...room, toast: { id: (room.toast?.id ?? 0) + 1, tone, text } };
}

/** Returns the text after a resume with `count` missed messages. */
export function caughtUpText(count) {
  return `Reconnected: ${count} missed ${count === 1 ? "message" : "messages"} loaded`;
}

/** The text for a gap in the history. */
export const LOST = "Some earlier messages could not be loaded. Here are the latest.";
