// Made by `npm run pages` from client/src. Change it there.
/** The app's handle of one followed session. */
import { hasOlder } from "./chat.js";
import { AbandonedError } from "./errors.js";
import { normalId } from "./ids.js";
/** The most events that wait for a loop. With more, the loop ends with `slow_consumer`. */
const BEHIND_MAX = 1000;
/** The default number of messages in one page of older ones. */
const PAGE = 50;
/**
 * One followed session. Several `Session` objects may share one subscription. The client unsubscribes after the app has
 * closed the last of them.
 */
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
    /** The id of the session. */
    get id() {
        return this.#follower.id;
    }
    /** The whole state of the session, as one immutable value. */
    get state() {
        return this.#follower.state;
    }
    /** The status of the session. */
    get status() {
        return this.state.status;
    }
    /** Title, status, slow mode and other properties of the session; null until the first subscription. */
    get info() {
        return this.state.info;
    }
    /** The viewer's permissions in the session. */
    get can() {
        return this.state.can;
    }
    /** The messages in the chat window, oldest first. */
    get messages() {
        return this.state.chat.messages;
    }
    /** The viewer's own messages that are unanswered or failed. */
    get pending() {
        return this.state.chat.pending;
    }
    /** Whether messages older than the window may exist. */
    get hasOlder() {
        return hasOlder(this.state.chat);
    }
    /** The number of viewers; null until the gateway sends it. */
    get viewers() {
        return this.state.viewers;
    }
    /** The client's position in the log and its counters, which show that no event is missing. */
    get continuity() {
        return this.state.continuity;
    }
    /** Returns a poll with its counts: the one with this id; without an id the open one, or else the last closed one. */
    tally(voting) {
        return findVoting(this.state.votings, voting);
    }
    /**
     * Sends a message and shows it immediately in `pending`. Resolves to its event number after the commit. Rejects with
     * an `UsherError`.
     *
     * The gateway refuses a body that contains only white space or invisible characters, with `bad_request`. If the
     * connection is lost, the client sends the message again with the same nonce, so it counts once.
     */
    send(body, { replyTo, nonce } = {}) {
        return this.#follower.send(body, replyTo ?? null, nonce ?? this.#uuid());
    }
    /** Sends a failed message again with its nonce. */
    resend(nonce) {
        return this.#follower.resend(nonce);
    }
    /** Removes a failed message from `pending`. */
    discard(nonce) {
        this.#follower.discard(nonce);
    }
    /**
     * Votes, changes the vote, or withdraws it with null. The state shows the vote immediately, and reverts it if the
     * gateway refuses it.
     */
    vote(voting, movie) {
        return this.#follower.vote(voting, movie);
    }
    /** Loads older messages into the window. Resolves to false if none exist, or if the window is full. */
    older(limit = PAGE) {
        return this.#loadOlder(this.#follower, limit);
    }
    /**
     * Fixes the start of the window, for a list that is scrolled up: its messages stay in the window while new ones
     * arrive. `state.chat.arrived` counts the new ones. `newest` ends this.
     */
    readBack() {
        this.#follower.dispatch({ type: "read_back" });
    }
    /** Returns the window to the newest messages. Drops older messages that do not fit any more. */
    newest() {
        this.#follower.dispatch({ type: "newest" });
    }
    /** Calls `listener` for each event `name`. Returns a function that removes the listener. */
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
     * Iterates over the log events that arrive from now on, each once and in order. The loop ends when the app closes the
     * session. It throws if the session stops, or if the loop falls more than 1,000 events behind.
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
    /** Removes all listeners and releases the session. */
    close() {
        if (this.#isClosed)
            return;
        this.#isClosed = true;
        for (const end of [...this.#endings])
            end();
        this.#release();
    }
}
/** Returns the poll with this id; without an id the open poll, or else the one that closed last. */
export function findVoting(votings, given) {
    if (given === undefined)
        return votings[0] ?? null;
    const id = normalId(given);
    return votings.find((voting) => voting.id === id) ?? null;
}
/** For each event: returns the values to emit for a change of the state. */
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
/** Calls a listener. Reports an exception as uncaught, so that the other listeners still run. */
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
