/** What is outside of the client: sockets, HTTP, clock, timers, chance, and news of the network and the page. */

import { steadyClock } from "./clock.ts";
import { StoppedError } from "./errors.ts";

/** Written as a method, so that sockets whose events say more fit too. */
type Handler<Event> = { on(event: Event): void }["on"] | null;

/** The part of a WebSocket that is used; the browsers', Node's, Deno's, React Native's and `ws` have it. */
export interface SocketLike {
  readonly readyState: number;
  onmessage: Handler<{ data: unknown }>;
  onclose: Handler<{ code: number; retryAfterMs?: number | null }>;
  onerror: Handler<unknown>;
  send(text: string): void;
  close(code?: number): void;
}

/** What makes sockets. */
export type SocketClass = new (url: string, protocols: string[]) => SocketLike;

/** The part of `fetch` that is used. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** News that a client acts on. */
export type Signal = "online" | "offline" | "wake";

/** All of the outside; tests bring their own. */
export interface World {
  readonly openSocket: (url: string) => SocketLike;
  readonly fetch: Fetch;
  /** Milliseconds since 1970, by a clock that never goes back. */
  readonly now: () => number;
  /** In [0, 1). */
  readonly random: () => number;
  readonly uuid: () => string;
  readonly setTimer: (act: () => void, ms: number) => unknown;
  readonly clearTimer: (timer: unknown) => void;
  /** Starts to listen for news; gives how to stop. */
  readonly watch: (on: (signal: Signal) => void) => () => void;
}

/** Browsers and Node run a timer of more than this at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The world as it is. */
export function realWorld(own: { WebSocket?: SocketClass; fetch?: Fetch } = {}): World {
  return {
    openSocket(url) {
      const Socket = own.WebSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
      if (!Socket)
        throw new StoppedError("no_websocket", "no WebSocket here: pass one to connect(), such as that of `ws`");
      return new Socket(url, ["usher.v1"]);
    },
    // Looked up late: a page may replace it, and it must be called without a `this`.
    fetch: (url, init) => (own.fetch ?? globalThis.fetch)(url, init),
    now: steadyClock(),
    random: () => Math.random(),
    uuid,
    setTimer: (act, ms) => setTimeout(act, Math.min(ms, TIMER_MS_MAX)),
    clearTimer: (timer) => clearTimeout(timer as number),
    watch,
  };
}

function uuid(): string {
  // It is missing on pages without TLS and in React Native, whatever the types say.
  const crypto: Partial<Crypto> | undefined = globalThis.crypto;
  if (crypto?.randomUUID) return crypto.randomUUID();
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
    const bits = Number(digit);
    return (bits ^ ((Math.random() * 16) >> (bits / 4))).toString(16);
  });
}

/** Timers of a page that was hidden, frozen or asleep are late: the first thing to do after it is to look. */
const NEWS: readonly (readonly [event: string, signal: Signal])[] = [
  ["online", "online"],
  ["offline", "offline"],
  ["pageshow", "wake"],
  ["visibilitychange", "wake"],
  ["resume", "wake"],
];

function watch(on: (signal: Signal) => void): () => void {
  const targets = [globalThis, globalThis.document].filter((target) => typeof target?.addEventListener === "function");
  const added = targets.flatMap((target) =>
    NEWS.map(([event, signal]) => {
      const listener = () => {
        if (signal !== "wake" || globalThis.document?.visibilityState !== "hidden") on(signal);
      };
      target.addEventListener(event, listener);
      return () => target.removeEventListener(event, listener);
    }),
  );
  return () => {
    for (const remove of added) remove();
  };
}
