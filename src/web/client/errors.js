// Made by `npm run pages` from client/src. Change it there.
/** What can go wrong, as classes with a `code` to switch on. */
/** What all errors of this package have in common. */
export class UsherError extends Error {
    name = "UsherError";
    /** What to switch on. */
    code;
    constructor(code, message, options = {}) {
        super(message, options);
        this.code = code;
    }
}
/** The gateway refused what was asked, by name. */
export class RefusedError extends UsherError {
    name = "RefusedError";
    /** When it is worth trying again, or null when it is not. */
    retryAfterMs;
    /** What about a refused token is wrong, such as `expired` or `issuer`; null where the gateway does not say. */
    reason;
    constructor(code, message, retryAfterMs = null, reason = null) {
        super(code, message);
        this.retryAfterMs = retryAfterMs;
        this.reason = reason;
    }
}
/** The connection ended and is not tried again until something changes. */
export class StoppedError extends UsherError {
    name = "StoppedError";
    /** The WebSocket close code, or null where none was involved. */
    closeCode;
    constructor(code, message, closeCode = null) {
        super(code, message);
        this.closeCode = closeCode;
    }
}
/**
 * There is no usable access token at the moment: `token_unavailable` or `token_expired`. `cause` is the error of the app's
 * `getToken`, if it threw one. The client keeps the viewer's identity and pending messages, and asks again.
 */
export class TokenError extends UsherError {
    name = "TokenError";
}
/** This side gave up: no answer, closed, or no room. */
export class AbandonedError extends UsherError {
    name = "AbandonedError";
}
