/** Writes what is known of a session into a React Query cache, for queries, devtools and persisters beside the hooks. */

import { normalId } from "../ids.ts";
import type { Session } from "../session.ts";
import type { SessionState } from "../state.ts";
import type { Usher } from "../usher.ts";

/** The key of a query, as React Query has it. */
export type QueryKey = readonly unknown[];

/** The part of a React Query client that is used; the package depends on no version of it. */
export interface QueryClientLike {
  setQueryData(key: QueryKey, data: unknown): unknown;
  setQueryDefaults(key: QueryKey, defaults: Record<string, unknown>): void;
  invalidateQueries(filters: { queryKey: QueryKey }): Promise<void>;
}

/** Where the cache has what. `useQuery({ queryKey: usherKeys.viewers(id) })` needs no `queryFn`. */
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

/** Says how queries of these keys behave: what the socket wrote stays, and a refetch gives what is known. */
export function prepareCache(cache: QueryClientLike, usher: Usher): void {
  cache.setQueryDefaults(usherKeys.all, {
    staleTime: Infinity,
    // States share what did not change already; comparing a long chat again for each message would be slow.
    structuralSharing: false,
    queryFn: ({ queryKey }: { queryKey: QueryKey }) => {
      const [, id, part] = queryKey as [string, string, keyof typeof PARTS];
      return PARTS[part](usher.peek(id));
    },
  });
}

/**
 * Writes changes of a session until the function that it gives is called. After a reset, what was derived from the
 * session is out of date: its own keys and `invalidate` are invalidated.
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
