// Made by `npm run pages` from client/src. Change it there.
/** The gateway's HTTP calls, with the viewer's token. A refusal throws a `RefusedError` with its code. */
import { AbandonedError, RefusedError } from "./errors.js";
/** The most pages that one call reads while all messages in them are deleted. After that the viewer must ask again. */
const EMPTY_PAGES_MAX = 5;
/** Fetches the page of messages before a position in the chat. */
export async function fetchOlder(caller, session, before, limit) {
    let place = before;
    for (let count = 1;; count += 1) {
        const path = `/v1/sessions/${encodeURIComponent(session)}/messages?before=${place}&limit=${limit}`;
        const data = await call(caller, "GET", path);
        const { messages, next = null } = data;
        if (messages.length > 0 || next === null || count === EMPTY_PAGES_MAX)
            return { messages, next };
        place = next;
    }
}
/** Calls the gateway and returns the `data` of the answer. */
export async function call(caller, method, path, init = {}) {
    const token = await caller.token();
    const headers = { ...init.headers, ...(token === null ? {} : { authorization: `Bearer ${token}` }) };
    let response;
    try {
        response = await caller.world.fetch(caller.base + path, { ...init, method, headers });
    }
    catch {
        throw new AbandonedError("no_answer", "the gateway cannot be reached");
    }
    const answer = await response.json().catch(() => null);
    if (!response.ok)
        throw refusedBy(response, answer);
    return answer?.data;
}
/** Returns the error of a response with a status other than 2xx. */
export function refusedBy(response, answer) {
    const error = answer?.error;
    const code = error?.code ?? (response.status >= 500 ? "unavailable" : "bad_request");
    return new RefusedError(code, error?.message ?? `HTTP ${response.status}`, error?.retry_after_ms ?? retryAfterMs(response), error?.reason ?? null);
}
/** Returns the wait of the `Retry-After` header; null without the header, or if CORS hides it. */
export function retryAfterMs(response) {
    const seconds = Number(response.headers.get("retry-after") ?? "");
    return seconds > 0 ? seconds * 1000 : null;
}
