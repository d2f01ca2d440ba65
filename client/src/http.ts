/** The gateway's HTTP calls, with the viewer's token. A refusal throws a `RefusedError` with its code. */

import type { Message, OlderPage } from "./chat.ts";
import { AbandonedError, RefusedError } from "./errors.ts";
import type { ErrorFrame } from "./wire.ts";
import type { World } from "./world.ts";

/** The gateway's address and the viewer's token. */
export interface Caller {
  readonly world: World;
  /** The URL without a trailing slash. */
  readonly base: string;
  readonly token: () => Promise<string | null>;
}

/** The most pages that one call reads while all messages in them are deleted. After that the viewer must ask again. */
const EMPTY_PAGES_MAX = 5;

/** Fetches the page of messages before a position in the chat. */
export async function fetchOlder(caller: Caller, session: string, before: string, limit: number): Promise<OlderPage> {
  let place = before;
  for (let count = 1; ; count += 1) {
    const path = `/v1/sessions/${encodeURIComponent(session)}/messages?before=${place}&limit=${limit}`;
    const data = await call(caller, "GET", path);
    const { messages, next = null } = data as Partial<OlderPage> & { messages: readonly Message[] };
    if (messages.length > 0 || next === null || count === EMPTY_PAGES_MAX) return { messages, next };
    place = next;
  }
}

/** Calls the gateway and returns the `data` of the answer. */
export async function call(caller: Caller, method: string, path: string, init: RequestInit = {}): Promise<unknown> {
  const token = await caller.token();
  const headers = { ...init.headers, ...(token === null ? {} : { authorization: `Bearer ${token}` }) };
  let response: Response;
  try {
    response = await caller.world.fetch(caller.base + path, { ...init, method, headers });
  } catch {
    throw new AbandonedError("no_answer", "the gateway cannot be reached");
  }
  const answer: unknown = await response.json().catch(() => null);
  if (!response.ok) throw refusedBy(response, answer);
  return (answer as { data: unknown } | null)?.data;
}

/** Returns the error of a response with a status other than 2xx. */
export function refusedBy(response: Response, answer: unknown): RefusedError {
  const error = (answer as { error?: Partial<ErrorFrame> } | null)?.error;
  const code = error?.code ?? (response.status >= 500 ? "unavailable" : "bad_request");
  return new RefusedError(
    code,
    error?.message ?? `HTTP ${response.status}`,
    error?.retry_after_ms ?? retryAfterMs(response),
    error?.reason ?? null,
  );
}

/** Returns the wait of the `Retry-After` header; null without the header, or if CORS hides it. */
export function retryAfterMs(response: Response): number | null {
  const seconds = Number(response.headers.get("retry-after") ?? "");
  return seconds > 0 ? seconds * 1000 : null;
}
