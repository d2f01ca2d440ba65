/**
 * Hooks over one session each.
 *
 * They read the client's own state (`useSyncExternalStore`), so that what is shown together belongs together, on the
 * server too, where nothing is connected. Mounting follows the session and unmounting leaves it; mounting twice, as
 * StrictMode does, costs nothing, since a session that nobody holds is kept for a moment. The id may be null as long as the
 * app does not know it: then nothing is followed, and the status is `idle`.
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

/** What a hook without a session shows. */
const NO_SESSION: SessionState = { ...INITIAL_STATE, status: "idle" };

/** Follows the session while mounted, and selects from its state. What is selected must keep its identity. */
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

/** Acts on a session, whether or not a hook has followed it yet. Without a session it rejects as `no_session`. */
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

/** Whether what a session begins with is still on its way. */
export function isLoading({ isLoaded, status }: SessionState): boolean {
  return !isLoaded && status !== "stopped" && status !== "idle";
}

/** The session as a whole. */
export interface UseSession {
  readonly status: SessionStatus;
  /** Whether the session and its history are still on their way. */
  readonly isLoading: boolean;
  /** Why it is `stopped`. */
  readonly error: UsherError | null;
  readonly info: SessionInfo | null;
  readonly can: Can;
  /** What was received, and that nothing is missing. */
  readonly continuity: Continuity;
}

/** How the session stands; `onEvent` is called with each event of the log, once and in order. */
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

/** How many are watching, or null while that is not known. */
export function useViewers(id: SessionId): number | null {
  return useSelected(id, (state) => state.viewers);
}

/** A voting with its standing. */
export interface Tally extends Voting {
  readonly rows: readonly StandingRow[];
}

/**
 * The voting of that id, or the open one, or the one that closed last. Null if there is none, undefined while that is not
 * known yet.
 */
export function useTally(id: SessionId, voting?: string): Tally | null | undefined {
  const found = useSelected(id, (state) => known(state, voting));
  return useMemo(() => found && { ...found, rows: standing(found) }, [found]);
}

function known(state: SessionState, voting: string | undefined): Voting | null | undefined {
  const isUnknown = state.info === null && state.status !== "stopped";
  return findVoting(state.votings, voting) ?? (isUnknown ? undefined : null);
}

/** The viewer's own vote. */
export interface UseVote {
  /** What is chosen, shown before it is confirmed. */
  readonly mine: string | null;
  readonly isPending: boolean;
  /** Why the last choice was taken back. */
  readonly error: UsherError | null;
  /** Whether a choice can be made: the voting is open, the viewer may vote, and change what was chosen. */
  readonly canVote: boolean;
  /** Votes, changes the vote, or withdraws it with null. */
  readonly vote: (movie: string | null) => Promise<void>;
}

/** The viewer's own vote in a voting: that of the id, or the open one. */
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
        // Another choice is no failure of this one.
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
  /** Tries now what would be tried later. */
  readonly retry: () => void;
  /** The time in milliseconds since 1970 by the clock of `retryAt`, which the device clock is not. */
  readonly now: () => number;
}

/** How the connection stands. */
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
