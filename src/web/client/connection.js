// Made by `npm run pages` from client/src. Change it there.
/**
 * Keeps one socket to the gateway open: connects, signs in, watches that it lives, comes back.
 *
 * Knows nothing of sessions. The owner is told through callbacks: `onReady` (signed in; subscribe now), `onFrame`,
 * `onLost` and `onState`. A socket that was given up may still speak; only the present one is heard. A callback may end the
 * connection: `#attempt` tells.
 *
 * If the app has no usable access token, the connection reads without one, so that public sessions stay visible. It keeps
 * asking for a token, and signs in on the open socket when there is one.
 */
import { ACCESS_WITHDRAWN, advisedMs, delayMs, stopCode, verdict } from "./backoff.js";
import { IDLE } from "./connection_state.js";
import { StoppedError, TokenError } from "./errors.js";
import { Timers } from "./timers.js";
import { expired, refusalOfToken, unauthorized } from "./tokens.js";
import { isLonger, parseFrame } from "./wire.js";
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
/** A refused token is not refreshed more often than this, since each refresh may tell us to look again. */
const REFRESH_MS_MIN = 20_000;
/** Between two attempts to get a token while none can be had. */
const TOKEN_PAUSE_MS_MIN = 500;
/** WebSockets that do not open before HTTP is tried, every second time. */
const BLOCKED_AT_FIRST = 2;
/** The same where one has opened before: then it is rather the gateway that is away. */
const BLOCKED_AFTER_SUCCESS = 6;
/** Where WebSockets did not open they are left alone this long; then the network may be another one. */
const BLOCKED_MS = 10 * 60_000;
/** A gateway's heartbeat is not shorter than this. */
const HEARTBEAT_MS_MIN = 1000;
/** One connection over many sockets. */
export class Connection {
    #owner;
    #timers;
    #state = IDLE;
    #socket = null;
    #isReady = false;
    /** Whether an open socket that reads without a token has sent one. */
    #isUpgrading = false;
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
    #frameBytesMax = Number.POSITIVE_INFINITY;
    #used = null;
    /** Why the gateway last ended a subscription on this socket: a 4503 that follows means the same. */
    #withdrawal = null;
    /** Whether the token may have changed since it was asked for. */
    #mayBeOld = false;
    /** A token that the gateway does not take, and what its bearer is told if there is no other: see `TokenError`. */
    #refused = null;
    #refreshedAt = Number.NEGATIVE_INFINITY;
    /** Why there is no token; null while there is one, or nobody is signed in. */
    #trouble = null;
    #tokenFailures = 0;
    constructor(owner) {
        this.#owner = owner;
        this.#timers = new Timers(owner.world);
    }
    /** Why this socket reads without a token, or will; null if it bears one, or needs none. */
    get trouble() {
        return this.#isReady && this.#used !== null && !this.#isUpgrading ? null : this.#trouble;
    }
    /** Connects, if it is not connected or about to be. */
    start() {
        if (this.#state.status === "idle")
            this.#connect();
    }
    /** Closes; a later `start` begins anew. */
    end() {
        this.#drop();
        this.#trouble = null;
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
        if (this.#isReady && this.trouble && signal !== "offline")
            void this.#renew("until_fresh");
    }
    /** There may be another token, or none: somebody signed in or out, or it was refreshed. */
    renewToken() {
        const { status } = this.#state;
        this.#mayBeOld = true;
        if (this.#isReady)
            void this.#renew("once");
        else if (status === "waiting")
            this.#retryAt(this.#owner.world.now());
        else if (status === "stopped")
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
        this.#timers.after("stable", STABLE_MS, () => this.#set({ failures: 0 }));
    }
    #connect() {
        this.#drop();
        const [transport, attempt] = [this.#choose(), this.#attempt];
        this.#set({ status: "connecting", retryAt: null, error: this.#trouble, transport });
        if (attempt === this.#attempt)
            void this.#dial(transport, attempt);
    }
    async #dial(transport, attempt) {
        try {
            const token = await this.#chooseToken();
            if (attempt !== this.#attempt)
                return;
            this.#take(token);
            this.#timers.after("welcome", WELCOME_TIMEOUT_MS, () => this.#fail(1006));
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
            this.#onDialFailed(error, attempt);
        }
    }
    #onDialFailed(error, attempt) {
        if (attempt !== this.#attempt)
            return;
        if (error instanceof StoppedError)
            this.#stop(error);
        else
            this.#fail(1006);
    }
    /** The token to sign in with, or null to read without one. Throws if the gateway has refused what there is. */
    async #chooseToken() {
        const attempt = this.#attempt;
        try {
            const token = await this.#askToken(true);
            if (attempt === this.#attempt)
                this.#setTrouble(null);
            return token;
        }
        catch (error) {
            if (attempt !== this.#attempt || !(error instanceof TokenError))
                throw error;
            const isNew = this.#trouble?.code !== error.code;
            this.#setTrouble(error);
            // A fresh token mostly comes within a moment, so the one that ran out is asked for once more before.
            if (isNew && error.code === "token_expired")
                throw error;
            return null;
        }
    }
    /** A token that the gateway has not refused. */
    async #askToken(mayRefresh) {
        const { world, token } = this.#owner;
        const refused = this.#refused;
        const refresh = mayRefresh && refused !== null && world.now() - this.#refreshedAt >= REFRESH_MS_MIN;
        this.#mayBeOld = false;
        const found = await token(refresh);
        if (refresh)
            this.#refreshedAt = world.now();
        if (refused !== null && refused.token === found && refused === this.#refused)
            throw refused.error;
        return found;
    }
    /** Takes a token, or the lack of one, for the next sign-in. */
    #take(token) {
        this.#used = token;
        if (!this.#trouble)
            this.#refused = null;
    }
    #setTrouble(trouble) {
        this.#trouble = trouble;
        if (trouble === null)
            this.#tokenFailures = 0;
        if (this.#state.error !== trouble)
            this.#set({ error: trouble });
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
        this.#timers.cancel("pong");
        const frame = parseFrame(text);
        if (frame === null)
            return;
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
                if (!this.#isReady || this.#isUpgrading)
                    this.#onReady(frame.sub);
                return;
            case "token_expiring":
                return void this.#renew("until_fresh");
            case "reconnect":
                return this.#onAdvice(frame.after_ms ?? 0);
            case "unsubscribed":
                this.#withdrawal = frame.reason ?? this.#withdrawal;
                break;
            case "error":
                if (frame.id === AUTH_ID)
                    return this.#onAuthRefused(frame);
        }
        if (this.#isReady)
            this.#owner.onFrame(frame);
    }
    #onWelcome(server) {
        const attempt = this.#attempt;
        this.#set({ server });
        if (attempt !== this.#attempt)
            return;
        // Somebody signed in or out after the token was asked for: the new one goes out on this socket.
        if (this.#mayBeOld)
            void this.#chooseAgain(attempt);
        else
            this.#signIn();
    }
    async #chooseAgain(attempt) {
        try {
            const token = await this.#chooseToken();
            if (attempt !== this.#attempt)
                return;
            this.#take(token);
            this.#signIn();
        }
        catch (error) {
            this.#onDialFailed(error, attempt);
        }
    }
    #signIn() {
        if (this.#used === null)
            this.#onReady(null);
        else
            this.#auth(this.#used);
    }
    #auth(token) {
        this.#used = token;
        this.#put({ type: "auth", id: AUTH_ID, token });
    }
    #onReady(sub) {
        const attempt = this.#attempt;
        this.#timers.cancel("welcome");
        this.#isReady = true;
        this.#isUpgrading = false;
        if (this.#used !== null)
            this.#setTrouble(null);
        if (attempt === this.#attempt)
            this.#set({ status: "open" });
        if (attempt !== this.#attempt)
            return;
        this.#watch();
        // Whose token is missing for the moment is still the same viewer.
        if (!this.#trouble)
            this.#owner.onIdentified(sub);
        if (attempt === this.#attempt)
            this.#owner.onReady();
        if (attempt !== this.#attempt)
            return;
        if (this.#trouble)
            this.#askLater();
        else if (this.#mayBeOld)
            void this.#renew("once");
    }
    #onAuthRefused(answer) {
        const { retry_after_ms: wait } = answer;
        if (wait !== undefined) {
            if (!this.#isReady)
                return this.#fail(1013, wait);
            this.#used = this.#isUpgrading ? null : NO_TOKEN;
            this.#isUpgrading = false;
            return this.#timers.after("token", advisedMs(wait, TOKEN_PAUSE_MS_MIN), () => void this.#renew("once"));
        }
        this.#refused = { token: this.#used, error: refusalOfToken(answer, this.#used) };
        if (!this.#isReady || this.#isUpgrading)
            return this.#fail(4501);
        // On an open socket the old token still holds; 4001 comes when it does not.
        this.#used = NO_TOKEN;
    }
    /** Signs in anew on the open socket, where there is another token. */
    async #renew(how) {
        const attempt = this.#attempt;
        const again = () => this.#timers.after("token", TOKEN_RETRY_MS, () => void this.#renew(how));
        try {
            const token = await this.#askToken(how === "until_fresh");
            if (attempt !== this.#attempt)
                return;
            // This socket, which has read without a token, becomes the viewer's again.
            if (this.trouble && token !== null)
                return this.#upgrade(token);
            const isOther = token === null || this.#used === null;
            if (this.trouble || (token !== this.#used && isOther))
                return this.#connectAnew();
            this.#setTrouble(null);
            if (attempt !== this.#attempt)
                return;
            if (token !== this.#used && token !== null)
                this.#auth(token);
            else if (how === "until_fresh")
                again();
        }
        catch (error) {
            if (attempt === this.#attempt && error instanceof TokenError)
                this.#setTrouble(error);
            if (attempt !== this.#attempt)
                return;
            // A socket that bears a token goes on with it until the gateway says otherwise.
            if (this.trouble)
                this.#askLater();
            else if (error instanceof TokenError || how === "until_fresh")
                again();
        }
    }
    #upgrade(token) {
        this.#refused = null;
        this.#isUpgrading = true;
        this.#auth(token);
    }
    /** Asks for the missing token again, less and less often. */
    #askLater() {
        const wait = TOKEN_PAUSE_MS_MIN + delayMs(this.#tokenFailures, 1006, this.#owner.world.random());
        this.#tokenFailures += 1;
        this.#timers.after("token", wait, () => void this.#renew("until_fresh"));
    }
    #connectAnew() {
        if (this.#lose() !== "ended")
            this.#connect();
    }
    /** The gateway is leaving: go when it says, on our own if it does not close first. */
    #onAdvice(afterMs) {
        const wait = advisedMs(afterMs, 0);
        this.#notBefore = this.#owner.world.now() + wait;
        this.#timers.after("leave", wait, () => this.#fail(1012));
    }
    /**
     * Browsers hide pings, so silence is broken by our own. A timer that fires far too late means that the machine slept,
     * and then the answer has to come quickly.
     */
    #watch() {
        const due = this.#owner.world.now() + this.#heartbeatMs;
        this.#timers.after("liveness", this.#heartbeatMs, () => {
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
        this.#timers.after("pong", timeoutMs, () => this.#fail(4009));
    }
    #fail(code, retryAfterMs) {
        const [trouble, withdrawal] = [this.trouble, this.#withdrawal];
        const found = this.#lose();
        if (found === "ended")
            return;
        // What is refused to a reader without a token says nothing of the viewer whose token is missing for the moment.
        const isRefusal = code === 4501 || code === ACCESS_WITHDRAWN;
        const judgement = trouble && isRefusal ? "retry" : verdict(code);
        if (judgement === "stop")
            return this.#stop(new StoppedError(stopCode(code, withdrawal), `closed with ${code}`, code));
        // A refused token whose name is known keeps it.
        if (judgement === "renew_token" && !(this.#refused && [this.#refused.token, NO_TOKEN].includes(this.#used)))
            this.#refused = { token: this.#used, error: code === 4001 ? expired() : unauthorized() };
        const { world } = this.#owner;
        const now = world.now();
        if (retryAfterMs)
            this.#notBefore = now + advisedMs(retryAfterMs, 0);
        const { failures } = this.#state;
        const attempt = this.#attempt;
        this.#set({ failures: failures + 1 });
        if (attempt !== this.#attempt)
            return;
        // A fresh token is at hand where the old one has just run out on an open socket: nothing to wait for.
        if (judgement === "renew_token" && found === "ready")
            this.#connect();
        else
            this.#retryAt(this.#notBefore > now ? this.#notBefore : now + delayMs(failures, code, world.random()));
    }
    #retryAt(time) {
        const now = this.#owner.world.now();
        const retryAt = Math.max(time, this.#notBefore, now);
        const attempt = this.#attempt;
        this.#set({ status: "waiting", retryAt });
        if (attempt !== this.#attempt)
            return;
        this.#timers.after("retry", retryAt - now, () => this.#connect());
    }
    #stop(error) {
        if (this.#lose() === "ended")
            return;
        this.#trouble = null;
        this.#set({ status: "stopped", retryAt: null, error });
    }
    /** Gives the socket up and tells the owner, who may end or restart the connection; says what the socket was. */
    #lose() {
        const wasReady = this.#isReady;
        this.#drop();
        const attempt = this.#attempt;
        if (wasReady)
            this.#owner.onLost();
        return attempt !== this.#attempt ? "ended" : wasReady ? "ready" : "unready";
    }
    #drop() {
        this.#timers.clear();
        const socket = this.#socket;
        this.#attempt += 1;
        this.#socket = null;
        this.#withdrawal = null;
        this.#isReady = false;
        this.#isUpgrading = false;
        if (socket && socket.readyState <= 1)
            socket.close(1000);
    }
    #put(frame) {
        if (this.#socket?.readyState !== 1)
            return false;
        const text = JSON.stringify(frame);
        // The gateway would close the socket for it, again and again.
        if (isLonger(text, this.#frameBytesMax))
            this.#onTooLarge(frame);
        else
            this.#socket.send(text);
        return true;
    }
    #onTooLarge(frame) {
        const message = `the frame is larger than ${this.#frameBytesMax} bytes`;
        const id = typeof frame.id === "number" ? { id: frame.id } : {};
        const answer = { type: "error", code: "too_large", message, ...id };
        if (frame.type === "auth")
            this.#onAuthRefused(answer);
        else
            this.#owner.onFrame(answer);
    }
    #set(change) {
        this.#state = { ...this.#state, ...change };
        this.#owner.onState(this.#state);
    }
}
/** The owner's frames are numbered from 1. */
const AUTH_ID = 0;
/** In the place of a token that was refused, so that the same one may be given again. */
const NO_TOKEN = "";
