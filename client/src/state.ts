/**
 * The state of one session, as one viewer sees it: a reducer from actions to states.
 *
 * Pure: no socket, clock or randomness. It ignores unknown frames and keys, so an older client works with a newer
 * gateway. Unchanged parts of the state keep their identity.
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
 * The status of a session:
 * - `idle`: the id of the hook is null;
 * - `connecting`: for the first time;
 * - `catching_up`: history or missed events are arriving;
 * - `live`: up to date;
 * - `waiting`: the connection is lost, and the client reconnects;
 * - `stopped`: ended with an `error`. The client does not reconnect.
 */
export type SessionStatus = "idle" | "connecting" | "catching_up" | "live" | "waiting" | "stopped";

/** The state of a session. */
export interface SessionState {
  readonly status: SessionStatus;
  /** The reason for `stopped`. */
  readonly error: UsherError | null;
  /** Null until the first subscription. */
  readonly info: SessionInfo | null;
  readonly can: Can;
  /** The number of viewers; null until the gateway sends it. */
  readonly viewers: number | null;
  /** The open polls first, then the latest closed ones. */
  readonly votings: readonly Voting[];
  readonly chat: Chat;
  readonly continuity: Continuity;
  /** Whether the history at the start of the session has arrived completely. */
  readonly isLoaded: boolean;
  /** The newest event number at the time of the subscription. Events up to it are history or missed ones. */
  readonly head: number;
  /** Whether the subscription resumed the last one. Events up to `head` are then missed ones. */
  readonly isResumed: boolean;
  /** The new events of the last `events` frame. */
  readonly latest: readonly LogEvent[];
  /** The user that the votes and messages belong to: null for an anonymous viewer, undefined until it is known. */
  readonly sub: string | null | undefined;
}

/** The actions of the reducer. */
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

/** The state before the first action. */
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

/** Returns the state after one action. */
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
  // Drops committed messages: their log events may lie before the new starting point and never arrive.
  const pending = state.chat.pending.filter((item) => item.status !== "sent");
  const continuity = place(state.continuity, frame);
  const isLevel = (continuity.seq ?? 0) >= head;
  // A list that is scrolled up stays scrolled up and keeps its count of new messages.
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

/** Copies only the columns that `SessionInfo` already has: the row has more. */
function updated(info: SessionInfo, row: Partial<SessionInfo>): SessionInfo {
  const known = Object.entries(row).filter(([key]) => key in info);
  return { ...info, ...Object.fromEntries(known) };
}

/** Stores the viewer's identity. Another user keeps the position in the log, but not the votes and pending messages. */
function onIdentified(state: SessionState, sub: string | null): SessionState {
  if (state.sub === undefined || state.sub === sub) return { ...state, sub };
  return {
    ...state,
    sub,
    votings: forgetVotes(state.votings),
    chat: { ...state.chat, pending: [] },
  };
}
