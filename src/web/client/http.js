// Made by `npm run pages` from client/src. Change it there.
/** The gateway's plain HTTP calls, with the caller's token; refusals become errors by name. */
import { AbandonedError, RefusedError } from "./errors.js";
/** Pages that may hold nothing but what was deleted, before the reader is asked to go on. */
const EMPTY_PAGES_MAX = 5;
/** A page of messages before a place in the chat. */
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
/** Calls; gives the `data` of the answer. */
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
/** The refusal in a response that is not good. */
export function refusedBy(response, answer) {
    const error = answer?.error;
    const code = error?.code ?? (response.status >= 500 ? "unavailable" : "bad_request");
    return new RefusedError(code, error?.message ?? `HTTP ${response.status}`, error?.retry_after_ms ?? retryAfterMs(response), error?.reason ?? null);
}
/** What the `Retry-After` header asks for, where a page may see it. */
export function retryAfterMs(response) {
    const seconds = Number(response.headers.get("retry-after") ?? "");
    return seconds > 0 ? seconds * 1000 : null;
}
