// Made by `npm run pages` from client/src. Change it there.
/**
 * Keeps one socket to the gateway open: connects, signs in, watches that it lives, comes back.
 *
 * Knows nothing of sessions. The owner is told through callbacks: `onReady` (signed in; subscribe now), `onFrame`,
 * `onLost` and `onState`. A socket that was given up may still speak; only the present one is heard.
 */
import { delayMs, stopCode, verdict } from "./backoff.js";
import { StoppedError } from "./errors.js";
import { parseFrame } from "./wire.js";
/** From the first try until signed in. */
const WELCOME_TIMEOUT_MS = 15_000;
const PONG_TIMEOUT_MS = 6000;
/** After waking up or coming online an answer must come sooner: the socket is probably dead. */
const PROBE_TIMEOUT_MS = 2500;
const HEARTBEAT_DEFAULT_MS = 25_000;
/** A timer that is this late tells that the machine slept. */
const SLEPT_MS = 5000;
/** A connection must have held this long before its failures are forgiven. */
const STABLE_MS = 5000;
/** How often a fresh token is asked for while the old one runs out; the gateway warns 60 s before. */
const TOKEN_RETRY_MS = 10_000;
/** WebSockets that do not open before HTTP is tried, every second time. */
const BLOCKED_AT_FIRST = 2;
/** The same where one has opened before: then it is rather the gateway that is away. */
const BLOCKED_AFTER_SUCCESS = 6;
/** Where WebSockets did not open they are left alone this long; then the network may be another one. */
const BLOCKED_MS = 10 * 60_000;
/** No gateway asks for more patience than this; a wrong clock or header might. */
const ADVICE_MS_MAX = 5 * 60_000;
/** The state before anybody follows a session. */
export const IDLE = {
    status: "idle",
    online: true,
    failures: 0,
    retryAt: null,
    error: null,
    transport: "websocket",
    server: null,
};
/** One connection over many sockets. */
export class Connection {
    #owner;
    #timers = new Map();
    #state = IDLE;
    #socket = null;
    #isReady = false;
    /** Tells a late token from one that is still wanted. */
    #attempt = 0;
    /** Sockets in a row that came to nothing. */
    #unopened = 0;
    #hasOpened = false;
    /** Until then HTTP is tried first. */
    #blockedUntil = 0;
    #heartbeatMs = HEARTBEAT_DEFAULT_MS;
    #heardAt = 0;
    /** Before this time the gateway does not want to see us. */
    #notBefore = 0;
    #used = null;
    /** Why the gateway last ended a subscription on this socket: a 4503 that follows means the same. */
    #withdrawal = null;
    /** A token that does not do; `isExpired` when a fresh one of the same user will come by itself. */
    #refused = null;
    constructor(owner) {
        this.#owner = owner;
    }
    /** Connects, if it is not connected or about to be. */
    start() {
        if (this.#state.status === "idle")
            this.#connect();
    }
    /** Closes; a later `start` begins anew. */
    end() {
        this.#drop();
        this.#set({ ...IDLE, online: this.#state.online });
    }
    /** The page woke up, the network came or went, or somebody pressed a button. */
    on(signal) {
        if (signal !== "wake")
            this.#set({ online: signal === "online" });
        // What the browser says of the network is a hint: a socket to this machine outlives a pulled cable.
        if (this.#isReady)
            this.#probe(PROBE_TIMEOUT_MS);
        else if (this.#state.status === "waiting" && signal !== "offline")
            this.#retryAt(this.#owner.world.now());
    }
    /** There may be another token, or none: somebody signed in or out, or it was refreshed. */
    renewToken() {
        const { status } = this.#state;
        if (this.#isReady)
            void this.#renew("once");
        else if (status === "waiting")
            this.#retryAt(this.#owner.world.now());
        else if (status === "connecting" || status === "stopped")
            this.#connect();
    }
    /** Sends a frame; false when there is no signed-in socket to send it on. */
    send(frame) {
        return this.#isReady && this.#put(frame);
    }
    /** The owner has what it wanted; from here on the connection may prove that it is stable. */
    settle() {
        this.#unopened = 0;
        const now = this.#owner.world.now();
        const isBlocked = this.#state.transport === "http" && !this.#hasOpened;
        if (isBlocked && now >= this.#blockedUntil)
            this.#blockedUntil = now + BLOCKED_MS;
        this.#after("stable", STABLE_MS, () => this.#set({ failures: 0 }));
    }
    #connect() {
        this.#drop();
        const transport = this.#choose();
        this.#set({ status: "connecting", retryAt: null, error: null, transport });
        this.#after("welcome", WELCOME_TIMEOUT_MS, () => this.#fail(1006));
        void this.#dial(transport, this.#attempt);
    }
    async #dial(transport, attempt) {
        try {
            const token = await this.#owner.token();
            if (attempt !== this.#attempt)
                return;
            if (this.#refused?.token === token)
                return this.#onNoFreshToken(this.#refused.isExpired);
            this.#refused = null;
            this.#used = token;
            this.#unopened += 1;
            const socket = await this.#owner.open(transport);
            if (attempt !== this.#attempt)
                return socket.close();
            this.#socket = socket;
            this.#heardAt = this.#owner.world.now();
            socket.onmessage = ({ data }) => this.#socket === socket && this.#onText(data);
            socket.onclose = ({ code, retryAfterMs }) => this.#socket === socket && this.#fail(code, retryAfterMs);
            socket.onerror = () => { };
        }
        catch (error) {
            if (attempt !== this.#attempt)
                return;
            if (error instanceof StoppedError)
                this.#stop(error);
            else
                this.#fail(1006);
        }
    }
    /** HTTP is for where WebSockets are blocked: they never opened, or do not open any more however often it is tried. */
    #choose() {
        if (this.#unopened === 0)
            return this.#owner.world.now() < this.#blockedUntil ? "http" : "websocket";
        const isPatient = this.#unopened < (this.#hasOpened ? BLOCKED_AFTER_SUCCESS : BLOCKED_AT_FIRST);
        return isPatient || this.#unopened % 2 === 1 ? "websocket" : "http";
    }
    #onText(text) {
        this.#heardAt = this.#owner.world.now();
        this.#cancel("pong");
        const frame = parseFrame(text);
        if (frame === null)
            return;
        switch (frame.type) {
            case "welcome":
                this.#heartbeatMs = frame.heartbeat_ms || HEARTBEAT_DEFAULT_MS;
                if (this.#state.transport === "websocket") {
                    this.#unopened = 0;
                    this.#hasOpened = true;
                }
                this.#set({ server: frame.server ?? null });
                if (this.#used === null)
                    this.#onReady(null);
                else
                    this.#put({ type: "auth", id: AUTH_ID, token: this.#used });
                return;
            case "authenticated":
                if (!this.#isReady)
                    this.#onReady(frame.sub);
                return;
            case "token_expiring":
                void this.#renew("until_fresh");
                return;
            case "reconnect":
                this.#onAdvice(frame.after_ms ?? 0);
                return;
            case "unsubscribed":
                this.#withdrawal = frame.reason ?? this.#withdrawal;
                break;
            case "error":
                if (frame.id === AUTH_ID)
                    return this.#onAuthRefused(frame.retry_after_ms);
        }
        if (this.#isReady)
            this.#owner.onFrame(frame);
    }
    #onReady(sub) {
        this.#cancel("welcome");
        this.#isReady = true;
        this.#set({ status: "open" });
        this.#watch();
        this.#owner.onIdentified(sub);
        this.#owner.onReady();
    }
    #onAuthRefused(retryAfterMs) {
        if (!this.#isReady)
            return this.#fail(retryAfterMs === undefined ? 4501 : 1013, retryAfterMs);
        // On an open socket the old token still holds; 4001 comes when it does not.
        this.#used = NO_TOKEN;
        if (retryAfterMs !== undefined)
            this.#after("token", retryAfterMs, () => void this.#renew("once"));
    }
    #onNoFreshToken(isExpired) {
        if (isExpired)
            this.#fail(1006);
        else
            this.#stop(new StoppedError("unauthorized", "the access token is not valid, or one is needed", 4501));
    }
    /** Signs in anew on the open socket, where there is another token. */
    async #renew(how) {
        const attempt = this.#attempt;
        const token = await this.#owner.token().catch(() => this.#used);
        if (attempt !== this.#attempt)
            return;
        if (token === this.#used) {
            if (how === "until_fresh")
                this.#after("token", TOKEN_RETRY_MS, () => void this.#renew(how));
        }
        else if (token === null || this.#used === null)
            this.#connectAnew();
        else {
            this.#used = token;
            this.#put({ type: "auth", id: AUTH_ID, token });
        }
    }
    #connectAnew() {
        this.#lose();
        this.#connect();
    }
    /** The gateway is leaving: go when it says, on our own if it does not close first. */
    #onAdvice(afterMs) {
        const wait = Math.min(Math.max(0, afterMs), ADVICE_MS_MAX);
        this.#notBefore = this.#owner.world.now() + wait;
        this.#after("leave", wait, () => this.#fail(1012));
    }
    /**
     * Browsers hide pings, so silence is broken by our own. A timer that fires far too late means that the machine slept,
     * and then the answer has to come quickly.
     */
    #watch() {
        const due = this.#owner.world.now() + this.#heartbeatMs;
        this.#after("liveness", this.#heartbeatMs, () => {
            const now = this.#owner.world.now();
            if (now - due > SLEPT_MS)
                this.#probe(PROBE_TIMEOUT_MS);
            else if (now - this.#heardAt >= this.#heartbeatMs - 1000)
                this.#probe(PONG_TIMEOUT_MS);
            this.#watch();
        });
    }
    /** Asks for a sign of life, and comes back on a new socket when there is none. */
    #probe(timeoutMs) {
        if (this.#timers.has("pong"))
            return;
        this.#put({ type: "ping" });
        this.#after("pong", timeoutMs, () => this.#fail(4009));
    }
    #fail(code, retryAfterMs) {
        const withdrawal = this.#withdrawal;
        const wasReady = this.#lose();
        const judgement = verdict(code);
        if (judgement === "stop")
            return this.#stop(new StoppedError(stopCode(code, withdrawal), `closed with ${code}`, code));
        if (judgement === "renew_token")
            this.#refused = { token: this.#used, isExpired: code === 4001 };
        const { world } = this.#owner;
        const now = world.now();
        if (retryAfterMs)
            this.#notBefore = now + Math.min(retryAfterMs, ADVICE_MS_MAX);
        const { failures } = this.#state;
        this.#set({ failures: failures + 1 });
        // A fresh token is at hand where the old one has just run out on an open socket: nothing to wait for.
        if (judgement === "renew_token" && wasReady)
            this.#connect();
        else
            this.#retryAt(this.#notBefore > now ? this.#notBefore : now + delayMs(failures, code, world.random()));
    }
    #retryAt(time) {
        const now = this.#owner.world.now();
        const retryAt = Math.max(time, this.#notBefore, now);
        this.#set({ status: "waiting", retryAt });
        this.#after("retry", retryAt - now, () => this.#connect());
    }
    #stop(error) {
        this.#lose();
        this.#set({ status: "stopped", retryAt: null, error });
    }
    /** Gives the socket up and tells the owner; whether it had been ready. */
    #lose() {
        const wasReady = this.#isReady;
        this.#drop();
        if (wasReady)
            this.#owner.onLost();
        return wasReady;
    }
    #drop() {
        for (const name of [...this.#timers.keys()])
            this.#cancel(name);
        const socket = this.#socket;
        this.#attempt += 1;
        this.#socket = null;
        this.#withdrawal = null;
        this.#isReady = false;
        if (socket && socket.readyState <= 1)
            socket.close(1000);
    }
    #put(frame) {
        if (this.#socket?.readyState !== 1)
            return false;
        this.#socket.send(JSON.stringify(frame));
        return true;
    }
    #set(change) {
        this.#state = { ...this.#state, ...change };
        this.#owner.onState(this.#state);
    }
    #after(name, ms, act) {
        this.#cancel(name);
        const fire = () => {
            this.#timers.delete(name);
            act();
        };
        this.#timers.set(name, this.#owner.world.setTimer(fire, ms));
    }
    #cancel(name) {
        if (this.#timers.has(name))
            this.#owner.world.clearTimer(this.#timers.get(name));
        this.#timers.delete(name);
    }
}
/** The owner's frames are numbered from 1. */
const AUTH_ID = 0;
/** In the place of a token that was refused, so that the same one may be given again. */
const NO_TOKEN = "";
