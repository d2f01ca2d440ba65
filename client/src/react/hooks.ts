/**
 * Hooks over one session each.
 *
 * They read the client's own state (`useSyncExternalStore`), so that what is shown together belongs together, on the
 * server too, where nothing is connected. Mounting follows the session and unmounting leaves it; mounting twice, as
 * StrictMode does, costs nothing, since a session that nobody holds is kept for a moment.
 */

import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import type { ConnectionState } from "../connection.ts";
import { IDLE } from "../connection.ts";
import type { Continuity } from "../continuity.ts";
import type { UsherError } from "../errors.ts";
import { findVoting, type Session } from "../session.ts";
import { INITIAL_STATE, type SessionState, type SessionStatus } from "../state.ts";
import { type StandingRow, standing, type Voting } from "../votings.ts";
import type { Can, LogEvent, SessionInfo } from "../wire.ts";
import { useSource, useUsher } from "./provider.ts";

/** Follows the session while mounted, and selects from its state. What is selected must keep its identity. */
export function useSelected<Value>(id: string, select: (state: SessionState) => Value): Value {
  const source = useSource();
  const subscribe = useCallback(
    (changed: () => void) => {
      const { session, release } = source.follow(id);
      session.on("change", changed);
      return release;
    },
    [source, id],
  );
  return useSyncExternalStore(
    subscribe,
    () => select(source.client.peek(id)),
    () => select(INITIAL_STATE),
  );
}

/** Acts on a session, whether or not a hook has followed it yet. */
export function useActions(id: string) {
  const usher = useUsher();
  return useCallback(
    <Result>(act: (session: Session) => Promise<Result>): Promise<Result> => {
      const session = usher.session(id);
      return act(session).finally(() => session.close());
    },
    [usher, id],
  );
}

/** The session as a whole. */
export interface UseSession {
  readonly status: SessionStatus;
  /** Why it is `stopped`. */
  readonly error: UsherError | null;
  readonly info: SessionInfo | null;
  readonly can: Can;
  /** What was received, and that nothing is missing. */
  readonly continuity: Continuity;
}

/** How the session stands; `onEvent` is called with each event of the log, once and in order. */
export function useSession(id: string, options: { readonly onEvent?: (event: LogEvent) => void } = {}): UseSession {
  const { status, error, info, can, continuity } = useSelected(id, whole);
  const source = useSource();
  const onEvent = useRef(options.onEvent);
  const wantsEvents = options.onEvent !== undefined;
  useEffect(() => {
    onEvent.current = options.onEvent;
  });
  useEffect(() => {
    if (!wantsEvents) return;
    const { session, release } = source.follow(id);
    session.on("event", (event) => onEvent.current?.(event));
    return release;
  }, [source, id, wantsEvents]);
  return { status, error, info, can, continuity };
}

function whole(state: SessionState): SessionState {
  return state;
}

/** How many are watching, or null while that is not known. */
export function useViewers(id: string): number | null {
  return useSelected(id, (state) => state.viewers);
}

/** A voting with its standing. */
export interface Tally extends Voting {
  readonly rows: readonly StandingRow[];
}

/** The voting of that id, or the open one, or the one that closed last; null when there is none. */
export function useTally(id: string, voting?: string): Tally | null {
  const found = useSelected(id, (state) => findVoting(state.votings, voting));
  return useMemo(() => found && { ...found, rows: standing(found) }, [found]);
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
export function useVote(id: string, voting?: string): UseVote {
  const found = useSelected(id, (state) => findVoting(state.votings, voting));
  const may = useSelected(id, (state) => state.can.vote);
  const act = useActions(id);
  const [failure, setFailure] = useState<{ readonly of: string; readonly error: UsherError } | null>(null);
  const target = voting ?? found?.id;
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
  return useMemo(() => ({ ...state, retry }), [state, retry]);
}
