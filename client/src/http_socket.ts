/**
 * A socket made of HTTP calls, for where WebSockets are blocked.
 *
 * To the connection it is a WebSocket: a subscription is a stream of Server-Sent Events with the same frames, a message or
 * a vote is a call whose answer becomes an `ack` or an `error`. Loaded only where it is needed.
 */

import { RefusedError } from "./errors.ts";
import { type Caller, call, refusedBy } from "./http.ts";
import { subjectOf } from "./jwt.ts";
import { type ClientFrame, parseFrame, type ServerFrame } from "./wire.ts";
import type { SocketLike } from "./world.ts";

/** Characters of one event; a frame of the gateway has a tenth of it. */
const EVENT_CHARS_MAX = 1_000_000;
/** Streams carry a comment at least this often; a quiet one is dead. */
const QUIET_MS_MAX = 60_000;

const JSON_TYPE = { "content-type": "application/json" };

/** What a client says, with the number that its answer carries. */
type Numbered = ClientFrame & { readonly id?: number };

/** Where a stream is. */
interface Stream {
  readonly abort: AbortController;
  /** The epoch of its numbers, once it has said. */
  epoch: string | undefined;
  /** What was asked for, with the newest number since. */
  frame: Numbered & { readonly type: "subscribe" };
}

/** One socket. */
export class HttpSocket implements SocketLike {
  readyState = 1;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  readonly #caller: Caller;
  readonly #streams = new Map<string, Stream>();
  #token: string | null = null;
  #authId = 0;
  #hasStreamed = false;
  #heardAt: number;

  constructor(outer: Caller) {
    // With the token of the `auth` frame, so that all calls of a socket are of one user.
    this.#caller = { ...outer, token: async () => this.#token };
    this.#heardAt = outer.world.now();
    this.#saySoon({ type: "welcome" });
  }

  send(text: string): void {
    const frame = parseFrame(text) as Numbered | null;
    switch (frame?.type) {
      case "auth":
        return this.#onAuth(frame.token, frame.id);
      case "subscribe":
        return void this.#stream(frame);
      case "unsubscribe":
        this.#streams.get(frame.session)?.abort.abort();
        this.#streams.delete(frame.session);
        return;
      case "send":
        return void this.#send(frame);
      case "vote":
        return void this.#vote(frame);
      case "ping":
        if (this.#caller.world.now() - this.#heardAt < QUIET_MS_MAX) this.#saySoon({ type: "pong" });
    }
  }

  close(): void {
    this.readyState = 3;
    for (const { abort } of this.#streams.values()) abort.abort();
    this.#streams.clear();
  }

  /** The gateway judges the token where it is used; on open streams a fresh one begins where they are. */
  #onAuth(token: string, id = 0): void {
    const before = this.#token;
    if (before !== null && subjectOf(before) !== subjectOf(token)) return this.#end(4509);
    this.#token = token;
    this.#authId = id;
    this.#saySoon({ type: "authenticated", id, sub: subjectOf(token), role: "" });
    if (before === null) return;
    for (const { frame } of [...this.#streams.values()]) void this.#stream(frame);
  }

  async #stream(frame: Stream["frame"]): Promise<void> {
    const { session, id } = frame;
    const epoch = "resume" in frame ? frame.resume.epoch : undefined;
    const stream: Stream = { abort: new AbortController(), epoch, frame };
    this.#streams.get(session)?.abort.abort();
    this.#streams.set(session, stream);
    const isWanted = () => this.readyState === 1 && this.#streams.get(session) === stream;
    try {
      const response = await this.#open(frame, stream.abort.signal);
      if (!isWanted()) return;
      if (!response.ok) return await this.#onRefused(response, session, id);
      if (!response.body) return this.#end(1006);
      this.#hasStreamed = true;
      for await (const { data, last } of readEvents(response.body, () => this.#hear())) {
        if (!isWanted()) return;
        const frame = parseFrame(data);
        if (frame?.type === "subscribed" || frame?.type === "reset") stream.epoch = frame.epoch;
        if (last !== null) stream.frame = resumed(stream, last);
        if (frame?.type === "unsubscribed") this.#streams.delete(session);
        // A stream has no number of its own: its first frame answers what was asked for.
        if (frame?.type === "subscribed" && id !== undefined) this.#say({ ...frame, id });
        else this.onmessage?.({ data });
      }
    } catch {
      // Aborted, or broken: what matters is whether it is still wanted.
    }
    if (isWanted()) this.#end(1006);
  }

  #open(frame: Stream["frame"], signal: AbortSignal): Promise<Response> {
    const { world, base } = this.#caller;
    const isResume = "resume" in frame;
    // Without the epoch the gateway takes the number at its word, also after a failover to an older database.
    const epoch = isResume && frame.resume.epoch ? `?epoch=${encodeURIComponent(frame.resume.epoch)}` : "";
    const query = isResume ? epoch : `?history=${frame.history}`;
    return world.fetch(`${base}/v1/sessions/${encodeURIComponent(frame.session)}/stream${query}`, {
      signal,
      cache: "no-store",
      headers: {
        accept: "text/event-stream",
        ...(isResume && { "last-event-id": String(frame.resume.seq) }),
        ...(this.#token !== null && { authorization: `Bearer ${this.#token}` }),
      },
    });
  }

  async #onRefused(response: Response, session: string, id: number | undefined): Promise<void> {
    const error = refusedBy(response, await response.json().catch(() => null));
    // A token that was good before has run out.
    if (response.status === 401 && this.#hasStreamed) return this.#end(4001);
    if (response.status === 401) return this.#refuseToken(error);
    // The head of a request with such a token is larger than the gateway, or a proxy before it, takes.
    if (response.status === 431 && this.#token !== null)
      return this.#refuseToken(new RefusedError("too_large", error.message));
    const isOfAll = response.status === 429 || response.status >= 500;
    if (isOfAll && error.code !== "busy") return this.#end(1013, error.retryAfterMs);
    this.#streams.delete(session);
    this.#say(errorFrame(error, id));
  }

  /** Says why, as a socket does whose `auth` frame is refused. */
  #refuseToken(error: RefusedError): void {
    if (this.#token !== null) this.#say(errorFrame(error, this.#authId));
    this.#end(4501);
  }

  async #send(frame: Numbered & { readonly type: "send" }): Promise<void> {
    const { session, body, nonce, reply_to, id } = frame;
    await this.#answer(id, async () => {
      const path = `/v1/sessions/${encodeURIComponent(session)}/messages`;
      const headers = { ...JSON_TYPE, "idempotency-key": nonce };
      const data = await call(this.#caller, "POST", path, { headers, body: JSON.stringify({ body, reply_to }) });
      return data as { seq: number; message: string };
    });
  }

  async #vote({ voting, movie, id }: Numbered & { readonly type: "vote" }): Promise<void> {
    await this.#answer(id, async () => {
      const path = `/v1/votings/${encodeURIComponent(voting)}/vote`;
      if (movie === null) await call(this.#caller, "DELETE", path);
      else await call(this.#caller, "PUT", path, { headers: JSON_TYPE, body: JSON.stringify({ movie }) });
      return {};
    });
  }

  async #answer(id: number | undefined, act: () => Promise<object>): Promise<void> {
    try {
      const data = await act();
      this.#hear();
      this.#say({ ...data, type: "ack", ...(id !== undefined && { id }) });
    } catch (error) {
      // Whether it arrived is not known: like a socket that broke, so that it goes out again under its nonce.
      if (!(error instanceof RefusedError)) this.#end(1006);
      else this.#say(errorFrame(error, id));
    }
  }

  #hear(): void {
    this.#heardAt = this.#caller.world.now();
  }

  /** A socket never answers before `send` has returned. */
  #saySoon(frame: ServerFrame): void {
    this.#caller.world.setTimer(() => this.#say(frame), 0);
  }

  #say(frame: ServerFrame): void {
    if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  #end(code: number, retryAfterMs: number | null = null): void {
    if (this.readyState !== 1) return;
    this.close();
    this.onclose?.({ code, retryAfterMs });
  }
}

/** The events of a stream, as the HTML standard has them; `onBytes` hears of every sign of life. */
export async function* readEvents(
  body: ReadableStream<Uint8Array>,
  onBytes: () => void,
): AsyncGenerator<{ readonly data: string; readonly last: number | null }> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let data: string[] = [];
  let last: number | null = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      text += decoder.decode(value, { stream: true });
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      text = lines.pop() ?? "";
      if (text.length > EVENT_CHARS_MAX) return;
      for (const line of lines) {
        const [, field, content = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
        if (line === "") {
          if (data.length > 0) yield { data: data.join("\n"), last };
          data = [];
        } else if (field === "data") data.push(content);
        else if (field === "id" && /^\d+$/.test(content)) last = Number(content);
      }
    }
  } finally {
    // Whoever stops listening hangs up.
    await reader.cancel().catch(() => {});
  }
}

function errorFrame({ code, message, retryAfterMs, reason }: RefusedError, id: number | undefined): ServerFrame {
  return {
    type: "error",
    code,
    message,
    ...(id !== undefined && { id }),
    ...(retryAfterMs !== null && { retry_after_ms: retryAfterMs }),
    ...(reason !== null && { reason }),
  };
}

/** What goes on where a stream is. It keeps the number of what was asked for at first. */
function resumed({ epoch, frame: { session, id } }: Stream, seq: number): Stream["frame"] {
  const resume = { seq, ...(epoch !== undefined && { epoch }) };
  return { type: "subscribe", session, resume, ...(id !== undefined && { id }) };
}
