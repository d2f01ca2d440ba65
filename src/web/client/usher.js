// Made by `npm run pages` from client/src. Change it there.
/** The client: one connection, shared by all the sessions that are followed. */
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
/** Events that a first subscription asks for. */
const HISTORY = 50;
/** A session that nobody holds is left after this time: a route that changes does not cost a subscription. */
const LINGER_MS = 3000;
/** A client of one gateway. It connects when the first session is followed, and leaves after the last. */
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
    get connection() {
        return this.#state;
    }
    /** Calls `listener` whenever the connection changes; gives how to stop. */
    onConnection(listener) {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    }
    /** Follows a session. Everybody who asks for the same one shares it; close what you get when you are done. */
    session(given) {
        const id = normalId(given);
        const entry = this.#entry(id);
        this.#world.clearTimer(entry.linger);
        const loadOlder = (follower, limit) => this.#loadOlder(follower, limit);
        const session = new Session(entry.follower, loadOlder, this.#world.uuid, () => {
            entry.holders.delete(session);
            if (entry.holders.size > 0)
                return;
            // Held by nobody any more: the client was closed meanwhile.
            if (this.#followers.get(id) === entry)
                entry.linger = this.#world.setTimer(() => this.#leave(id), LINGER_MS);
        });
        entry.holders.add(session);
        return session;
    }
    /** What is known of a session, without following it. */
    peek(id) {
        return this.#followers.get(normalId(id))?.follower.state ?? INITIAL_STATE;
    }
    /**
     * The time as the client measures it, in milliseconds since 1970. Compare `connection.retryAt` with this and not with the
     * device clock, which may be set back.
     */
    now() {
        return this.#world.now();
    }
    /** Tries now what would be tried later, and looks whether the connection lives. For apps that know of waking up. */
    wake() {
        this.#connection.on("wake");
    }
    /** There may be another token, or somebody pressed "try again" after the connection had stopped. */
    renewToken() {
        this.#connection.renewToken();
    }
    /** Closes and leaves all sessions: loops over them end, and what is on its way fails as `closed`. */
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
        // The last subscription was taken away, and the socket with it; another session is another matter.
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
        // Before it is sent: a frame that is too large is answered at once.
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
        // A session that was refused by name keeps that name.
        if (status === "stopped" && error && error !== before.error)
            this.#each((follower) => follower.state.status !== "stopped" && follower.stop(error));
        if (status === "connecting" && before.status === "stopped")
            this.#each((follower) => follower.dispatch({ type: "connecting" }));
        // One that another listener has taken off is not told any more, nor is anybody of what is over already.
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
        // Most viewers never read back: the HTTP calls are loaded by the first who does.
        const { fetchOlder } = await import("./http.js");
        const page = await fetchOlder(this.#caller, follower.id, before, limit);
        // The window may have moved on, or begun afresh, while the page was on its way.
        if (follower.state.chat.before !== before)
            return true;
        follower.dispatch({ type: "older", page });
        return follower.state.chat.before !== before;
    }
    #each(act) {
        // A listener that is told in between may have left one of them, or closed the client.
        for (const [id, entry] of [...this.#followers])
            if (this.#followers.get(id) === entry)
                act(entry.follower);
    }
}
/** Makes a client of the gateway at `url`. Nothing happens until a session is followed. */
export function connect(options) {
    return new Usher(options, realWorld(options));
}
function baseOf(url) {
    if (!/^(http|ws)s?:\/\//.test(url))
        throw new StoppedError("bad_request", `not the URL of a gateway: ${url}`);
    return url.replace(/^ws/, "http").replace(/(\/v1\/socket)?\/*$/, "");
}
