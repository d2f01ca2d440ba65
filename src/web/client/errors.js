// Made by `npm run pages` from client/src. Change it there.
/** The errors of this package: classes with a `code` to switch on. */
/** The base class of all errors in this package. */
export class UsherError extends Error {
    name = "UsherError";
    /** The kind of error, to switch on. */
    code;
    constructor(code, message, options = {}) {
        super(message, options);
        this.code = code;
    }
}
/** The gateway refused a request, with a code. */
export class RefusedError extends UsherError {
    name = "RefusedError";
    /** The wait before another try, in milliseconds; null if the gateway gives none. */
    retryAfterMs;
    /** The flaw of a refused token, such as `expired` or `issuer`; null if the gateway gives none. */
    reason;
    constructor(code, message, retryAfterMs = null, reason = null) {
        super(code, message);
        this.retryAfterMs = retryAfterMs;
        this.reason = reason;
    }
}
/** The connection ended. The client does not reconnect until something changes, such as the token. */
export class StoppedError extends UsherError {
    name = "StoppedError";
    /** The WebSocket close code; null if a close code was not the cause. */
    closeCode;
    constructor(code, message, closeCode = null) {
        super(code, message);
        this.closeCode = closeCode;
    }
}
/**
 * The app has no usable access token at the moment: `token_unavailable` or `token_expired`. `cause` is the error that
 * the app's `getToken` threw, if any. The client keeps the viewer's identity and pending messages, and asks again.
 */
export class TokenError extends UsherError {
    name = "TokenError";
}
/** The client gave up: no answer, closed, or no room. */
export class AbandonedError extends UsherError {
    name = "AbandonedError";
}
