/**
 * The state of one session as one viewer sees it: action in, state out.
 *
 * Pure: no socket, clock or randomness. Frames and keys that it does not know are ignored, so that an older client can
 * talk to a newer gateway. What did not change keeps its identity.
 */

import {
  acknowledge,
  addPending,
  type Chat,
  dropPending,
  emptyChat,
  failPending,
  foldEvents,
  foldNewest,
  foldOlder,
  holdWindow,
  type OlderPage,
  type PendingMessage,
} from "./chat.ts";
import { advance, type Continuity, isForgotten, place, UNPLACED } from "./continuity.ts";
import type { UsherError } from "./errors.ts";
import {
  confirmVote,
  foldMine,
  foldSnapshot,
  foldTally,
  foldVotingEvent,
  forgetVotes,
  refuseVote,
  type Voting,
  wishVote,
} from "./votings.ts";
import type { Can, LogEvent, ResetFrame, SessionFrame, SessionInfo, SubscribedFrame } from "./wire.ts";

/**
 * How a session stands: `connecting` for the first time, `catching_up` while history or what was missed comes in,
 * `live`, `waiting` for a lost connection to come back, or `stopped` for good with an `error`. A hook whose id is null is
 * `idle`.
 */
export type SessionStatus = "idle" | "connecting" | "catching_up" | "live" | "waiting" | "stopped";

/** Everything that is known of a session. */
export interface SessionState {
  readonly status: SessionStatus;
  /** Why it is `stopped`. */
  readonly error: UsherError | null;
  /** Null until the first subscription. */
  readonly info: SessionInfo | null;
  readonly can: Can;
  /** Null until it is known. */
  readonly viewers: number | null;
  /** The open voting first, then the latest closed ones. */
  readonly votings: readonly Voting[];
  readonly chat: Chat;
  readonly continuity: Continuity;
  /** Whether the history that a session begins with has arrived in full. */
  readonly isLoaded: boolean;
  /** The newest number at the time of the subscription: what comes up to it is history. */
  readonly head: number;
  /** Whether the subscription goes on from where the last one ended, so that events up to `head` are missed ones. */
  readonly isResumed: boolean;
  /** The events that the last frame brought. */
  readonly latest: readonly LogEvent[];
  /** Whose votes and messages these are, as far as the gateway has said. */
  readonly sub: string | null | undefined;
}

/** What can happen to a session. */
export type Action =
  | { readonly type: "frame"; readonly frame: SessionFrame }
  | { readonly type: "lost" }
  | { readonly type: "connecting" }
  | { readonly type: "stopped"; readonly error: UsherError }
  | { readonly type: "identified"; readonly sub: string | null }
  | { readonly type: "send"; readonly message: Pick<PendingMessage, "nonce" | "body" | "reply_to" | "created_at"> }
  | { readonly type: "sent"; readonly nonce: string; readonly seq: number; readonly id: string }
  | { readonly type: "send_failed"; readonly nonce: string; readonly error: UsherError }
  | { readonly type: "discard"; readonly nonce: string }
  | { readonly type: "vote" | "voted" | "vote_failed"; readonly voting: string; readonly movie: string | null }
  | { readonly type: "older"; readonly page: OlderPage }
  | { readonly type: "newest" | "read_back" | "stale_frame" };

const NOTHING: readonly LogEvent[] = [];

/** The state before anything has happened. */
export const INITIAL_STATE: SessionState = {
  status: "connecting",
  error: null,
  info: null,
  can: { send: false, vote: false, moderate: false },
  viewers: null,
  votings: [],
  chat: emptyChat(),
  continuity: UNPLACED,
  isLoaded: false,
  head: 0,
  isResumed: false,
  latest: NOTHING,
  sub: undefined,
};

/** Folds one action. */
export function reduce(state: SessionState, action: Action): SessionState {
  switch (action.type) {
    case "frame":
      return onFrame(state, action.frame);
    case "connecting":
      return { ...state, status: state.continuity.seq === null ? "connecting" : "waiting", error: null };
    case "lost":
      return { ...state, status: "waiting" };
    case "stopped":
      return { ...state, status: "stopped", error: action.error };
    case "identified":
      return onIdentified(state, action.sub);
    case "send":
      return { ...state, chat: addPending(state.chat, action.message) };
    case "sent":
      return { ...state, chat: acknowledge(state.chat, action.nonce, { ...action, seen: state.continuity.seq }) };
    case "send_failed":
      return { ...state, chat: failPending(state.chat, action.nonce, action.error) };
    case "discard":
      return { ...state, chat: dropPending(state.chat, action.nonce) };
    case "vote":
      return { ...state, votings: wishVote(state.votings, action.voting, action.movie) };
    case "voted":
      return { ...state, votings: confirmVote(state.votings, action.voting, action.movie) };
    case "vote_failed":
      return { ...state, votings: refuseVote(state.votings, action.voting, action.movie) };
    case "older":
      return { ...state, chat: foldOlder(state.chat, action.page) };
    case "newest":
      return { ...state, chat: foldNewest(state.chat) };
    case "read_back":
      return { ...state, chat: holdWindow(state.chat) };
    case "stale_frame":
      return { ...state, continuity: { ...state.continuity, stale: state.continuity.stale + 1 } };
  }
}

function onFrame(state: SessionState, frame: SessionFrame): SessionState {
  switch (frame.type) {
    case "subscribed":
    case "reset":
      return onStart(state, frame);
    case "events":
      return onEvents(state, frame.events);
    case "tally": {
      const votings = foldTally(state.votings, frame);
      return votings === state.votings ? state : { ...state, votings };
    }
    case "viewers":
      return { ...state, viewers: frame.count };
    case "mine":
      return { ...state, votings: foldMine(state.votings, frame.voting, frame.movie) };
    case "access":
      return { ...state, can: { ...state.can, ...frame.can } };
    default:
      return state;
  }
}

function onStart(state: SessionState, frame: SubscribedFrame | ResetFrame): SessionState {
  const head = frame.head ?? frame.seq;
  const isFirst = state.continuity.seq === null;
  const isOther = isFirst || isForgotten(state.continuity, frame);
  // What has been sent was shown at its place; its place is not known any more.
  const pending = state.chat.pending.filter((item) => item.status !== "sent");
  const continuity = place(state.continuity, frame);
  const isLevel = (continuity.seq ?? 0) >= head;
  // A list that is scrolled up stays so, and goes on counting.
  const { isHeld, arrived } = state.chat;
  return {
    ...state,
    status: isLevel ? "live" : "catching_up",
    error: null,
    isLoaded: isLevel || (state.isLoaded && !isOther),
    head,
    isResumed: frame.type === "subscribed" && frame.recovered && !isFirst,
    info: frame.info ?? state.info,
    can: frame.can ?? state.can,
    viewers: (frame.type === "subscribed" ? frame.viewers : undefined) ?? state.viewers,
    votings: frame.votings ? foldSnapshot(state.votings, frame.votings) : state.votings,
    chat: isOther ? { ...emptyChat(frame.seq, pending), isHeld, arrived } : state.chat,
    continuity,
  };
}

function onEvents(state: SessionState, events: readonly LogEvent[]): SessionState {
  const { position, fresh } = advance(state.continuity, events);
  let { info, votings } = state;
  for (const event of fresh) {
    votings = foldVotingEvent(votings, event);
    if (event.type === "session.updated" && info !== null) info = updated(info, event.data);
  }
  const isLevel = state.status === "catching_up" && (position.seq ?? 0) >= state.head;
  return {
    ...state,
    status: isLevel ? "live" : state.status,
    isLoaded: isLevel || state.isLoaded,
    info,
    votings,
    chat: foldEvents(state.chat, fresh),
    continuity: position,
    latest: fresh,
  };
}

/** The row has more than the session is known by. */
function updated(info: SessionInfo, row: Partial<SessionInfo>): SessionInfo {
  const known = Object.entries(row).filter(([key]) => key in info);
  return { ...info, ...Object.fromEntries(known) };
}

/** Somebody else signed in: the place in the log stays, what was theirs goes. */
function onIdentified(state: SessionState, sub: string | null): SessionState {
  if (state.sub === undefined || state.sub === sub) return { ...state, sub };
  return {
    ...state,
    sub,
    votings: forgetVotes(state.votings),
    chat: { ...state.chat, pending: [] },
  };
}
