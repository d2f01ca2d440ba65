/** What an app sees of the connection. */

import type { UsherError } from "./errors.ts";

/** How the connection stands. */
export interface ConnectionState {
  /** `idle` while no session is followed; `waiting` until `retryAt`; `stopped` with an `error`. */
  readonly status: "idle" | "connecting" | "open" | "waiting" | "stopped";
  /** Whether the browser says that there is a network. */
  readonly online: boolean;
  /** Attempts that have failed in a row. */
  readonly failures: number;
  /** When it is tried again, in milliseconds since 1970 as `Usher.now` has them; null unless `waiting`. */
  readonly retryAt: number | null;
  /**
   * Why it is `stopped`. With any other status, a `TokenError`: there is no usable access token at the moment, and the
   * client asks for it again.
   */
  readonly error: UsherError | null;
  /** `websocket`, or `http` where WebSockets are blocked. */
  readonly transport: Transport;
  /** The gateway's name and version, once it has said. */
  readonly server: string | null;
}

/** What carries the frames. */
export type Transport = "websocket" | "http";

/** The state before anybody follows a session. */
export const IDLE: ConnectionState = {
  status: "idle",
  online: true,
  failures: 0,
  retryAt: null,
  error: null,
  transport: "websocket",
  server: null,
};
