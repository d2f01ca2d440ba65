// Made by `npm run pages` from client/src. Change it there.
/**
 * Follows one session over a connection: subscribes, resumes, sends and votes, and settles what was asked.
 *
 * Holds what is on its way, so that a message or vote caught by a lost socket goes out again after the resume, under its
 * old nonce, and counts once. The state itself lives in the reducer; this module only feeds it.
 */
import { PENDING_MAX } from "./chat.js";
import { resumePoint } from "./continuity.js";
import { AbandonedError, RefusedError } from "./errors.js";
import { INITIAL_STATE, reduce } from "./state.js";
/** A message or vote without an answer for this long has failed by name; the gateway itself tries for ten seconds. */
const ANSWER_TIMEOUT_MS = 15_000;
/** A subscription that failed through the gateway's own fault is tried again after this time. */
const RETRY_SUBSCRIBE_MS = 2000;
/** One followed session. */
export class Follower {
    id;
    /** Who wants to know of changes. */
    listeners = new Set();
    #line;
    #history;
    #messages = new Map();
    #votes = new Map();
    #state = INITIAL_STATE;
    #isSubscribed = false;
    #retry = null;
    constructor(id, line, history) {
        this.id = id;
        this.#line = line;
        this.#history = history;
    }
    /** Everything that is known of the session. */
    get state() {
        return this.#state;
    }
    /** Asks to follow the session, from where it left off if it ever did. Called whenever the connection is ready. */
    subscribe() {
        this.#isSubscribed = false;
        const resume = resumePoint(this.#state.continuity);
        const session = this.id;
        this.#line.ask(resume ? { type: "subscribe", session, resume } : { type: "subscribe", session, history: this.#history }, (answer) => answer.type === "error" && this.#onSubscribeRefused(answer));
    }
    /** Sends a message, or sends it again, and shows it at once. */
    send(body, replyTo, nonce) {
        const frame = { type: "send", session: this.id, body, nonce, ...(replyTo && { reply_to: replyTo }) };
        return handled(new Promise((resolve, reject) => {
            if (this.#state.status === "stopped" && this.#state.error)
                return reject(this.#state.error);
            if (this.#messages.size >= PENDING_MAX)
                return reject(new AbandonedError("queue_full", `${PENDING_MAX} messages wait for their answer`));
            this.#messages.get(nonce)?.reject(new AbandonedError("superseded", "the message was sent again"));
            const created_at = new Date(this.#line.world.now()).toISOString();
            this.dispatch({ type: "send", message: { nonce, body, reply_to: replyTo, created_at } });
            const timer = this.#timeout(() => this.#failMessage(nonce, noAnswer()));
            this.#messages.set(nonce, { frame, timer, resolve, reject });
            this.#post(nonce);
        }));
    }
    /** Sends a failed message again under its nonce: if it did arrive after all, it still counts once. */
    resend(nonce) {
        const item = this.#state.chat.pending.find((item) => item.nonce === nonce && item.status === "failed");
        if (item)
            return this.send(item.body, item.reply_to, nonce);
        return handled(Promise.reject(new AbandonedError("closed", "no failed message has this nonce")));
    }
    /** Forgets an unsettled message; it may have arrived all the same. */
    discard(nonce) {
        this.#failMessage(nonce, new AbandonedError("closed", "the message was discarded"));
        this.dispatch({ type: "discard", nonce });
    }
    /** Votes, changes the vote, or withdraws it with null. Of several wishes for one voting the last one counts. */
    vote(voting, movie) {
        return handled(new Promise((resolve, reject) => {
            if (this.#state.status === "stopped" && this.#state.error)
                return reject(this.#state.error);
            this.#takeVote(voting)?.reject(new AbandonedError("superseded", "another choice was made"));
            this.dispatch({ type: "vote", voting, movie });
            const timer = this.#timeout(() => this.#failVote(voting, movie, noAnswer()));
            this.#votes.set(voting, { frame: { type: "vote", voting, movie }, movie, timer, resolve, reject });
            this.#cast(voting);
        }));
    }
    /** Takes a frame about this session. */
    onFrame(frame) {
        // Without a reason it is the answer to our own wish.
        if (frame.type === "unsubscribed") {
            if (frame.reason)
                this.stop(new RefusedError(frame.reason, `access to the session ended: ${frame.reason}`));
            return;
        }
        this.dispatch({ type: "frame", frame });
        if (frame.type === "events")
            this.#settleByEvents();
        if (frame.type === "subscribed") {
            this.#isSubscribed = true;
            this.#line.settle();
            for (const nonce of this.#messages.keys())
                this.#post(nonce);
            for (const voting of this.#votes.keys())
                this.#cast(voting);
        }
    }
    /** The gateway says who this is. */
    onIdentified(sub) {
        const { sub: before } = this.#state;
        if (before !== undefined && before !== sub)
            this.#abandon(new AbandonedError("identity_changed", "somebody else signed in before this was sent"));
        this.dispatch({ type: "identified", sub });
    }
    /** The socket is gone; what was asked on it will not be answered. */
    onLost() {
        this.#isSubscribed = false;
        this.#line.world.clearTimer(this.#retry);
        if (this.#state.status !== "stopped")
            this.dispatch({ type: "lost" });
    }
    /** It is over, until something changes. */
    stop(error) {
        this.#isSubscribed = false;
        this.#abandon(error);
        this.dispatch({ type: "stopped", error });
    }
    /** Nobody wants it any more. */
    close() {
        if (this.#state.status !== "stopped")
            this.#line.tell({ type: "unsubscribe", session: this.id });
        this.#isSubscribed = false;
        this.#line.world.clearTimer(this.#retry);
        this.#abandon(new AbandonedError("closed", "the session was closed"));
        this.listeners.clear();
    }
    /** Folds an action and tells who listens. */
    dispatch(action) {
        const previous = this.#state;
        this.#state = reduce(previous, action);
        if (this.#state === previous)
            return;
        for (const listener of [...this.listeners])
            listener(this.#state, previous);
    }
    #onSubscribeRefused(answer) {
        const again = answer.retry_after_ms ?? (answer.code === "internal" ? RETRY_SUBSCRIBE_MS : null);
        if (again === null)
            this.stop(refusal(answer));
        else
            this.#retry = this.#line.world.setTimer(() => this.subscribe(), again);
    }
    /** Without a subscription nothing goes out: it would overtake the resume. The timeout runs anyway. */
    #post(nonce) {
        const errand = this.#messages.get(nonce);
        if (!errand || !this.#isSubscribed)
            return;
        this.#line.ask(errand.frame, (answer) => {
            if (answer.type === "error")
                this.#failMessage(nonce, refusal(answer));
            else if (answer.type === "ack")
                this.#onSent(nonce, answer);
        });
    }
    #onSent(nonce, { seq = 0, message: id = "" }) {
        this.#takeMessage(nonce)?.resolve({ seq, id, nonce });
        this.dispatch({ type: "sent", nonce, seq, id });
    }
    /** The log may bring a message before its answer comes, or without one. */
    #settleByEvents() {
        if (this.#messages.size === 0)
            return;
        for (const { type, seq, data } of this.#state.latest) {
            if (type === "chat.created" && data.nonce !== null && this.#messages.has(data.nonce))
                this.#takeMessage(data.nonce)?.resolve({ seq, id: data.id, nonce: data.nonce });
        }
    }
    #failMessage(nonce, error) {
        this.#takeMessage(nonce)?.reject(error);
        this.dispatch({ type: "send_failed", nonce, error });
    }
    #cast(voting) {
        const errand = this.#votes.get(voting);
        if (!errand || !this.#isSubscribed)
            return;
        const { frame, movie } = errand;
        this.#line.ask(frame, (answer) => {
            if (answer.type === "error")
                return this.#failVote(voting, movie, refusal(answer));
            if (this.#votes.get(voting)?.movie === movie)
                this.#takeVote(voting)?.resolve();
            this.dispatch({ type: "voted", voting, movie });
        });
    }
    #failVote(voting, movie, error) {
        if (this.#votes.get(voting)?.movie === movie)
            this.#takeVote(voting)?.reject(error);
        this.dispatch({ type: "vote_failed", voting, movie });
    }
    #abandon(error) {
        for (const nonce of [...this.#messages.keys()])
            this.#failMessage(nonce, error);
        for (const [voting, { movie }] of [...this.#votes])
            this.#failVote(voting, movie, error);
    }
    #takeMessage(nonce) {
        return this.#take(this.#messages, nonce);
    }
    #takeVote(voting) {
        return this.#take(this.#votes, voting);
    }
    #take(errands, key) {
        const errand = errands.get(key);
        if (errand)
            this.#line.world.clearTimer(errand.timer);
        errands.delete(key);
        return errand;
    }
    #timeout(act) {
        return this.#line.world.setTimer(act, ANSWER_TIMEOUT_MS);
    }
}
function refusal({ code, message, retry_after_ms }) {
    return new RefusedError(code, message ?? code, retry_after_ms ?? null);
}
function noAnswer() {
    return new AbandonedError("no_answer", "no answer from the gateway");
}
/** A failure is in the state as well: who does not look at the promise must not crash the process. */
function handled(promise) {
    promise.catch(() => { });
    return promise;
}
