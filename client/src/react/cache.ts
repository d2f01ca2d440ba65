/** Writes the state of a session into a React Query cache, for queries, devtools and persisters. */

import { normalId } from "../ids.ts";
import type { Session } from "../session.ts";
import type { SessionState } from "../state.ts";
import type { Usher } from "../usher.ts";

/** The key of a React Query query. */
export type QueryKey = readonly unknown[];

/** The part of a React Query client that this package uses. It depends on no version of React Query. */
export interface QueryClientLike {
  setQueryData(key: QueryKey, data: unknown): unknown;
  setQueryDefaults(key: QueryKey, defaults: Record<string, unknown>): void;
  invalidateQueries(filters: { queryKey: QueryKey }): Promise<void>;
}

/** The query keys of the cache. `useQuery({ queryKey: usherKeys.viewers(id) })` needs no `queryFn`. */
export const usherKeys = {
  all: ["usher"] as const,
  session: (id: string) => ["usher", normalId(id)] as const,
  info: (id: string) => ["usher", normalId(id), "info"] as const,
  messages: (id: string) => ["usher", normalId(id), "messages"] as const,
  votings: (id: string) => ["usher", normalId(id), "votings"] as const,
  viewers: (id: string) => ["usher", normalId(id), "viewers"] as const,
};

const PARTS: { readonly [Part in "info" | "messages" | "votings" | "viewers"]: (state: SessionState) => unknown } = {
  info: (state) => state.info,
  messages: (state) => state.chat.messages,
  votings: (state) => state.votings,
  viewers: (state) => state.viewers,
};

const parts = Object.keys(PARTS) as (keyof typeof PARTS)[];

/** Sets the defaults of queries with these keys: data never becomes stale, and a refetch returns the current state. */
export function prepareCache(cache: QueryClientLike, usher: Usher): void {
  cache.setQueryDefaults(usherKeys.all, {
    staleTime: Infinity,
    // States already share their unchanged parts. Comparing a long chat again for each message would be slow.
    structuralSharing: false,
    queryFn: ({ queryKey }: { queryKey: QueryKey }) => {
      const [, id, part] = queryKey as [string, string, keyof typeof PARTS];
      return PARTS[part](usher.peek(id));
    },
  });
}

/**
 * Writes each change of a session into the cache, until the caller calls the returned function. After a reset, data
 * derived from the session is out of date, so it invalidates the session's own keys and those from `invalidate`.
 */
export function writeCache(
  cache: QueryClientLike,
  session: Session,
  invalidate: (session: string) => readonly QueryKey[],
): () => void {
  const write = (state: SessionState, previous: SessionState | null) => {
    for (const part of parts) {
      const value = PARTS[part](state);
      if (previous === null || value !== PARTS[part](previous)) cache.setQueryData(usherKeys[part](session.id), value);
    }
  };
  let known = session.state;
  write(known, null);
  const stopWriting = session.on("change", (state) => {
    write(state, known);
    known = state;
  });
  const stopInvalidating = session.on("reset", () => {
    for (const queryKey of [usherKeys.session(session.id), ...invalidate(session.id)])
      void cache.invalidateQueries({ queryKey });
  });
  return () => {
    stopWriting();
    stopInvalidating();
  };
}
