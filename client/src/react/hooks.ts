/**
 * Hooks for one session each.
 *
 * They read the client's state with `useSyncExternalStore`, so all hooks of one render show the same state. They also
 * work on a server, where nothing connects. A mounted hook follows the session, and an unmounted one releases it. The
 * client keeps a released session for 3 s, so a second mount (StrictMode) costs nothing. While the id is null, the hook
 * follows nothing and its status is `idle`.
 */

import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import { type ConnectionState, IDLE } from "../connection_state.ts";
import type { Continuity } from "../continuity.ts";
import type { UsherError } from "../errors.ts";
import { AbandonedError } from "../errors.ts";
import { normalId } from "../ids.ts";
import { findVoting, type Session, type SessionEvents } from "../session.ts";
import { INITIAL_STATE, type SessionState, type SessionStatus } from "../state.ts";
import { type StandingRow, standing, type Voting } from "../votings.ts";
import type { Can, SessionInfo } from "../wire.ts";
import { useSource, useUsher } from "./provider.ts";

/** The id of a session, or null while the app does not know it yet. */
export type SessionId = string | null;

/** The state of a hook without a session. */
const NO_SESSION: SessionState = { ...INITIAL_STATE, status: "idle" };

/** Follows the session while mounted, and selects a part of its state. `select` must return a stable reference. */
export function useSelected<Value>(given: SessionId, select: (state: SessionState) => Value): Value {
  const source = useSource();
  const id = given && normalId(given);
  const subscribe = useCallback(
    (changed: () => void) => {
      if (id === null) return () => {};
      const { session, release } = source.follow(id);
      session.on("change", changed);
      return release;
    },
    [source, id],
  );
  return useSyncExternalStore(
    subscribe,
    () => select(id === null ? NO_SESSION : source.client.peek(id)),
    () => select(id === null ? NO_SESSION : INITIAL_STATE),
  );
}

/** Returns a function that acts on the session, followed or not. It rejects with `no_session` if the id is null. */
export function useActions(given: SessionId) {
  const usher = useUsher();
  const id = given && normalId(given);
  return useCallback(
    <Result>(act: (session: Session) => Promise<Result>): Promise<Result> => {
      if (id === null) {
        const refused = Promise.reject(
          new AbandonedError("no_session", "there is no session yet: the hook's id is null"),
        );
        refused.catch(() => {});
        return refused;
      }
      const session = usher.session(id);
      return act(session).finally(() => session.close());
    },
    [usher, id],
  );
}

/** Returns whether the first history of a session is still loading. */
export function isLoading({ isLoaded, status }: SessionState): boolean {
  return !isLoaded && status !== "stopped" && status !== "idle";
}

/** The result of `useSession`. */
export interface UseSession {
  readonly status: SessionStatus;
  /** Whether the session and its history are still loading. */
  readonly isLoading: boolean;
  /** The reason for `stopped`. */
  readonly error: UsherError | null;
  readonly info: SessionInfo | null;
  readonly can: Can;
  /** The client's position in the log and its counters, which show that no event is missing. */
  readonly continuity: Continuity;
}

/** Returns the state of the session. Calls `onEvent` for each event of the log, once and in order. */
export function useSession(
  given: SessionId,
  options: { readonly onEvent?: (event: SessionEvents["event"]) => void } = {},
): UseSession {
  const state = useSelected(given, whole);
  const { status, error, info, can, continuity } = state;
  const source = useSource();
  const id = given && normalId(given);
  const onEvent = useRef(options.onEvent);
  const wantsEvents = options.onEvent !== undefined;
  useEffect(() => {
    onEvent.current = options.onEvent;
  });
  useEffect(() => {
    if (!wantsEvents || id === null) return;
    const { session, release } = source.follow(id);
    session.on("event", (event) => onEvent.current?.(event));
    return release;
  }, [source, id, wantsEvents]);
  return { status, isLoading: isLoading(state), error, info, can, continuity };
}

function whole(state: SessionState): SessionState {
  return state;
}

/** Returns the number of viewers; null until the gateway sends it. */
export function useViewers(id: SessionId): number | null {
  return useSelected(id, (state) => state.viewers);
}

/** A poll with its results. */
export interface Tally extends Voting {
  readonly rows: readonly StandingRow[];
}

/**
 * Returns the poll with this id, or without an id the open one, or else the one that closed last. Returns null if the
 * session has no such poll, and undefined while the session is loading.
 */
export function useTally(id: SessionId, voting?: string): Tally | null | undefined {
  const found = useSelected(id, (state) => known(state, voting));
  return useMemo(() => found && { ...found, rows: standing(found) }, [found]);
}

function known(state: SessionState, voting: string | undefined): Voting | null | undefined {
  const isUnknown = state.info === null && state.status !== "stopped";
  return findVoting(state.votings, voting) ?? (isUnknown ? undefined : null);
}

/** The viewer's own vote, and the function to vote. */
export interface UseVote {
  /** The viewer's vote: a movie, or null. It includes a vote that the gateway has not confirmed yet. */
  readonly mine: string | null;
  readonly isPending: boolean;
  /** The reason why the gateway refused the last vote. */
  readonly error: UsherError | null;
  /** Whether the viewer can vote now: the poll is open, they may vote, and they may change an earlier vote. */
  readonly canVote: boolean;
  /** Votes, changes the vote, or withdraws it with null. */
  readonly vote: (movie: string | null) => Promise<void>;
}

/** Returns the viewer's own vote in the poll with this id, or else in the open poll. */
export function useVote(id: SessionId, voting?: string): UseVote {
  const found = useSelected(id, (state) => findVoting(state.votings, voting));
  const may = useSelected(id, (state) => state.can.vote);
  const act = useActions(id);
  const [failure, setFailure] = useState<{ readonly of: string; readonly error: UsherError } | null>(null);
  const target = voting === undefined ? found?.id : normalId(voting);
  const vote = useCallback(
    async (movie: string | null) => {
      if (target === undefined) return;
      setFailure(null);
      await act((session) => session.vote(target, movie)).catch((error: UsherError) => {
        // A later vote replaced this one. That is not a failure.
        if (error.code !== "superseded") setFailure({ of: target, error });
      });
    },
    [act, target],
  );
  const isFixed = found?.allow_change === false && found.mine !== null;
  return {
    mine: found?.mine ?? null,
    isPending: found?.wish != null,
    error: failure && failure.of === target ? failure.error : null,
    canVote: may && found?.status === "open" && !isFixed,
    vote,
  };
}

/** The connection that all sessions share. */
export interface UseConnection extends ConnectionState {
  /** Reconnects immediately. */
  readonly retry: () => void;
  /** Returns the time in milliseconds since 1970, on the clock of `retryAt`. The device clock can differ. */
  readonly now: () => number;
}

/** Returns the state of the connection. */
export function useConnection(): UseConnection {
  const usher = useUsher();
  const subscribe = useCallback((changed: () => void) => usher.onConnection(changed), [usher]);
  const state = useSyncExternalStore(
    subscribe,
    () => usher.connection,
    () => IDLE,
  );
  const retry = useCallback(() => usher.renewToken(), [usher]);
  const now = useCallback(() => usher.now(), [usher]);
  return useMemo(() => ({ ...state, retry, now }), [state, retry, now]);
}
