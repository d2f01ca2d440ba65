/**
 * A socket over HTTP calls, for networks that block WebSockets.
 *
 * The connection uses it like a WebSocket. A subscription is a stream of Server-Sent Events with the same frames. A
 * message or a vote is an HTTP call, and its answer becomes an `ack` or `error` frame. The client loads this module
 * only if it needs HTTP.
 */

import { RefusedError } from "./errors.ts";
import { type Caller, call, refusedBy } from "./http.ts";
import { subjectOf } from "./jwt.ts";
import { type ClientFrame, parseFrame, type ServerFrame } from "./wire.ts";
import type { SocketLike } from "./world.ts";

/** The most characters of one unfinished line of a stream. A gateway's frame has at most a tenth of that. */
const EVENT_CHARS_MAX = 1_000_000;
/** A stream that is silent for this long is dead: the gateway sends comments more often. */
const QUIET_MS_MAX = 60_000;

const JSON_TYPE = { "content-type": "application/json" };

/** A client frame with an optional id, which the answer repeats. */
type Numbered = ClientFrame & { readonly id?: number };

/** An open stream and its position. */
interface Stream {
  readonly abort: AbortController;
  /** The epoch of its event numbers; undefined until it is known. */
  epoch: string | undefined;
  /** The frame that resumes the stream from its newest number. */
  frame: Numbered & { readonly type: "subscribe" };
}

/** A socket over HTTP. */
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
    // Uses the token of the `auth` frame, so that all calls of one socket belong to one user.
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

  /** Stores the token; the gateway checks it in each call. With a new token, open streams restart at their position. */
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
        // Frames of a stream have no id. The `subscribed` frame answers the `subscribe`, so it gets that id.
        if (frame?.type === "subscribed" && id !== undefined) this.#say({ ...frame, id });
        else this.onmessage?.({ data });
      }
    } catch {
      // The stream was aborted or has failed. `isWanted` tells which.
    }
    if (isWanted()) this.#end(1006);
  }

  #open(frame: Stream["frame"], signal: AbortSignal): Promise<Response> {
    const { world, base } = this.#caller;
    const isResume = "resume" in frame;
    // Without the epoch the gateway trusts the number, even after a failover to an older database.
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
    // The token was valid for an earlier stream, so it has expired.
    if (response.status === 401 && this.#hasStreamed) return this.#end(4001);
    if (response.status === 401) return this.#refuseToken(error);
    // The token makes the request header larger than the gateway, or a proxy before it, accepts.
    if (response.status === 431 && this.#token !== null)
      return this.#refuseToken(new RefusedError("too_large", error.message));
    const isOfAll = response.status === 429 || response.status >= 500;
    if (isOfAll && error.code !== "busy") return this.#end(1013, error.retryAfterMs);
    this.#streams.delete(session);
    this.#say(errorFrame(error, id));
  }

  /** Emits the `error` frame and the close code of a refused `auth` frame. */
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
      // The gateway may have received it. Ends like a lost socket, so that the follower sends it again with its nonce.
      if (!(error instanceof RefusedError)) this.#end(1006);
      else this.#say(errorFrame(error, id));
    }
  }

  #hear(): void {
    this.#heardAt = this.#caller.world.now();
  }

  /** Emits a frame after the current call returns: a socket never answers before `send` has returned. */
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

/** Parses Server-Sent Events as the HTML standard defines them. Calls `onBytes` for every received chunk. */
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
    // Closes the stream, also when the caller leaves the loop.
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

/** Returns the frame that resumes a stream after `seq`, with the id of the first `subscribe`. */
function resumed({ epoch, frame: { session, id } }: Stream, seq: number): Stream["frame"] {
  const resume = { seq, ...(epoch !== undefined && { epoch }) };
  return { type: "subscribe", session, resume, ...(id !== undefined && { id }) };
}
