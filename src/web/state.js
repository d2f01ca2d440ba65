// The state of one session as one viewer sees it: action in, state out.
//
// Pure: no socket, clock or randomness; `action.now` is the time. Frames and keys that it does not know are ignored,
// so that an older page can talk to a newer server.

import {
  acknowledge,
  addPending,
  appendDivider,
  clearChat,
  dropPending,
  emptyChat,
  failPending,
  foldEvents,
  updateDivider,
} from "./chat.js";
import { advance, displace, leavesHole, place, unplaced } from "./continuity.js";
import { confirmVote, foldTally, foldVotingEvent, fromSnapshot, refuseVote, wishVote } from "./votings.js";

/** A clock that differs less than this is taken as right. */
const CLOCK_TOLERANCE_MS = 2000;

/** The state before anything has happened. `me` is {sub, role, name, anonymous}. */
export function initialState(session, me) {
  return {
    session,
    me,
    link: { phase: "connecting", online: true, retryAt: null, failures: 0, stop: null },
    ready: false, // Whether a subscription has ever succeeded.
    catching: null, // {resumed, count, divider, head} between `subscribed` and being level.
    server: null,
    connection: null,
    position: unplaced(),
    info: { title: "", status: "", slow_mode_seconds: 0, chat_enabled: true },
    can: { send: false, vote: false, moderate: false },
    viewers: null,
    votings: [],
    chat: emptyChat(),
    slowUntil: 0,
    timeoutUntil: 0,
    clockOffset: 0, // Server minus client, only when the difference matters.
    toast: null, // {id, tone, text}
  };
}

/** Folds one action. */
export function reduce(state, action) {
  switch (action.type) {
    case "frame":
      return onFrame(state, action.frame, action.now);
    case "link":
      return onLink(state, action.link);
    case "level":
      return onLevel(state);
    case "send":
      return { ...state, chat: addPending(state.chat, action.message) };
    case "sent":
      return onSent(state, action);
    case "send_failed":
      return onSendFailed(state, action);
    case "send_dropped":
      return { ...state, chat: dropPending(state.chat, action.nonce) };
    case "vote":
      return { ...state, votings: wishVote(state.votings, action.voting, action.movie) };
    case "voted":
      return { ...state, votings: confirmVote(state.votings, action.voting, action.movie) };
    case "vote_failed":
      return toast(
        { ...state, votings: refuseVote(state.votings, action.voting, action.movie) },
        "warn",
        action.text,
      );
    case "toast":
      return toast(state, action.tone, action.text);
    default:
      return state;
  }
}

/** What the connection pill says: connecting, catching_up, live, waiting, offline or stopped. */
export function linkPhase(state) {
  const { phase, online } = state.link;
  if (phase === "waiting" && !online) return "offline";
  return phase === "live" && state.catching ? "catching_up" : phase;
}

/** The server's time, as far as it can be told. */
export function serverNow(state, now) {
  return now + state.clockOffset;
}

/** Why the viewer may not write, or null when they may. */
export function sendBar(state, now) {
  if (!state.ready) return "Connecting to the chat…";
  if (state.info.status === "ended") return "This session has ended. Thanks for watching.";
  if (state.can.send) return null;
  if (state.me.anonymous) return "Sign in to chat.";
  if (state.timeoutUntil > serverNow(state, now)) return "You are timed out.";
  if (!state.info.chat_enabled) return "The streamer has turned chat off.";
  return "You can read along, but not write here.";
}

/** Why the viewer may not vote, or null when they may. */
export function voteBar(state, voting, now) {
  if (voting.status !== "open") return "Voting has closed.";
  if (voting.closesAt !== null && voting.closesAt <= serverNow(state, now))
    return "Time is up. Counting the last votes…";
  if (state.info.status === "ended") return "This session has ended.";
  if (!state.can.vote) {
    if (state.me.anonymous) return "Sign in to vote.";
    if (state.timeoutUntil > serverNow(state, now)) return "You are timed out and cannot vote.";
    return "You cannot vote in this session.";
  }
  if (!voting.allowChange && voting.mine && !voting.wish) return "Your vote is in. It cannot be changed.";
  return null;
}

function onLink(state, link) {
  const gone = link.phase !== undefined && link.phase !== "live";
  return { ...state, link: { ...state.link, ...link }, catching: gone ? null : state.catching };
}

function onFrame(state, frame, now) {
  switch (frame.type) {
    case "welcome":
      return { ...state, server: frame.server ?? null, connection: frame.connection ?? null };
    case "authenticated":
      return {
        ...state,
        me: { ...state.me, sub: frame.sub ?? state.me.sub, role: frame.role ?? state.me.role },
      };
    default:
      break;
  }
  if (frame.session !== state.session) return state;
  switch (frame.type) {
    case "subscribed":
      return onSubscribed(state, frame);
    case "events":
      return onEvents(state, frame.events ?? [], now);
    case "reset":
      return onReset(state, frame);
    case "tally":
      return { ...state, votings: foldTally(state.votings, frame) };
    case "viewers":
      return { ...state, viewers: frame.count ?? state.viewers };
    case "resume_token":
      return { ...state, position: { ...state.position, token: frame.token ?? null } };
    case "access":
      return { ...state, can: { ...state.can, ...frame.can } };
    default:
      return state;
  }
}

function onSubscribed(state, frame) {
  const returning = state.position.seq !== null;
  const resumed = returning && frame.recovered === true;
  const next = {
    ...state,
    ready: true,
    catching: { resumed, count: 0, divider: null, head: frame.head ?? null },
    info: { ...state.info, ...frame.info },
    can: { ...state.can, ...frame.can },
    viewers: frame.viewers ?? state.viewers,
    votings: fromSnapshot(frame.votings, state.votings),
    position: place(state.position, frame),
  };
  return returning && !resumed ? lost(next, state, frame) : next;
}

function onReset(state, frame) {
  const next = { ...state, catching: { resumed: false, count: 0, divider: null, head: frame.head ?? null } };
  return lost({ ...next, position: displace(state.position, frame) }, state, frame);
}

// Says so where something is missing. What was shown stays when it is the same log, further on.
function lost(next, before, frame) {
  if (!leavesHole(before.position, frame)) return next;
  const chat = frame.epoch === before.position.epoch ? next.chat : clearChat(next.chat);
  const divider = {
    kind: "divider",
    id: `lost-${next.position.resets}`,
    reason: frame.reason ?? null,
    divides: "lost",
  };
  return toast({ ...next, chat: appendDivider(chat, divider) }, "warn", LOST);
}

function onEvents(state, events, now) {
  const { position, fresh } = advance(state.position, events);
  let next = { ...state, position };
  if (state.catching?.resumed) next = countCaughtUp(next, fresh);
  else if (!state.catching) next = { ...next, clockOffset: clockOffset(state.clockOffset, fresh, now) };
  next = { ...next, chat: foldEvents(next.chat, fresh) };
  for (const event of fresh) next = onEvent(next, event);
  const head = next.catching?.head ?? null;
  return head !== null && position.seq >= head ? onLevel(next) : next;
}

function onEvent(state, event) {
  const data = event.data ?? {};
  if (event.type?.startsWith("voting.")) return { ...state, votings: foldVotingEvent(state.votings, event) };
  if (event.type === "session.updated") {
    const info = { ...state.info };
    for (const key of Object.keys(data)) if (key in INFO_KEYS) info[key] = data[key];
    return { ...state, info };
  }
  if (event.type === "member.banned" && data.user_id === state.me.sub && data.until) {
    return { ...state, timeoutUntil: Date.parse(data.until) || 0 };
  }
  if (event.type === "member.unbanned" && data.user_id === state.me.sub) return { ...state, timeoutUntil: 0 };
  if (event.type === "chat.created" && data.user_id === state.me.sub && data.author) {
    const name = data.author.display_name || data.author.username;
    return name && name !== state.me.name ? { ...state, me: { ...state.me, name } } : state;
  }
  return state;
}

// The divider stands before the first caught-up message and counts along.
function countCaughtUp(state, fresh) {
  const said = fresh.filter(
    (event) => event.type === "chat.created" && event.data?.user_id !== state.me.sub,
  ).length;
  const position = { ...state.position, recovered: state.position.recovered + fresh.length };
  if (said === 0) return { ...state, position };
  const count = state.catching.count + said;
  const id = state.catching.divider ?? `away-${state.position.resumes}`;
  const divider = { kind: "divider", id, divides: "caught_up", count };
  const chat = state.catching.divider
    ? updateDivider(state.chat, divider)
    : appendDivider(state.chat, divider);
  return { ...state, position, chat, catching: { ...state.catching, count, divider: id } };
}

function onLevel(state) {
  if (!state.catching) return state;
  const { resumed, count } = state.catching;
  const next = { ...state, catching: null };
  return resumed && count > 0 ? toast(next, "good", caughtUpText(count)) : next;
}

function onSent(state, action) {
  const exempt = state.can.moderate || !state.info.slow_mode_seconds;
  const slowUntil = exempt ? state.slowUntil : action.now + state.info.slow_mode_seconds * 1000;
  return {
    ...state,
    slowUntil,
    chat: acknowledge(state.chat, action.nonce, { ...action, seen: state.position.seq }),
  };
}

function onSendFailed(state, action) {
  const chat = failPending(state.chat, action.nonce, { code: action.code, message: action.message });
  const slowed = action.code === "slow_mode" || action.code === "rate_limited";
  const slowUntil = slowed ? action.now + (action.retryAfterMs ?? 1000) : state.slowUntil;
  return { ...state, chat, slowUntil };
}

// A live event is at most a network's delay old, so the largest difference seen is nearest the truth.
function clockOffset(offset, fresh, now) {
  const latest = Date.parse(fresh.at(-1)?.at ?? "");
  if (Number.isNaN(latest)) return offset;
  const difference = latest - now;
  if (offset === 0) return Math.abs(difference) > CLOCK_TOLERANCE_MS ? difference : 0;
  return Math.max(offset, difference);
}

function toast(state, tone, text) {
  return { ...state, toast: { id: (state.toast?.id ?? 0) + 1, tone, text } };
}

/** The words of a resume that brought `count` messages. */
export function caughtUpText(count) {
  return `You were away: ${count} ${count === 1 ? "message" : "messages"} caught up`;
}

/** The words of a history with a hole in it. */
export const LOST = "Some history could not be recovered; showing the latest";

const INFO_KEYS = {
  title: 1,
  status: 1,
  slow_mode_seconds: 1,
  chat_enabled: 1,
  movie_id: 1,
  streamer_id: 1,
  visibility: 1,
};
