/**
 * Keeps one socket to the gateway open: connects, signs in, checks that the socket is alive, and reconnects.
 *
 * Knows nothing of sessions. It informs its owner through callbacks: `onReady` (signed in; subscribe now), `onFrame`,
 * `onLost` and `onState`. It ignores messages of a socket that it has abandoned. A callback may end or restart the
 * connection, so code after a callback compares `#attempt` with its earlier value.
 *
 * If the app has no usable access token, the connection reads without one, so that public sessions stay visible. It
 * keeps asking for a token, and signs in on the open socket once it gets one.
 */

import { ACCESS_WITHDRAWN, advisedMs, delayMs, stopCode, verdict } from "./backoff.ts";
import { type ConnectionState, IDLE, type Transport } from "./connection_state.ts";
import { StoppedError, TokenError, type UsherError } from "./errors.ts";
import { Timers } from "./timers.ts";
import { expired, refusalOfToken, unauthorized } from "./tokens.ts";
import { type ClientFrame, type ErrorFrame, isLonger, parseFrame, type ServerFrame } from "./wire.ts";
import type { Signal, SocketLike, World } from "./world.ts";

/** The time limit of one attempt, from opening the socket until the sign-in. */
const WELCOME_TIMEOUT_MS = 15_000;
const PONG_TIMEOUT_MS = 6000;
/** The time limit for an answer after the page wakes up or comes online: the socket is probably dead. */
const PROBE_TIMEOUT_MS = 2500;
const HEARTBEAT_DEFAULT_MS = 25_000;
/** If a timer fires this late, the machine was asleep. */
const SLEPT_MS = 5000;
/** The count of failures resets this long after a successful subscription. */
const STABLE_MS = 5000;
/** The interval of requests for a new token while the old one expires. The gateway warns 60 s before the expiry. */
const TOKEN_RETRY_MS = 10_000;
/** The least time between two refreshes of a refused token. A refresh can cause a token change, which asks again. */
const REFRESH_MS_MIN = 20_000;
/** The least wait between two requests for a token while the app has none. */
const TOKEN_PAUSE_MS_MIN = 500;
/** After this many WebSockets in a row that did not open, every second attempt uses HTTP. */
const BLOCKED_AT_FIRST = 2;
/** The same limit if a WebSocket has opened before: the gateway is probably down, and WebSockets are not blocked. */
const BLOCKED_AFTER_SUCCESS = 6;
/** The time that the client stays with HTTP where WebSockets are blocked. After that the network may have changed. */
const BLOCKED_MS = 10 * 60_000;
/** The shortest heartbeat that the client accepts from a gateway. */
const HEARTBEAT_MS_MIN = 1000;

/** The dependencies and callbacks of a connection. */
export interface Owner {
  readonly world: World;
  readonly open: (transport: Transport) => SocketLike | Promise<SocketLike>;
  /** Returns the access token. Rejects with a `TokenError` or a `StoppedError`. `refresh` asks for a new token. */
  readonly token: (refresh: boolean) => Promise<string | null>;
  readonly onState: (state: ConnectionState) => void;
  readonly onIdentified: (sub: string | null) => void;
  readonly onReady: () => void;
  readonly onFrame: (frame: ServerFrame) => void;
  readonly onLost: () => void;
}

type TimerName = "welcome" | "liveness" | "pong" | "retry" | "stable" | "leave" | "token";

/** One connection over many sockets. */
export class Connection {
  readonly #owner: Owner;
  readonly #timers: Timers<TimerName>;
  #state = IDLE;
  #socket: SocketLike | null = null;
  #isReady = false;
  /** Whether an open socket without a token has sent one and waits for the answer. */
  #isUpgrading = false;
  /** Grows with each attempt. Code compares it after an `await` or a callback, and stops if its attempt is over. */
  #attempt = 0;
  /** Sockets in a row that did not open. */
  #unopened = 0;
  #hasOpened = false;
  /** Until this time the client tries HTTP first. */
  #blockedUntil = 0;
  #heartbeatMs = HEARTBEAT_DEFAULT_MS;
  #heardAt = 0;
  /** The gateway has asked the client not to reconnect before this time. */
  #notBefore = 0;
  #frameBytesMax = Number.POSITIVE_INFINITY;
  #used: string | null = null;
  /** The reason of the last `unsubscribed` frame on this socket. A 4503 that follows has the same reason. */
  #withdrawal: string | null = null;
  /** Whether the app's token may have changed since the last request for it. */
  #mayBeOld = false;
  /** A token that the gateway has refused, and the error that the app gets if it has no other token. */
  #refused: { readonly token: string | null; readonly error: UsherError } | null = null;
  #refreshedAt = Number.NEGATIVE_INFINITY;
  /** Why the app has no usable token; null while it has one, or while the viewer is signed out. */
  #trouble: TokenError | null = null;
  #tokenFailures = 0;

  constructor(owner: Owner) {
    this.#owner = owner;
    this.#timers = new Timers(owner.world);
  }

  /** Why this socket reads without a token, or will; null if it has one, or needs none. */
  get trouble(): TokenError | null {
    return this.#isReady && this.#used !== null && !this.#isUpgrading ? null : this.#trouble;
  }

  /** Connects, if the connection is idle. */
  start(): void {
    if (this.#state.status === "idle") this.#connect();
  }

  /** Closes the connection. A later `start` opens a new one. */
  end(): void {
    this.#drop();
    this.#trouble = null;
    this.#set({ ...IDLE, online: this.#state.online });
  }

  /** Handles a signal: the page woke up, the network appeared or disappeared, or the app called `wake`. */
  on(signal: Signal): void {
    if (signal !== "wake") this.#set({ online: signal === "online" });
    // The browser's network state is only a hint: a socket to localhost survives a pulled cable.
    if (this.#isReady) this.#probe(PROBE_TIMEOUT_MS);
    else if (this.#state.status === "waiting" && signal !== "offline") this.#retryAt(this.#owner.world.now());
    if (this.#isReady && this.trouble && signal !== "offline") void this.#renew("until_fresh");
  }

  /**
   * Asks the app for its token again, after a sign-in, a sign-out or a refresh. A waiting or stopped connection
   * reconnects immediately.
   */
  renewToken(): void {
    const { status } = this.#state;
    this.#mayBeOld = true;
    if (this.#isReady) void this.#renew("once");
    else if (status === "waiting") this.#retryAt(this.#owner.world.now());
    else if (status === "stopped") this.#connect();
  }

  /** Sends a frame. Returns false if no signed-in socket is open. */
  send(frame: ClientFrame & { readonly id?: number }): boolean {
    return this.#isReady && this.#put(frame);
  }

  /** The owner calls this after a successful subscription. After 5 s more, the count of failures is reset. */
  settle(): void {
    this.#unopened = 0;
    const now = this.#owner.world.now();
    const isBlocked = this.#state.transport === "http" && !this.#hasOpened;
    if (isBlocked && now >= this.#blockedUntil) this.#blockedUntil = now + BLOCKED_MS;
    this.#timers.after("stable", STABLE_MS, () => this.#set({ failures: 0 }));
  }

  #connect(): void {
    this.#drop();
    const [transport, attempt] = [this.#choose(), this.#attempt];
    this.#set({ status: "connecting", retryAt: null, error: this.#trouble, transport });
    if (attempt === this.#attempt) void this.#dial(transport, attempt);
  }

  async #dial(transport: Transport, attempt: number): Promise<void> {
    try {
      const token = await this.#chooseToken();
      if (attempt !== this.#attempt) return;
      this.#take(token);
      this.#timers.after("welcome", WELCOME_TIMEOUT_MS, () => this.#fail(1006));
      this.#unopened += 1;
      const socket = await this.#owner.open(transport);
      if (attempt !== this.#attempt) return socket.close();
      this.#socket = socket;
      this.#heardAt = this.#owner.world.now();
      socket.onmessage = ({ data }) => this.#socket === socket && this.#onText(data);
      socket.onclose = ({ code, retryAfterMs }) => this.#socket === socket && this.#fail(code, retryAfterMs);
      socket.onerror = () => {};
    } catch (error) {
      this.#onDialFailed(error, attempt);
    }
  }

  #onDialFailed(error: unknown, attempt: number): void {
    if (attempt !== this.#attempt) return;
    if (error instanceof StoppedError) this.#stop(error);
    else this.#fail(1006);
  }

  /** Returns the token to sign in with, or null to read without one. Throws if the gateway has refused the token. */
  async #chooseToken(): Promise<string | null> {
    const attempt = this.#attempt;
    try {
      const token = await this.#askToken(true);
      if (attempt === this.#attempt) this.#setTrouble(null);
      return token;
    } catch (error) {
      if (attempt !== this.#attempt || !(error instanceof TokenError)) throw error;
      const isNew = this.#trouble?.code !== error.code;
      this.#setTrouble(error);
      // The app mostly gets a new token within a moment. So the first expiry fails this attempt, and the next one
      // asks again. Only then does the client read without a token.
      if (isNew && error.code === "token_expired") throw error;
      return null;
    }
  }

  /** Asks the app for a token. Throws the earlier refusal if the app returns the refused token again. */
  async #askToken(mayRefresh: boolean): Promise<string | null> {
    const { world, token } = this.#owner;
    const refused = this.#refused;
    const refresh = mayRefresh && refused !== null && world.now() - this.#refreshedAt >= REFRESH_MS_MIN;
    this.#mayBeOld = false;
    const found = await token(refresh);
    if (refresh) this.#refreshedAt = world.now();
    if (refused !== null && refused.token === found && refused === this.#refused) throw refused.error;
    return found;
  }

  /** Stores the token for the next sign-in; null to read without one. */
  #take(token: string | null): void {
    this.#used = token;
    if (!this.#trouble) this.#refused = null;
  }

  #setTrouble(trouble: TokenError | null): void {
    this.#trouble = trouble;
    if (trouble === null) this.#tokenFailures = 0;
    if (this.#state.error !== trouble) this.#set({ error: trouble });
  }

  /** Chooses HTTP if WebSockets seem to be blocked: none has ever opened, or many in a row have failed. */
  #choose(): Transport {
    if (this.#unopened === 0) return this.#owner.world.now() < this.#blockedUntil ? "http" : "websocket";
    const isPatient = this.#unopened < (this.#hasOpened ? BLOCKED_AFTER_SUCCESS : BLOCKED_AT_FIRST);
    return isPatient || this.#unopened % 2 === 1 ? "websocket" : "http";
  }

  #onText(text: unknown): void {
    this.#heardAt = this.#owner.world.now();
    this.#timers.cancel("pong");
    const frame = parseFrame(text);
    if (frame === null) return;
    switch (frame.type) {
      case "welcome":
        this.#heartbeatMs = advisedMs(frame.heartbeat_ms || null, HEARTBEAT_MS_MIN, HEARTBEAT_DEFAULT_MS);
        this.#frameBytesMax = frame.max_frame_bytes ?? Number.POSITIVE_INFINITY;
        if (this.#state.transport === "websocket") {
          this.#unopened = 0;
          this.#hasOpened = true;
        }
        return this.#onWelcome(frame.server ?? null);
      case "authenticated":
        if (!this.#isReady || this.#isUpgrading) this.#onReady(frame.sub);
        return;
      case "token_expiring":
        return void this.#renew("until_fresh");
      case "reconnect":
        return this.#onAdvice(frame.after_ms ?? 0);
      case "unsubscribed":
        this.#withdrawal = frame.reason ?? this.#withdrawal;
        break;
      case "error":
        if (frame.id === AUTH_ID) return this.#onAuthRefused(frame);
    }
    if (this.#isReady) this.#owner.onFrame(frame);
  }

  #onWelcome(server: string | null): void {
    const attempt = this.#attempt;
    this.#set({ server });
    if (attempt !== this.#attempt) return;
    // The viewer signed in or out after the request for the token. Signs in on this socket with the new token.
    if (this.#mayBeOld) void this.#chooseAgain(attempt);
    else this.#signIn();
  }

  async #chooseAgain(attempt: number): Promise<void> {
    try {
      const token = await this.#chooseToken();
      if (attempt !== this.#attempt) return;
      this.#take(token);
      this.#signIn();
    } catch (error) {
      this.#onDialFailed(error, attempt);
    }
  }

  #signIn(): void {
    if (this.#used === null) this.#onReady(null);
    else this.#auth(this.#used);
  }

  #auth(token: string): void {
    this.#used = token;
    this.#put({ type: "auth", id: AUTH_ID, token });
  }

  #onReady(sub: string | null): void {
    const attempt = this.#attempt;
    this.#timers.cancel("welcome");
    this.#isReady = true;
    this.#isUpgrading = false;
    if (this.#used !== null) this.#setTrouble(null);
    if (attempt === this.#attempt) this.#set({ status: "open" });
    if (attempt !== this.#attempt) return;
    this.#watch();
    // A viewer whose token is missing at the moment is still the same viewer.
    if (!this.#trouble) this.#owner.onIdentified(sub);
    if (attempt === this.#attempt) this.#owner.onReady();
    if (attempt !== this.#attempt) return;
    if (this.#trouble) this.#askLater();
    else if (this.#mayBeOld) void this.#renew("once");
  }

  #onAuthRefused(answer: ErrorFrame): void {
    const { retry_after_ms: wait } = answer;
    if (wait !== undefined) {
      if (!this.#isReady) return this.#fail(1013, wait);
      this.#used = this.#isUpgrading ? null : NO_TOKEN;
      this.#isUpgrading = false;
      return this.#timers.after("token", advisedMs(wait, TOKEN_PAUSE_MS_MIN), () => void this.#renew("once"));
    }
    this.#refused = { token: this.#used, error: refusalOfToken(answer, this.#used) };
    if (!this.#isReady || this.#isUpgrading) return this.#fail(4501);
    // On an open socket the old token stays valid. The gateway closes with 4001 when it expires.
    this.#used = NO_TOKEN;
  }

  /** Signs in again on the open socket if the app has another token. */
  async #renew(how: "once" | "until_fresh"): Promise<void> {
    const attempt = this.#attempt;
    const again = () => this.#timers.after("token", TOKEN_RETRY_MS, () => void this.#renew(how));
    try {
      const token = await this.#askToken(how === "until_fresh");
      if (attempt !== this.#attempt) return;
      // This socket has read without a token. It signs the viewer in again.
      if (this.trouble && token !== null) return this.#upgrade(token);
      const isOther = token === null || this.#used === null;
      if (this.trouble || (token !== this.#used && isOther)) return this.#connectAnew();
      this.#setTrouble(null);
      if (attempt !== this.#attempt) return;
      if (token !== this.#used && token !== null) this.#auth(token);
      else if (how === "until_fresh") again();
    } catch (error) {
      if (attempt === this.#attempt && error instanceof TokenError) this.#setTrouble(error);
      if (attempt !== this.#attempt) return;
      // A signed-in socket keeps its token until the gateway closes the socket.
      if (this.trouble) this.#askLater();
      else if (error instanceof TokenError || how === "until_fresh") again();
    }
  }

  #upgrade(token: string): void {
    this.#refused = null;
    this.#isUpgrading = true;
    this.#auth(token);
  }

  /** Asks for the missing token again, with increasing delays. */
  #askLater(): void {
    const wait = TOKEN_PAUSE_MS_MIN + delayMs(this.#tokenFailures, 1006, this.#owner.world.random());
    this.#tokenFailures += 1;
    this.#timers.after("token", wait, () => void this.#renew("until_fresh"));
  }

  #connectAnew(): void {
    if (this.#lose() !== "ended") this.#connect();
  }

  /** The gateway announces a restart. Reconnects at the time that it gives, even if it has not closed the socket. */
  #onAdvice(afterMs: number): void {
    const wait = advisedMs(afterMs, 0);
    this.#notBefore = this.#owner.world.now() + wait;
    this.#timers.after("leave", wait, () => this.#fail(1012));
  }

  /**
   * Sends a ping after a silent heartbeat interval, because browsers hide WebSocket pings. If the timer fires more than
   * 5 s late, the machine was asleep, and the answer must arrive within the shorter limit.
   */
  #watch(): void {
    const due = this.#owner.world.now() + this.#heartbeatMs;
    this.#timers.after("liveness", this.#heartbeatMs, () => {
      const now = this.#owner.world.now();
      if (now - due > SLEPT_MS) this.#probe(PROBE_TIMEOUT_MS);
      else if (now - this.#heardAt >= this.#heartbeatMs - 1000) this.#probe(PONG_TIMEOUT_MS);
      this.#watch();
    });
  }

  /** Sends a ping. Reconnects on a new socket if no answer arrives in time. */
  #probe(timeoutMs: number): void {
    if (this.#timers.has("pong")) return;
    this.#put({ type: "ping" });
    this.#timers.after("pong", timeoutMs, () => this.#fail(4009));
  }

  #fail(code: number, retryAfterMs?: number | null): void {
    const [trouble, withdrawal] = [this.trouble, this.#withdrawal];
    const found = this.#lose();
    if (found === "ended") return;
    // This socket has no token at the moment. Its refusal says nothing about the viewer's own access.
    const isRefusal = code === 4501 || code === ACCESS_WITHDRAWN;
    const judgement = trouble && isRefusal ? "retry" : verdict(code);
    if (judgement === "stop")
      return this.#stop(new StoppedError(stopCode(code, withdrawal), `closed with ${code}`, code));
    // Keeps the error of an earlier `auth` answer: it says more than the close code.
    if (judgement === "renew_token" && !(this.#refused && [this.#refused.token, NO_TOKEN].includes(this.#used)))
      this.#refused = { token: this.#used, error: code === 4001 ? expired() : unauthorized() };
    const { world } = this.#owner;
    const now = world.now();
    if (retryAfterMs) this.#notBefore = now + advisedMs(retryAfterMs, 0);
    const { failures } = this.#state;
    const attempt = this.#attempt;
    this.#set({ failures: failures + 1 });
    if (attempt !== this.#attempt) return;
    // The token has just expired on an open socket, and the app can give a new one: reconnects without a wait.
    if (judgement === "renew_token" && found === "ready") this.#connect();
    else this.#retryAt(this.#notBefore > now ? this.#notBefore : now + delayMs(failures, code, world.random()));
  }

  #retryAt(time: number): void {
    const now = this.#owner.world.now();
    const retryAt = Math.max(time, this.#notBefore, now);
    const attempt = this.#attempt;
    this.#set({ status: "waiting", retryAt });
    if (attempt !== this.#attempt) return;
    this.#timers.after("retry", retryAt - now, () => this.#connect());
  }

  #stop(error: StoppedError): void {
    if (this.#lose() === "ended") return;
    this.#trouble = null;
    this.#set({ status: "stopped", retryAt: null, error });
  }

  /** Abandons the socket and informs the owner. Returns the socket's state, or `ended` if the owner took over. */
  #lose(): "ready" | "unready" | "ended" {
    const wasReady = this.#isReady;
    this.#drop();
    const attempt = this.#attempt;
    if (wasReady) this.#owner.onLost();
    return attempt !== this.#attempt ? "ended" : wasReady ? "ready" : "unready";
  }

  #drop(): void {
    this.#timers.clear();
    const socket = this.#socket;
    this.#attempt += 1;
    this.#socket = null;
    this.#withdrawal = null;
    this.#isReady = false;
    this.#isUpgrading = false;
    if (socket && socket.readyState <= 1) socket.close(1000);
  }

  #put(frame: ClientFrame & { readonly id?: number | string }): boolean {
    if (this.#socket?.readyState !== 1) return false;
    const text = JSON.stringify(frame);
    // The gateway would close the socket with 1009, and after each reconnect again.
    if (isLonger(text, this.#frameBytesMax)) this.#onTooLarge(frame);
    else this.#socket.send(text);
    return true;
  }

  #onTooLarge(frame: ClientFrame & { readonly id?: number | string }): void {
    const message = `the frame is larger than ${this.#frameBytesMax} bytes`;
    const id = typeof frame.id === "number" ? { id: frame.id } : {};
    const answer: ErrorFrame = { type: "error", code: "too_large", message, ...id };
    if (frame.type === "auth") this.#onAuthRefused(answer);
    else this.#owner.onFrame(answer);
  }

  #set(change: Partial<ConnectionState>): void {
    this.#state = { ...this.#state, ...change };
    this.#owner.onState(this.#state);
  }
}

/** The id of `auth` frames. The owner numbers its frames from 1. */
const AUTH_ID = 0;
/** Stands for a refused token in `#used`, so that the client may send the same token again. */
const NO_TOKEN = "";
