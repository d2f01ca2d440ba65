/** The client: one connection, shared by all the sessions that are followed. */

import { ACCESS_WITHDRAWN } from "./backoff.ts";
import { Connection } from "./connection.ts";
import { type ConnectionState, IDLE, type Transport } from "./connection_state.ts";
import { StoppedError, TokenError } from "./errors.ts";
import { Follower } from "./follower.ts";
import type { Caller } from "./http.ts";
import { normalId } from "./ids.ts";
import { Session } from "./session.ts";
import { INITIAL_STATE, type SessionState } from "./state.ts";
import { type GetToken, Tokens } from "./tokens.ts";
import type { ServerFrame } from "./wire.ts";
import { type Fetch, realWorld, type Signal, type SocketClass, type World } from "./world.ts";

/** Events that a first subscription asks for. */
const HISTORY = 50;
/** A session that nobody holds is left after this time: a route that changes does not cost a subscription. */
const LINGER_MS = 3000;

/** How to reach a gateway, and as whom. */
export interface ConnectOptions {
  /** The gateway: `https://gateway.example`, with or without the path of its socket. */
  readonly url: string;
  /**
   * The Supabase access token, or null for a viewer without one. Asked at each connect, and when one runs out; then with
   * `refresh: true` if the gateway has refused the last one. If it throws, or does not answer within 8 s, the client shows
   * `connection.error`, reads without a token and asks again.
   */
  readonly getToken?: GetToken;
  /** Calls back whenever there may be another token; gives how to stop. */
  readonly onTokenChange?: (changed: () => void) => () => void;
  /** How many of the newest events to begin a session with: 0 to 200, 50 if you do not say. */
  readonly history?: number;
  /** Where there is none: Node before 22 takes that of `ws`. */
  readonly WebSocket?: SocketClass;
  /** Instead of the global one. */
  readonly fetch?: Fetch;
}

/** A followed session, and who holds it. */
interface Entry {
  readonly follower: Follower;
  readonly holders: Set<Session>;
  /** Runs while nobody does. */
  linger: unknown;
}

/** A client of one gateway. It connects when the first session is followed, and leaves after the last. */
export class Usher {
  readonly #world: World;
  readonly #options: ConnectOptions;
  readonly #caller: Caller;
  readonly #connection: Connection;
  readonly #followers = new Map<string, Entry>();
  readonly #asked = new Map<number, (frame: ServerFrame) => void>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  #state = IDLE;
  #nextId = 1;
  #stopWatching = () => {};

  constructor(options: ConnectOptions, world: World) {
    this.#world = world;
    this.#options = options;
    const tokens = new Tokens(world, options.getToken);
    // Like the socket: without a usable token it reads as nobody.
    const token = () => tokens.ask().catch((error) => (error instanceof TokenError ? null : Promise.reject(error)));
    this.#caller = { world, base: baseOf(options.url), token };
    this.#connection = new Connection({
      world,
      token: (refresh) => tokens.ask(refresh),
      open: (transport) => this.#open(transport),
      onState: (state) => this.#onState(state),
      onIdentified: (sub) => this.#each((follower) => follower.onIdentified(sub)),
      onReady: () => this.#each((follower) => follower.subscribe()),
      onFrame: (frame) => this.#onFrame(frame),
      onLost: () => this.#onLost(),
    });
  }

  /** How the connection stands. */
  get connection(): ConnectionState {
    return this.#state;
  }

  /** Calls `listener` whenever the connection changes; gives how to stop. */
  onConnection(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Follows a session. Everybody who asks for the same one shares it; close what you get when you are done. */
  session(given: string): Session {
    const id = normalId(given);
    const entry = this.#entry(id);
    this.#world.clearTimer(entry.linger);
    const loadOlder = (follower: Follower, limit: number) => this.#loadOlder(follower, limit);
    const session = new Session(entry.follower, loadOlder, this.#world.uuid, () => {
      entry.holders.delete(session);
      if (entry.holders.size > 0) return;
      // Held by nobody any more: the client was closed meanwhile.
      if (this.#followers.get(id) === entry) entry.linger = this.#world.setTimer(() => this.#leave(id), LINGER_MS);
    });
    entry.holders.add(session);
    return session;
  }

  /** What is known of a session, without following it. */
  peek(id: string): SessionState {
    return this.#followers.get(normalId(id))?.follower.state ?? INITIAL_STATE;
  }

  /**
   * The time as the client measures it, in milliseconds since 1970. Compare `connection.retryAt` with this and not with the
   * device clock, which may be set back.
   */
  now(): number {
    return this.#world.now();
  }

  /** Tries now what would be tried later, and looks whether the connection lives. For apps that know of waking up. */
  wake(): void {
    this.#connection.on("wake");
  }

  /** There may be another token, or somebody pressed "try again" after the connection had stopped. */
  renewToken(): void {
    this.#connection.renewToken();
  }

  /** Closes and leaves all sessions: loops over them end, and what is on its way fails as `closed`. */
  close(): void {
    for (const [id, entry] of [...this.#followers]) {
      for (const session of [...entry.holders]) session.close();
      this.#world.clearTimer(entry.linger);
      this.#leave(id);
    }
  }

  #entry(id: string): Entry {
    const known = this.#followers.get(id);
    if (known) return known;
    const line = {
      world: this.#world,
      ask: this.#ask.bind(this),
      tell: this.#connection.send.bind(this.#connection),
      settle: () => this.#connection.settle(),
      trouble: () => this.#connection.trouble,
    };
    const follower = new Follower(id, line, this.#options.history ?? HISTORY);
    const entry: Entry = { follower, holders: new Set(), linger: null };
    this.#followers.set(id, entry);
    if (this.#followers.size === 1) this.#begin();
    else if (this.#state.status === "open") follower.subscribe();
    // The last subscription was taken away, and the socket with it; another session is another matter.
    else if (this.#isWithdrawn()) this.#connection.renewToken();
    else if (this.#state.status === "stopped" && this.#state.error) follower.stop(this.#state.error);
    return entry;
  }

  #isWithdrawn(): boolean {
    const { error } = this.#state;
    return error instanceof StoppedError && error.closeCode === ACCESS_WITHDRAWN;
  }

  #begin(): void {
    const stopSignals = this.#world.watch((signal: Signal) => this.#connection.on(signal));
    const stopTokens = this.#options.onTokenChange?.(() => this.#connection.renewToken());
    this.#stopWatching = () => {
      stopSignals();
      stopTokens?.();
    };
    this.#connection.start();
  }

  #leave(id: string): void {
    this.#followers.get(id)?.follower.close();
    this.#followers.delete(id);
    if (this.#followers.size > 0) return;
    this.#stopWatching();
    this.#connection.end();
    this.#asked.clear();
  }

  #open(transport: Transport) {
    if (transport === "http") return import("./http_socket.ts").then(({ HttpSocket }) => new HttpSocket(this.#caller));
    return this.#world.openSocket(`${this.#caller.base.replace(/^http/, "ws")}/v1/socket`);
  }

  #ask(frame: Parameters<Connection["send"]>[0], onAnswer: (frame: ServerFrame) => void): number | null {
    const id = this.#nextId++;
    // Before it is sent: a frame that is too large is answered at once.
    this.#asked.set(id, onAnswer);
    if (this.#connection.send({ ...frame, id })) return id;
    this.#asked.delete(id);
    return null;
  }

  #onFrame(frame: ServerFrame): void {
    if ("id" in frame && frame.id !== undefined) {
      const onAnswer = this.#asked.get(frame.id);
      this.#asked.delete(frame.id);
      onAnswer?.(frame);
    }
    if ("session" in frame) this.#followers.get(frame.session)?.follower.onFrame(frame);
  }

  #onState(state: ConnectionState): void {
    const before = this.#state;
    this.#state = state;
    const { status, error } = state;
    // A session that was refused by name keeps that name.
    if (status === "stopped" && error && error !== before.error)
      this.#each((follower) => follower.state.status !== "stopped" && follower.stop(error));
    if (status === "connecting" && before.status === "stopped")
      this.#each((follower) => follower.dispatch({ type: "connecting" }));
    // One that another listener has taken off is not told any more, nor is anybody of what is over already.
    for (const listener of [...this.#listeners]) {
      if (this.#state !== state) return;
      if (this.#listeners.has(listener)) listener(state);
    }
  }

  #onLost(): void {
    this.#asked.clear();
    this.#each((follower) => follower.onLost());
  }

  async #loadOlder(follower: Follower, limit: number): Promise<boolean> {
    const { before } = follower.state.chat;
    if (before === null) return false;
    // Most viewers never read back: the HTTP calls are loaded by the first who does.
    const { fetchOlder } = await import("./http.ts");
    const page = await fetchOlder(this.#caller, follower.id, before, limit);
    // The window may have moved on, or begun afresh, while the page was on its way.
    if (follower.state.chat.before !== before) return true;
    follower.dispatch({ type: "older", page });
    return follower.state.chat.before !== before;
  }

  #each(act: (follower: Follower) => void): void {
    // A listener that is told in between may have left one of them, or closed the client.
    for (const [id, entry] of [...this.#followers]) if (this.#followers.get(id) === entry) act(entry.follower);
  }
}

/** Makes a client of the gateway at `url`. Nothing happens until a session is followed. */
export function connect(options: ConnectOptions): Usher {
  return new Usher(options, realWorld(options));
}

function baseOf(url: string): string {
  if (!/^(http|ws)s?:\/\//.test(url)) throw new StoppedError("bad_request", `not the URL of a gateway: ${url}`);
  return url.replace(/^ws/, "http").replace(/(\/v1\/socket)?\/*$/, "");
}
