/** Provides one client to all hooks in the tree, so that they share one socket. */

import { createContext, createElement, type ReactNode, useContext, useEffect, useMemo, useRef, useState } from "react";

import type { Session } from "../session.ts";
import { type SupabaseLike, supabaseTokens } from "../supabase.ts";
import { type ConnectOptions, connect, type Usher } from "../usher.ts";
import { prepareCache, type QueryClientLike, type QueryKey, writeCache } from "./cache.ts";

type Invalidate = (session: string) => readonly QueryKey[];

/** A client from the app, or the options to create one. */
export type UsherProviderProps = {
  readonly children?: ReactNode;
  /** The provider also writes the state of each session into this React Query client. */
  readonly queryClient?: QueryClientLike;
  /** Returns query keys of the app to invalidate after a reset of the session. */
  readonly invalidate?: Invalidate;
} & (
  | { readonly client: Usher }
  | {
      readonly client?: never;
      readonly url: string;
      /**
       * The supabase-js client that supplies the access tokens, now and after each sign-in or sign-out. If the app
       * passes another object later, the socket stays open, and the next token comes from that object.
       */
      readonly supabase?: SupabaseLike | undefined;
    }
);

/** Provides the client to the hooks below it. Connects with the first mounted hook, and disconnects after the last. */
export function UsherProvider(props: UsherProviderProps) {
  const { children, queryClient, invalidate } = props;
  const [given, url, supabase] = props.client ? [props.client] : [undefined, props.url, props.supabase];
  // Many apps create this object in each render. The client stays the same, and uses the latest object.
  const [tokens] = useState(() => new LatestTokens(supabase));
  useEffect(() => tokens.use(supabase), [tokens, supabase]);
  const client = useMemo(() => given ?? connect({ url: url ?? "", ...tokens.options }), [given, url, tokens]);
  // Most apps create this function in each render. A new function must not create a new `Source`.
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

/** Supplies the tokens of the supabase-js client from the latest render. */
class LatestTokens {
  #supabase: SupabaseLike | undefined;
  #changed: (() => void) | null = null;
  #stop = () => {};

  constructor(supabase: SupabaseLike | undefined) {
    this.#supabase = supabase;
  }

  /** The options for `connect`. */
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

  /** Switches to another supabase-js client. Its token may differ. */
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

/** Returns the client of the nearest `<UsherProvider>`. */
export function useUsher(): Usher {
  return useSource().client;
}

/** Returns the client together with its cache. */
export function useSource(): Source {
  const source = useContext(SourceContext);
  if (source === null) throw new Error("no <UsherProvider> above this component: render it inside one");
  return source;
}

/** Follows sessions for hooks. Writes each session into the cache once, however many hooks follow it. */
export class Source {
  readonly client: Usher;
  readonly #cache: QueryClientLike | undefined;
  readonly #invalidate: Invalidate;
  readonly #writers = new Map<string, { holders: number; readonly stop: () => void }>();

  constructor(client: Usher, cache: QueryClientLike | undefined, invalidate: Invalidate) {
    this.client = client;
    this.#cache = cache;
    this.#invalidate = invalidate;
    // Sets the defaults before the first query with these keys, because such a query has no `queryFn`.
    if (cache) prepareCache(cache, client);
  }

  /** Follows a session until the caller calls `release`. */
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
      // Uses a separate `Session`: the first hook may be the first to unmount.
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
