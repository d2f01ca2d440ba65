// Keeps one socket to the gateway open: connects, signs in, watches that it lives, comes back.
//
// Knows nothing of sessions. Everything of the outside is injected: `open` makes a socket, `timers` has `set` and
// `clear`, `random` and `now` are functions, `token` returns the JWT or null. The owner is told through three
// callbacks: `onLink` (what the viewer should know), `onReady` (signed in; subscribe now) and `onFrame`.

import { delayMs, stopReason, verdict } from "./backoff.js";

const WELCOME_TIMEOUT_MS = 10_000;
const PONG_TIMEOUT_MS = 6000;
/** After waking up or coming online an answer must come sooner: the socket is probably dead. */
const PROBE_TIMEOUT_MS = 2500;
const HEARTBEAT_DEFAULT_MS = 25_000;
/** A connection must have held this long before its failures are forgiven. */
const STABLE_MS = 5000;

/** One connection over many sockets. */
export class Connection {
  #outside;
  #socket = null;
  #state = "idle"; // idle, opening, authenticating, ready, waiting, stopped.
  #failures = 0;
  #advice = null; // {at}: when the server asked us to come back.
  #heartbeatMs = HEARTBEAT_DEFAULT_MS;
  #heardAt = 0;
  #usedToken = null;
  #timers = new Map(); // Name to handle: welcome, liveness, pong, retry, stable, leave.

  constructor(outside) {
    this.#outside = outside;
  }

  /** Connects, if it is not connected or about to be. */
  start() {
    if (this.#state === "idle" || this.#state === "waiting" || this.#state === "stopped") this.#connect();
  }

  /** Closes for good; `reason` is told to the viewer. */
  stop(reason, code = 1000) {
    this.#drop(code);
    this.#state = "stopped";
    this.#outside.onLink({ phase: "stopped", retryAt: null, stop: { reason } });
  }

  /** Tries now what would be tried later: the network came back, or somebody pressed the button. */
  retryNow() {
    if (this.#state === "waiting") this.#connect();
    else this.probe();
  }

  /** Asks for a sign of life, and comes back on a new socket when there is none. */
  probe(timeoutMs = PROBE_TIMEOUT_MS) {
    if (this.#state !== "ready" || this.#timers.has("pong")) return;
    this.send({ type: "ping" });
    this.#after("pong", timeoutMs, () => this.#fail(4009));
  }

  /** Sends a frame; false when there is no socket to send it on. */
  send(frame) {
    if (this.#state !== "ready" && frame.type !== "auth") return false;
    if (!this.#socket || this.#socket.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** The owner has what it wanted; from here on the connection may prove that it is stable. */
  settled() {
    this.#after("stable", STABLE_MS, () => {
      this.#failures = 0;
      this.#outside.onLink({ failures: 0 });
    });
  }

  #connect() {
    this.#drop(1000);
    this.#state = "opening";
    this.#advice = null;
    this.#outside.onLink({ phase: "connecting", retryAt: null, stop: null, failures: this.#failures });
    let socket;
    try {
      socket = this.#outside.open();
    } catch {
      this.#fail(1006);
      return;
    }
    this.#socket = socket;
    // A socket that was given up may still speak; only the present one is heard.
    const current = (act) => (event) => this.#socket === socket && act(event);
    socket.onmessage = current((event) => this.#onText(event.data));
    socket.onclose = current((event) => this.#fail(event.code || 1006));
    socket.onerror = () => {};
    this.#after("welcome", WELCOME_TIMEOUT_MS, () => this.#fail(1006));
  }

  #onText(text) {
    this.#heardAt = this.#outside.now();
    this.#cancel("pong");
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (frame === null || typeof frame !== "object") return;
    if (frame.type === "welcome") this.#onWelcome(frame);
    else if (frame.type === "authenticated") this.#onAuthenticated();
    else if (frame.type === "reconnect") this.#onAdvice(frame);
    else if (frame.type === "error" && frame.id === AUTH_ID) return this.#onAuthError(frame);
    if (frame.type !== "pong") this.#outside.onFrame(frame);
  }

  #onWelcome(frame) {
    if (frame.heartbeat_ms > 0) this.#heartbeatMs = frame.heartbeat_ms;
    this.#usedToken = this.#outside.token();
    if (this.#usedToken === null) {
      this.#onReady();
      return;
    }
    this.#state = "authenticating";
    this.send({ type: "auth", id: AUTH_ID, token: this.#usedToken });
  }

  #onAuthenticated() {
    if (this.#state === "authenticating") this.#onReady();
  }

  #onAuthError(frame) {
    if (frame.retry_after_ms != null) this.#fail(1013);
    else this.stop("unauthorized");
  }

  #onReady() {
    this.#cancel("welcome");
    this.#state = "ready";
    this.#watch();
    this.#outside.onReady();
  }

  // The server is leaving: go when it says, on our own if it does not close first.
  #onAdvice(frame) {
    const wait = Math.max(0, Math.min(Number(frame.after_ms) || 0, 60_000));
    this.#advice = { at: this.#outside.now() + wait };
    this.#after("leave", wait, () => this.#fail(1012));
  }

  // Browsers hide pings, so silence is broken by our own. A timer that fires far too late means that the
  // machine slept, and then the answer has to come quickly.
  #watch() {
    const due = this.#outside.now() + this.#heartbeatMs;
    this.#after("liveness", this.#heartbeatMs, () => {
      const now = this.#outside.now();
      const slept = now - due > 5000;
      if (slept || now - this.#heardAt >= this.#heartbeatMs - 1000)
        this.probe(slept ? PROBE_TIMEOUT_MS : PONG_TIMEOUT_MS);
      this.#watch();
    });
  }

  #fail(code) {
    const judgement = verdict(code);
    this.#drop(1000);
    if (judgement === "stop") return this.stop(stopReason(code));
    if (judgement === "renew_token" && this.#outside.token() === this.#usedToken)
      return this.stop("token_expired");
    const now = this.#outside.now();
    const wait = this.#advice
      ? Math.max(0, this.#advice.at - now)
      : delayMs(this.#failures, code, this.#outside.random());
    this.#failures += 1;
    this.#state = "waiting";
    this.#outside.onLink({ phase: "waiting", retryAt: now + wait, failures: this.#failures, code });
    this.#after("retry", wait, () => this.#connect());
  }

  #drop(code) {
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState <= 1) socket.close(code === 1000 ? 1000 : 4000);
  }

  #after(name, ms, act) {
    this.#cancel(name);
    const handle = this.#outside.timers.set(() => {
      this.#timers.delete(name);
      act();
    }, ms);
    this.#timers.set(name, handle);
  }

  #cancel(name) {
    if (!this.#timers.has(name)) return;
    this.#outside.timers.clear(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

const AUTH_ID = "auth";
