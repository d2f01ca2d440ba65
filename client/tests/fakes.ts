// A fake clock, timers, sockets and HTTP that a test controls, and builders for the gateway's frames.

import { type ConnectOptions, connect, type LogEvent, type SocketLike, Usher } from "../src/index.ts";
import type { SubscribedFrame, VotingFrame } from "../src/wire.ts";
import type { Signal, World } from "../src/world.ts";

export const SESSION = "11111111-1111-4111-8111-111111111111";
export const VOTING = "22222222-2222-4222-8222-222222222222";
export const [FIRST, SECOND] = ["33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"];

/** A frame that a client has sent. */
export type Said = { type: string; id?: number } & Record<string, unknown>;

export class FakeSocket implements SocketLike {
  readyState = 1;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  readonly url: string;
  readonly said: Said[] = [];
  closed: number | null = null;

  constructor(url: string) {
    this.url = url;
  }

  send(text: string) {
    this.said.push(JSON.parse(text));
  }

  close(code = 1000) {
    this.readyState = 3;
    this.closed = code;
  }

  /** Delivers a frame from the gateway. A `subscribed` without an id gets the id of the session's last `subscribe`. */
  say(frame: object) {
    const { type, session, id } = frame as Said;
    const asked = type === "subscribed" && this.of("subscribe").findLast((said) => said.session === session);
    this.onmessage?.({ data: JSON.stringify(asked ? { ...frame, id: id ?? asked.id } : frame) });
  }

  /** Closes the socket from the gateway's side. */
  cut(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  /** Returns the frames of one type that the client has sent. */
  of(type: string): Said[] {
    return this.said.filter((frame) => frame.type === type);
  }

  last(type: string): Said {
    const frame = this.of(type).at(-1);
    if (!frame) throw new Error(`no ${type} was sent: ${JSON.stringify(this.said)}`);
    return frame;
  }
}

export class FakeWorld implements World {
  time = 1_000_000;
  chance = 0.5;
  readonly sockets: FakeSocket[] = [];
  readonly requests: { url: string; init: RequestInit }[] = [];
  respond: (url: string, init: RequestInit) => Response | Promise<Response> = () => new Response("{}", { status: 404 });
  watchers = new Set<(signal: Signal) => void>();
  #timers = new Map<number, { at: number; act: () => void }>();
  #next = 1;
  #uuids = 0;

  now = () => this.time;
  random = () => this.chance;
  uuid = () => `00000000-0000-4000-8000-${String((this.#uuids += 1)).padStart(12, "0")}`;
  setTimer = (act: () => void, ms: number) => {
    // Like browsers: a negative time, NaN, or a time of more than 31 bits fires immediately.
    const wait = ms >= 0 && ms < 2 ** 31 ? ms : 0;
    this.#timers.set(this.#next, { at: this.time + wait, act });
    return this.#next++;
  };
  clearTimer = (timer: unknown) => void this.#timers.delete(timer as number);
  openSocket = (url: string) => {
    const socket = new FakeSocket(url);
    this.sockets.push(socket);
    return socket;
  };
  fetch = async (url: string, init: RequestInit) => {
    this.requests.push({ url, init });
    return this.respond(url, init);
  };
  watch = (on: (signal: Signal) => void) => {
    this.watchers.add(on);
    return () => this.watchers.delete(on);
  };

  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  get timers(): number {
    return this.#timers.size;
  }

  signal(signal: Signal) {
    for (const on of this.watchers) on(signal);
  }

  /** Advances the time by `ms`. Runs all due timers in order, and lets promises settle between them. */
  async pass(ms: number) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      // Lets the code that set the timer finish before the timer fires.
      await settle();
      if (!this.#timers.delete(due[0])) continue;
      this.time = Math.max(this.time, due[1].at);
      due[1].act();
      await settle();
    }
    this.time = end;
  }

  /** Advances the time like `pass`, with a gateway that answers pings. */
  async passAlive(ms: number) {
    const end = this.time + ms;
    while (this.time < end) {
      await this.pass(Math.min(1000, end - this.time));
      this.sockets.at(-1)?.say({ type: "pong" });
    }
  }

  /** Simulates a sleeping machine: time passes, and no timer runs until the end. */
  async sleep(ms: number) {
    this.time += ms;
    await this.pass(0);
  }
}

/** Lets all settled promises run their callbacks. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** Creates a client in a fake world. */
export function inFakeWorld(options: Partial<ConnectOptions> = {}, world = new FakeWorld()) {
  const usher = new Usher({ url: "https://gateway.example", ...options }, world);
  return { world, usher };
}

/** Creates a client that follows the session and is subscribed. */
export async function following(options: Partial<ConnectOptions> = {}, more: Partial<SubscribedFrame> = {}) {
  const { world, usher } = inFakeWorld(options);
  const session = usher.session(SESSION);
  await admit(world, more);
  return { world, usher, session };
}

/** Plays the gateway for the newest socket: `welcome`, `authenticated` if needed, `subscribed`. */
export async function admit(world: FakeWorld, more: Partial<SubscribedFrame> = {}, sub = "me") {
  await settle();
  world.socket.say(WELCOME);
  if (world.socket.of("auth").length > 0)
    world.socket.say({ type: "authenticated", id: 0, sub, role: "authenticated" });
  world.socket.say(subscribed(more));
  await settle();
}

export const WELCOME = { type: "welcome", server: "usher/0.1.0", heartbeat_ms: 25_000 };

export function subscribed(more: Partial<SubscribedFrame> = {}): SubscribedFrame {
  const seq = more.seq ?? 0;
  return {
    type: "subscribed",
    session: SESSION,
    epoch: "e1",
    seq,
    head: seq,
    recovered: false,
    reason: "fresh",
    resume_token: "t1",
    viewers: 3,
    can: { send: true, vote: true, moderate: false },
    info: { title: "Night", status: "live", slow_mode_seconds: 0, chat_enabled: true },
    votings: [],
    ...more,
  };
}

export function chat(seq: number, more: object = {}): LogEvent {
  const author = { username: "nora", display_name: "Nora", avatar_path: null, role: "viewer" };
  const row = {
    id: `m${seq}`,
    session_id: SESSION,
    user_id: "nora",
    body: `message ${seq}`,
    reply_to: null,
    nonce: null,
    created_at: new Date(seq * 1000).toISOString(),
    edited_at: null,
    deleted_at: null,
    deleted_by: null,
    author,
  };
  return { seq, type: "chat.created", at: row.created_at, data: { ...row, ...more } };
}

export function events(...list: LogEvent[]) {
  return { type: "events" as const, session: SESSION, events: list };
}

export function voting(more: Partial<VotingFrame> = {}): VotingFrame {
  return {
    voting: VOTING,
    status: "open",
    version: 1,
    total: 0,
    counts: [],
    closes_at: null,
    question: "which?",
    options: [
      { movie: FIRST, title: "First", poster: null },
      { movie: SECOND, title: "Second", poster: null },
    ],
    results_visibility: "live",
    allow_change: true,
    mine: null,
    ...more,
  };
}

/** Returns a token with a fake signature. */
export function token(sub: string, more: object = {}): string {
  return `head.${btoa(JSON.stringify({ sub, ...more }))}.signature`;
}

export { connect };
