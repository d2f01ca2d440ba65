/** Gives the hooks their client: one for the whole tree, so that all share one socket. */

import { createContext, createElement, type ReactNode, useContext, useEffect, useMemo, useRef, useState } from "react";

import type { Session } from "../session.ts";
import { type SupabaseLike, supabaseTokens } from "../supabase.ts";
import { type ConnectOptions, connect, type Usher } from "../usher.ts";
import { prepareCache, type QueryClientLike, type QueryKey, writeCache } from "./cache.ts";

type Invalidate = (session: string) => readonly QueryKey[];

/** A client that you made, or what to make one of. */
export type UsherProviderProps = {
  readonly children?: ReactNode;
  /** What is known is written into this React Query client too. */
  readonly queryClient?: QueryClientLike;
  /** Keys of your own that are invalidated after a reset of the session. */
  readonly invalidate?: Invalidate;
} & (
  | { readonly client: Usher }
  | {
      readonly client?: never;
      readonly url: string;
      /**
       * Whose access tokens are used, now and after each change of the sign-in. Another object does not open another socket:
       * the next token comes from it.
       */
      readonly supabase?: SupabaseLike | undefined;
    }
);

/** Makes the hooks below it work. It connects when the first of them is mounted, and leaves after the last. */
export function UsherProvider(props: UsherProviderProps) {
  const { children, queryClient, invalidate } = props;
  const [given, url, supabase] = props.client ? [props.client] : [undefined, props.url, props.supabase];
  // Many make the object in place, so each render has another one: the client stays, and asks the latest.
  const [tokens] = useState(() => new LatestTokens(supabase));
  useEffect(() => tokens.use(supabase), [tokens, supabase]);
  const client = useMemo(() => given ?? connect({ url: url ?? "", ...tokens.options }), [given, url, tokens]);
  // Most write the function in place, so each render has another one: it must not begin everything anew.
  const latest = useRef(invalidate);
  useEffect(() => {
    latest.current = invalidate;
  });
  const source = useMemo(
    () => new Source(client, queryClient, (session) => latest.current?.(session) ?? []),
    [client, queryClient],
  );
  return createElement(SourceContext.Provider, { value: source }, children);
}

/** The tokens of the supabase client that was rendered last. */
class LatestTokens {
  #supabase: SupabaseLike | undefined;
  #changed: (() => void) | null = null;
  #stop = () => {};

  constructor(supabase: SupabaseLike | undefined) {
    this.#supabase = supabase;
  }

  /** For `connect`. */
  readonly options: Required<Pick<ConnectOptions, "getToken" | "onTokenChange">> = {
    getToken: (asked) => (this.#supabase ? supabaseTokens(this.#supabase).getToken(asked) : null),
    onTokenChange: (changed) => {
      this.#changed = changed;
      this.#listen();
      return () => {
        this.#changed = null;
        this.#stop();
      };
    },
  };

  /** Goes on with another supabase client, whose token may be another one. */
  use(supabase: SupabaseLike | undefined): void {
    if (supabase === this.#supabase) return;
    this.#supabase = supabase;
    if (!this.#changed) return;
    this.#stop();
    this.#listen();
    this.#changed();
  }

  #listen(): void {
    const changed = this.#changed;
    this.#stop = changed && this.#supabase ? supabaseTokens(this.#supabase).onTokenChange(changed) : () => {};
  }
}

/** The client of the provider above. */
export function useUsher(): Usher {
  return useSource().client;
}

/** The client, and the cache that goes with it. */
export function useSource(): Source {
  const source = useContext(SourceContext);
  if (source === null) throw new Error("there is no <UsherProvider> above");
  return source;
}

/** Follows sessions for hooks, and has each written into the cache once. */
export class Source {
  readonly client: Usher;
  readonly #cache: QueryClientLike | undefined;
  readonly #invalidate: Invalidate;
  readonly #writers = new Map<string, { holders: number; readonly stop: () => void }>();

  constructor(client: Usher, cache: QueryClientLike | undefined, invalidate: Invalidate) {
    this.client = client;
    this.#cache = cache;
    this.#invalidate = invalidate;
    // Before the first query of these keys: it has no function of its own.
    if (cache) prepareCache(cache, client);
  }

  /** Follows a session; `release` undoes it. */
  follow(id: string): { readonly session: Session; readonly release: () => void } {
    const session = this.client.session(id);
    const stopWriting = this.#write(id);
    return {
      session,
      release: () => {
        stopWriting();
        session.close();
      },
    };
  }

  #write(id: string): () => void {
    if (!this.#cache) return () => {};
    let writer = this.#writers.get(id);
    if (!writer) {
      // A holder of its own: the hook that came first may be the first to leave.
      const session = this.client.session(id);
      const stop = writeCache(this.#cache, session, this.#invalidate);
      writer = {
        holders: 0,
        stop: () => {
          stop();
          session.close();
        },
      };
      this.#writers.set(id, writer);
    }
    const current = writer;
    current.holders += 1;
    return () => {
      current.holders -= 1;
      if (current.holders > 0) return;
      current.stop();
      this.#writers.delete(id);
    };
  }
}

const SourceContext = createContext<Source | null>(null);
