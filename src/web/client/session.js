// Made by `npm run pages` from client/src. Change it there.
/** One followed session, as an app holds it. */
import { hasOlder } from "./chat.js";
import { AbandonedError } from "./errors.js";
import { normalId } from "./ids.js";
/** Events that a loop may fall behind before it ends with `slow_consumer`. */
const BEHIND_MAX = 1000;
/** Messages in one page of older ones. */
const PAGE = 50;
/** One session. Others may hold it too; it is left when the last of them closes it. */
export class Session {
    #follower;
    #loadOlder;
    #release;
    #uuid;
    #endings = new Set();
    #isClosed = false;
    constructor(follower, loadOlder, uuid, release) {
        this.#follower = follower;
        this.#loadOlder = loadOlder;
        this.#uuid = uuid;
        this.#release = release;
    }
    /** The session's uuid. */
    get id() {
        return this.#follower.id;
    }
    /** Everything that is known of it, as one immutable value. */
    get state() {
        return this.#follower.state;
    }
    /** How it stands. */
    get status() {
        return this.state.status;
    }
    /** The session itself: title, status, slow mode; null until the first subscription. */
    get info() {
        return this.state.info;
    }
    /** What this viewer may do in it. */
    get can() {
        return this.state.can;
    }
    /** The window of the chat, oldest first. */
    get messages() {
        return this.state.chat.messages;
    }
    /** One's own messages that are on their way or failed. */
    get pending() {
        return this.state.chat.pending;
    }
    /** Whether there may be messages older than the window. */
    get hasOlder() {
        return hasOlder(this.state.chat);
    }
    /** How many are watching, or null while that is not known. */
    get viewers() {
        return this.state.viewers;
    }
    /** The numbers seen and what was counted on the way: the promise, checked. */
    get continuity() {
        return this.state.continuity;
    }
    /** A voting with its counts: that of the id, or the open one, or the one that closed last. */
    tally(voting) {
        return findVoting(this.state.votings, voting);
    }
    /**
     * Sends a message and shows it at once among `pending`. Resolves to its number when it is committed; rejects by name.
     * A body that does not show (white space, zero-width characters) is refused as `bad_request`.
     * A lost connection does not fail it: it goes out again under its nonce, and counts once.
     */
    send(body, { replyTo, nonce } = {}) {
        return this.#follower.send(body, replyTo ?? null, nonce ?? this.#uuid());
    }
    /** Sends a failed message again under its nonce. */
    resend(nonce) {
        return this.#follower.resend(nonce);
    }
    /** Forgets a failed message. */
    discard(nonce) {
        this.#follower.discard(nonce);
    }
    /** Votes, changes the vote, or withdraws it with null. Shown at once, taken back if it is refused. */
    vote(voting, movie) {
        return this.#follower.vote(voting, movie);
    }
    /** Loads older messages into the window; false when there are none, or no room for more. */
    older(limit = PAGE) {
        return this.#loadOlder(this.#follower, limit);
    }
    /**
     * Holds the window where it is, for a list that is scrolled up: what is read there stays, however much arrives. Ends with
     * `newest`. `state.chat.arrived` counts what comes meanwhile.
     */
    readBack() {
        this.#follower.dispatch({ type: "read_back" });
    }
    /** Back to the newest messages: what was loaded or held for reading back may go. */
    newest() {
        this.#follower.dispatch({ type: "newest" });
    }
    /** Calls `listener` whenever `name` happens; gives how to stop. */
    on(name, listener) {
        let isOn = true;
        const told = (state, previous) => {
            for (const value of TELLERS[name](state, previous))
                if (isOn)
                    tell(listener, value);
        };
        this.#follower.listeners.add(told);
        const off = () => {
            isOn = false;
            this.#follower.listeners.delete(told);
            this.#endings.delete(off);
        };
        this.#endings.add(off);
        return off;
    }
    /**
     * The events of the log from here on, each once and in order. The loop ends when the session is closed, and throws when
     * it is stopped, or when the loop itself falls too far behind.
     */
    [Symbol.asyncIterator]() {
        const queue = [];
        let error = this.state.error;
        let isDone = this.#isClosed;
        let wake = () => { };
        const stop = this.on("change", (state) => {
            error ??= state.error;
            wake();
        });
        const end = () => {
            this.#endings.delete(end);
            stop();
            off();
            isDone = true;
            wake();
        };
        const off = this.on("event", (event) => {
            queue.push(event);
            if (queue.length <= BEHIND_MAX)
                return;
            error = new AbandonedError("slow_consumer", `a loop fell ${BEHIND_MAX} events behind`);
            queue.length = 0;
            end();
        });
        this.#endings.add(end);
        return {
            async next() {
                for (;;) {
                    const value = queue.shift();
                    if (value !== undefined)
                        return { done: false, value };
                    if (error !== null) {
                        const thrown = error;
                        error = null;
                        end();
                        throw thrown;
                    }
                    if (isDone)
                        return { done: true, value: undefined };
                    await new Promise((resolve) => (wake = resolve));
                }
            },
            async return() {
                end();
                return { done: true, value: undefined };
            },
        };
    }
    /** Lets go of the session. */
    close() {
        if (this.#isClosed)
            return;
        this.#isClosed = true;
        for (const end of [...this.#endings])
            end();
        this.#release();
    }
}
/** The voting of that id; without one the open one, else the one that closed last. */
export function findVoting(votings, given) {
    if (given === undefined)
        return votings[0] ?? null;
    const id = normalId(given);
    return votings.find((voting) => voting.id === id) ?? null;
}
/** What of a change is worth which event. */
const TELLERS = {
    change: (state) => [state],
    event: (state, previous) => state.latest === previous.latest ? [] : state.latest.map((event) => ({ ...event, from: originOf(event, state) })),
    message: (state, previous) => TELLERS.event(state, previous).flatMap((event) => event.type === "chat.created" ? [{ ...event.data, seq: event.seq, from: event.from }] : []),
    failed: (state, previous) => state.chat.pending === previous.chat.pending
        ? []
        : state.chat.pending.filter((item) => item.status === "failed" && !previous.chat.pending.includes(item)),
    voting: (state, previous) => state.votings.filter((voting) => !previous.votings.includes(voting)),
    viewers: (state, previous) => (state.viewers === null || state.viewers === previous.viewers ? [] : [state.viewers]),
    status: (state, previous) => (state.status === previous.status ? [] : [state.status]),
    resume: grown("resumes"),
    reset: grown("resets"),
    discontinuity: (state, previous) => [
        ...new Set([...grown("gaps")(state, previous), ...grown("duplicates")(state, previous)]),
    ],
};
function originOf({ seq }, { head, isResumed }) {
    return seq > head ? "live" : isResumed ? "missed" : "history";
}
function grown(what) {
    return ({ continuity }, previous) => (continuity[what] > previous.continuity[what] ? [continuity] : []);
}
/** A listener that throws is its owner's affair; the others are told all the same. */
function tell(listener, value) {
    try {
        listener(value);
    }
    catch (error) {
        queueMicrotask(() => {
            throw error;
        });
    }
}
