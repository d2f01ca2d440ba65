// Made by `npm run pages` from client/src. Change it there.
/** The client: one connection, shared by all followed sessions. */
import { ACCESS_WITHDRAWN } from "./backoff.js";
import { Connection } from "./connection.js";
import { IDLE } from "./connection_state.js";
import { StoppedError, TokenError } from "./errors.js";
import { Follower } from "./follower.js";
import { normalId } from "./ids.js";
import { Session } from "./session.js";
import { INITIAL_STATE } from "./state.js";
import { Tokens } from "./tokens.js";
import { realWorld } from "./world.js";
/** The number of events that a first subscription requests by default. */
const HISTORY = 50;
/** The client keeps a released session for this long, so that a change of route does not cost a new subscription. */
const LINGER_MS = 3000;
/** A client of one gateway. It connects when the app follows its first session, and disconnects after the last one. */
export class Usher {
    #world;
    #options;
    #caller;
    #connection;
    #followers = new Map();
    #asked = new Map();
    #listeners = new Set();
    #state = IDLE;
    #nextId = 1;
    #stopWatching = () => { };
    constructor(options, world) {
        this.#world = world;
        this.#options = options;
        const tokens = new Tokens(world, options.getToken);
        // Without a usable token, HTTP calls read without one, like the socket.
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
    /** The state of the connection. */
    get connection() {
        return this.#state;
    }
    /** Calls `listener` after each change of the connection. Returns a function that removes the listener. */
    onConnection(listener) {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    }
    /** Follows a session. Calls with the same id share one subscription. Close the returned handle after use. */
    session(given) {
        const id = normalId(given);
        const entry = this.#entry(id);
        this.#world.clearTimer(entry.linger);
        const loadOlder = (follower, limit) => this.#loadOlder(follower, limit);
        const session = new Session(entry.follower, loadOlder, this.#world.uuid, () => {
            entry.holders.delete(session);
            if (entry.holders.size > 0)
                return;
            // The entry is gone if the app has closed the client in the meantime.
            if (this.#followers.get(id) === entry)
                entry.linger = this.#world.setTimer(() => this.#leave(id), LINGER_MS);
        });
        entry.holders.add(session);
        return session;
    }
    /** Returns the state of a session without following it. */
    peek(id) {
        return this.#followers.get(normalId(id))?.follower.state ?? INITIAL_STATE;
    }
    /**
     * Returns the time on the client's clock, in milliseconds since 1970. Compare `connection.retryAt` with this time and
     * not with the device clock, which can be set back.
     */
    now() {
        return this.#world.now();
    }
    /** Retries immediately, or checks that the connection is alive. Call it after the app returns from the background. */
    wake() {
        this.#connection.on("wake");
    }
    /** Asks for the token again and reconnects if necessary. Call it after a sign-in, or from a "Try again" button. */
    renewToken() {
        this.#connection.renewToken();
    }
    /** Closes all sessions and the connection. Loops over sessions end, and unanswered requests fail with `closed`. */
    close() {
        for (const [id, entry] of [...this.#followers]) {
            for (const session of [...entry.holders])
                session.close();
            this.#world.clearTimer(entry.linger);
            this.#leave(id);
        }
    }
    #entry(id) {
        const known = this.#followers.get(id);
        if (known)
            return known;
        const line = {
            world: this.#world,
            ask: this.#ask.bind(this),
            tell: this.#connection.send.bind(this.#connection),
            settle: () => this.#connection.settle(),
            trouble: () => this.#connection.trouble,
        };
        const follower = new Follower(id, line, this.#options.history ?? HISTORY);
        const entry = { follower, holders: new Set(), linger: null };
        this.#followers.set(id, entry);
        if (this.#followers.size === 1)
            this.#begin();
        else if (this.#state.status === "open")
            follower.subscribe();
        // The gateway closed the socket because it withdrew access to the last session. It may allow this one.
        else if (this.#isWithdrawn())
            this.#connection.renewToken();
        else if (this.#state.status === "stopped" && this.#state.error)
            follower.stop(this.#state.error);
        return entry;
    }
    #isWithdrawn() {
        const { error } = this.#state;
        return error instanceof StoppedError && error.closeCode === ACCESS_WITHDRAWN;
    }
    #begin() {
        const stopSignals = this.#world.watch((signal) => this.#connection.on(signal));
        const stopTokens = this.#options.onTokenChange?.(() => this.#connection.renewToken());
        this.#stopWatching = () => {
            stopSignals();
            stopTokens?.();
        };
        this.#connection.start();
    }
    #leave(id) {
        this.#followers.get(id)?.follower.close();
        this.#followers.delete(id);
        if (this.#followers.size > 0)
            return;
        this.#stopWatching();
        this.#connection.end();
        this.#asked.clear();
    }
    #open(transport) {
        if (transport === "http")
            return import("./http_socket.js").then(({ HttpSocket }) => new HttpSocket(this.#caller));
        return this.#world.openSocket(`${this.#caller.base.replace(/^http/, "ws")}/v1/socket`);
    }
    #ask(frame, onAnswer) {
        const id = this.#nextId++;
        // Registers the answer before sending: the connection answers a frame that is too large immediately.
        this.#asked.set(id, onAnswer);
        if (this.#connection.send({ ...frame, id }))
            return id;
        this.#asked.delete(id);
        return null;
    }
    #onFrame(frame) {
        if ("id" in frame && frame.id !== undefined) {
            const onAnswer = this.#asked.get(frame.id);
            this.#asked.delete(frame.id);
            onAnswer?.(frame);
        }
        if ("session" in frame)
            this.#followers.get(frame.session)?.follower.onFrame(frame);
    }
    #onState(state) {
        const before = this.#state;
        this.#state = state;
        const { status, error } = state;
        // A session that has stopped with its own error keeps that error.
        if (status === "stopped" && error && error !== before.error)
            this.#each((follower) => follower.state.status !== "stopped" && follower.stop(error));
        if (status === "connecting" && before.status === "stopped")
            this.#each((follower) => follower.dispatch({ type: "connecting" }));
        // A listener may remove another listener, or cause a newer state. This loop skips removed listeners, and stops when
        // the state is out of date.
        for (const listener of [...this.#listeners]) {
            if (this.#state !== state)
                return;
            if (this.#listeners.has(listener))
                listener(state);
        }
    }
    #onLost() {
        this.#asked.clear();
        this.#each((follower) => follower.onLost());
    }
    async #loadOlder(follower, limit) {
        const { before } = follower.state.chat;
        if (before === null)
            return false;
        // Loads the HTTP module on first use: most viewers never load older messages.
        const { fetchOlder } = await import("./http.js");
        const page = await fetchOlder(this.#caller, follower.id, before, limit);
        // Drops the page if the start of the window changed during the request.
        if (follower.state.chat.before !== before)
            return true;
        follower.dispatch({ type: "older", page });
        return follower.state.chat.before !== before;
    }
    #each(act) {
        // A listener may close a session, or the whole client, during this loop.
        for (const [id, entry] of [...this.#followers])
            if (this.#followers.get(id) === entry)
                act(entry.follower);
    }
}
/** Creates a client for the gateway at `url`. It connects when the app follows its first session. */
export function connect(options) {
    return new Usher(options, realWorld(options));
}
function baseOf(url) {
    if (!/^(http|ws)s?:\/\//.test(url))
        throw new StoppedError("bad_request", `the URL of the gateway must start with https:// or wss://, not ${url}`);
    return url.replace(/^ws/, "http").replace(/(\/v1\/socket)?\/*$/, "");
}
