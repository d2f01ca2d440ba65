/** The state of the connection, as an app sees it. */

import type { UsherError } from "./errors.ts";

/** The state of the connection. */
export interface ConnectionState {
  /** `idle` while the app follows no session; `waiting` until `retryAt`; `stopped` with an `error`. */
  readonly status: "idle" | "connecting" | "open" | "waiting" | "stopped";
  /** Whether the browser reports a network. */
  readonly online: boolean;
  /** Attempts that have failed in a row. */
  readonly failures: number;
  /** The time of the next attempt, on the clock of `Usher.now` (milliseconds since 1970); null unless `waiting`. */
  readonly retryAt: number | null;
  /**
   * The reason for `stopped`. With any other status it is a `TokenError`: the app has no usable access token at the
   * moment, and the client asks for one again.
   */
  readonly error: UsherError | null;
  /** `websocket`, or `http` where WebSockets are blocked. */
  readonly transport: Transport;
  /** The gateway's name and version; null until its first `welcome`. */
  readonly server: string | null;
}

/** The transport of the frames. */
export type Transport = "websocket" | "http";

/** The state before the app follows a session. */
export const IDLE: ConnectionState = {
  status: "idle",
  online: true,
  failures: 0,
  retryAt: null,
  error: null,
  transport: "websocket",
  server: null,
};
