/** The client's environment: sockets, HTTP, clock, timers, randomness, and signals of the network and the page. */

import { steadyClock } from "./clock.ts";
import { StoppedError } from "./errors.ts";

/** A method type, so that sockets with richer event types are assignable too. */
type Handler<Event> = { on(event: Event): void }["on"] | null;

/** The part of a WebSocket that the client uses. Browsers, Node, Deno, React Native and `ws` have it. */
export interface SocketLike {
  readonly readyState: number;
  onmessage: Handler<{ data: unknown }>;
  onclose: Handler<{ code: number; retryAfterMs?: number | null }>;
  onerror: Handler<unknown>;
  send(text: string): void;
  close(code?: number): void;
}

/** A WebSocket class. */
export type SocketClass = new (url: string, protocols: string[]) => SocketLike;

/** The part of `fetch` that the client uses. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** A change of the network or the page. `wake` means that the page became visible or active again. */
export type Signal = "online" | "offline" | "wake";

/** The environment of a client. Tests pass their own. */
export interface World {
  readonly openSocket: (url: string) => SocketLike;
  readonly fetch: Fetch;
  /** Returns milliseconds since 1970, from a clock that never runs backwards. */
  readonly now: () => number;
  /** Returns a random number in [0, 1). */
  readonly random: () => number;
  readonly uuid: () => string;
  readonly setTimer: (act: () => void, ms: number) => unknown;
  readonly clearTimer: (timer: unknown) => void;
  /** Listens for signals. Returns a function that stops listening. */
  readonly watch: (on: (signal: Signal) => void) => () => void;
}

/** The longest timer. Browsers and Node run a longer one immediately. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Returns the environment of the browser or of Node. */
export function realWorld(own: { WebSocket?: SocketClass; fetch?: Fetch } = {}): World {
  return {
    openSocket(url) {
      const Socket = own.WebSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
      if (!Socket)
        throw new StoppedError("no_websocket", "no WebSocket here: pass one to connect(), such as the one of `ws`");
      return new Socket(url, ["usher.v1"]);
    },
    // Looks up `fetch` at each call, because a page may replace it. It must be called without a `this`.
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
  // Despite the types, `randomUUID` is missing on pages without TLS and in React Native.
  const crypto: Partial<Crypto> | undefined = globalThis.crypto;
  if (crypto?.randomUUID) return crypto.randomUUID();
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
    const bits = Number(digit);
    return (bits ^ ((Math.random() * 16) >> (bits / 4))).toString(16);
  });
}

/**
 * The browser events and their signals. Timers of a hidden, frozen or sleeping page fire late, so the client checks its
 * connection when the page wakes up.
 */
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
