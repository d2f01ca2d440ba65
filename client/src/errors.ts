/** The errors of this package: classes with a `code` to switch on. */

/** The error codes of the gateway. A newer gateway may send others. */
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

/** The error codes that this package adds. */
export type ClientCode =
  /** No answer arrived in time. The request may have succeeded. Sending again with the same nonce is safe. */
  | "no_answer"
  /** The app closed the session or the client before the answer arrived. */
  | "closed"
  /** The app sent the same message again, or another vote in the same poll. */
  | "superseded"
  /** Another user signed in before the client could send this. */
  | "identity_changed"
  /** Too many messages are unanswered. */
  | "queue_full"
  /** A loop over the events fell too far behind. */
  | "slow_consumer"
  /** The app cannot give an access token at the moment. The client asks for it again. */
  | "token_unavailable"
  /** The access token has expired, and the app has no new one yet. The client asks for one again. */
  | "token_expired"
  /** The access token is larger than the gateway accepts. */
  | "token_too_large"
  /** The gateway does not accept the issuer of the access token (claim `iss`). */
  | "issuer_not_accepted"
  /** The hook has no session yet: the id is null. */
  | "no_session"
  /** This environment has no WebSocket, and the app passed none to `connect`. */
  | "no_websocket"
  /** The gateway does not speak this protocol. */
  | "protocol"
  /** The gateway closed the socket with a final code that this package does not know. */
  | "refused";

/** All codes of this version, and any `string`, because a newer gateway may send others. */
export type ErrorCode = RefusalCode | ClientCode | (string & {});

/** The base class of all errors in this package. */
export class UsherError extends Error {
  override readonly name: string = "UsherError";
  /** The kind of error, to switch on. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** The gateway refused a request, with a code. */
export class RefusedError extends UsherError {
  override readonly name: string = "RefusedError";
  /** The wait before another try, in milliseconds; null if the gateway gives none. */
  readonly retryAfterMs: number | null;
  /** The flaw of a refused token, such as `expired` or `issuer`; null if the gateway gives none. */
  readonly reason: string | null;

  constructor(code: ErrorCode, message: string, retryAfterMs: number | null = null, reason: string | null = null) {
    super(code, message);
    this.retryAfterMs = retryAfterMs;
    this.reason = reason;
  }
}

/** The connection ended. The client does not reconnect until something changes, such as the token. */
export class StoppedError extends UsherError {
  override readonly name: string = "StoppedError";
  /** The WebSocket close code; null if a close code was not the cause. */
  readonly closeCode: number | null;

  constructor(code: ErrorCode, message: string, closeCode: number | null = null) {
    super(code, message);
    this.closeCode = closeCode;
  }
}

/**
 * The app has no usable access token at the moment: `token_unavailable` or `token_expired`. `cause` is the error that
 * the app's `getToken` threw, if any. The client keeps the viewer's identity and pending messages, and asks again.
 */
export class TokenError extends UsherError {
  override readonly name: string = "TokenError";
}

/** The client gave up: no answer, closed, or no room. */
export class AbandonedError extends UsherError {
  override readonly name: string = "AbandonedError";
}
