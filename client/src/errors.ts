/** What can go wrong, as classes with a `code` to switch on. */

/** The names by which the gateway refuses. A newer gateway may know more. */
export type RefusalCode =
  | "busy"
  | "not_supported"
  | "bad_request"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "rate_limited"
  | "slow_mode"
  | "banned"
  | "session_ended"
  | "voting_closed"
  | "too_large"
  | "conflict"
  | "unavailable"
  | "internal";

/** The names that this package adds. */
export type ClientCode =
  /** No answer came in time; whether it was done is not known. Sending again under the same nonce is safe. */
  | "no_answer"
  /** The session or the client was closed before the answer came. */
  | "closed"
  /** The same message was sent again, or another choice was made in the same voting. */
  | "superseded"
  /** Somebody else signed in before this was sent. */
  | "identity_changed"
  /** Too many messages wait for their answer. */
  | "queue_full"
  /** A loop over the events fell too far behind. */
  | "slow_consumer"
  /** The app's access token cannot be had at the moment. The client asks for it again. */
  | "token_unavailable"
  /** The access token has expired, and there is no fresh one yet. The client asks for one again. */
  | "token_expired"
  /** The access token is larger than the gateway takes. */
  | "token_too_large"
  /** The gateway does not accept the issuer of the access token (claim `iss`). */
  | "issuer_not_accepted"
  /** The hook has no session yet: its id is null. */
  | "no_session"
  /** This environment has no WebSocket, and none was passed. */
  | "no_websocket"
  /** The gateway does not speak this protocol. */
  | "protocol"
  /** The gateway closed for good with a code that this package does not know. */
  | "refused";

/** Every code of this version; a `string` because a newer gateway may send others. */
export type ErrorCode = RefusalCode | ClientCode | (string & {});

/** What all errors of this package have in common. */
export class UsherError extends Error {
  override readonly name: string = "UsherError";
  /** What to switch on. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** The gateway refused what was asked, by name. */
export class RefusedError extends UsherError {
  override readonly name: string = "RefusedError";
  /** When it is worth trying again, or null when it is not. */
  readonly retryAfterMs: number | null;
  /** What about a refused token is wrong, such as `expired` or `issuer`; null where the gateway does not say. */
  readonly reason: string | null;

  constructor(code: ErrorCode, message: string, retryAfterMs: number | null = null, reason: string | null = null) {
    super(code, message);
    this.retryAfterMs = retryAfterMs;
    this.reason = reason;
  }
}

/** The connection ended and is not tried again until something changes. */
export class StoppedError extends UsherError {
  override readonly name: string = "StoppedError";
  /** The WebSocket close code, or null where none was involved. */
  readonly closeCode: number | null;

  constructor(code: ErrorCode, message: string, closeCode: number | null = null) {
    super(code, message);
    this.closeCode = closeCode;
  }
}

/**
 * There is no usable access token at the moment: `token_unavailable` or `token_expired`. `cause` is the error of the app's
 * `getToken`, if it threw one. The client keeps the viewer's identity and pending messages, and asks again.
 */
export class TokenError extends UsherError {
  override readonly name: string = "TokenError";
}

/** This side gave up: no answer, closed, or no room. */
export class AbandonedError extends UsherError {
  override readonly name: string = "AbandonedError";
}
