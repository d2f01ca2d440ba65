// Made by `npm run pages` from client/src. Change it there.
/**
 * Follows one session over a connection: subscribes, resumes, sends and votes, and settles what was asked.
 *
 * Holds what is on its way, so that a message or vote caught by a lost socket goes out again after the resume, under its
 * old nonce, and counts once. The state itself lives in the reducer; this module only feeds it.
 *
 * The number of its `subscribe` frame is the id of its subscription. Frames that arrive before the `subscribed` with this
 * number belong to an earlier subscription, whose end the gateway had not seen when it sent them. They are dropped.
 */
import { advisedMs } from "./backoff.js";
import { PENDING_MAX } from "./chat.js";
import { resumePoint } from "./continuity.js";
import { AbandonedError, RefusedError } from "./errors.js";
import { normalId, normalIdOrNull } from "./ids.js";
import { INITIAL_STATE, reduce } from "./state.js";
/** A message or vote without an answer for this long has failed by name; the gateway itself tries for ten seconds. */
const ANSWER_TIMEOUT_MS = 15_000;
/** A message or vote waits this long for an access token. After that the viewer should decide again. */
const TOKEN_WAIT_MS_MAX = 5 * 60_000;
/** A subscription that failed through the gateway's own fault is tried again after this time. */
const RETRY_SUBSCRIBE_MS = 2000;
/** A gateway that is busy is not asked again sooner than this, whatever it says. */
const BUSY_RETRY_MS_MIN = 100;
/** The gateway is busy and does not say for how long. */
const BUSY_RETRY_MS_DEFAULT = 1000;
/** Refusals that hold for a viewer without a token, and may not hold for the one who waits for theirs. */
const REFUSALS_FOR_LACK_OF_TOKEN = ["unauthorized", "forbidden", "not_found"];
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
    /** Changes that listeners have yet to hear of; the first is being told. */
    #untold = [];
    /** The number of the latest `subscribe` on this socket. */
    #subscription = null;
    #isSubscribed = false;
    #isClosed = false;
    #resumeToken = null;
    /** Subscribes again. */
    #retry = null;
    /** Sends again what a busy gateway has refused; null while nothing waits for that. */
    #again = null;
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
        if (this.#isClosed)
            return;
        this.#line.world.clearTimer(this.#retry);
        this.#isSubscribed = false;
        const resume = resumePoint(this.#state.continuity, this.#resumeToken);
        const session = this.id;
        this.#subscription = this.#line.ask(resume ? { type: "subscribe", session, resume } : { type: "subscribe", session, history: this.#history }, (answer) => answer.type === "error" && this.#onSubscribeRefused(answer));
    }
    /** Sends a message, or sends it again, and shows it at once. */
    send(body, answered, given) {
        const [replyTo, nonce] = [normalIdOrNull(answered), normalId(given)];
        const frame = { type: "send", session: this.id, body, nonce, ...(replyTo && { reply_to: replyTo }) };
        return handled(new Promise((resolve, reject) => {
            if (this.#state.status === "stopped" && this.#state.error)
                return reject(this.#state.error);
            if (this.#messages.size >= PENDING_MAX)
                return reject(new AbandonedError("queue_full", `${PENDING_MAX} messages wait for their answer`));
            this.#takeMessage(nonce)?.reject(new AbandonedError("superseded", "the message was sent again"));
            const created_at = new Date(this.#line.world.now()).toISOString();
            const errand = { frame, ...this.#unasked(), resolve, reject };
            this.#messages.set(nonce, errand);
            this.#await(errand, (error) => this.#failMessage(nonce, error));
            this.dispatch({ type: "send", message: { nonce, body, reply_to: replyTo, created_at } });
            this.#post(nonce);
        }));
    }
    /** Sends a failed message again under its nonce: if it did arrive after all, it still counts once. */
    resend(given) {
        const nonce = normalId(given);
        const item = this.#state.chat.pending.find((item) => item.nonce === nonce && item.status === "failed");
        if (item)
            return this.send(item.body, item.reply_to, nonce);
        return handled(Promise.reject(new AbandonedError("closed", "no failed message has this nonce")));
    }
    /** Forgets an unsettled message; it may have arrived all the same. */
    discard(given) {
        const nonce = normalId(given);
        this.#failMessage(nonce, new AbandonedError("closed", "the message was discarded"));
        this.dispatch({ type: "discard", nonce });
    }
    /** Votes, changes the vote, or withdraws it with null. Of several wishes for one voting the last one counts. */
    vote(givenVoting, givenMovie) {
        const [voting, movie] = [normalId(givenVoting), normalIdOrNull(givenMovie)];
        return handled(new Promise((resolve, reject) => {
            if (this.#state.status === "stopped" && this.#state.error)
                return reject(this.#state.error);
            this.#takeVote(voting)?.reject(new AbandonedError("superseded", "another choice was made"));
            const frame = { type: "vote", voting, movie };
            const errand = { frame, movie, ...this.#unasked(), resolve, reject };
            this.#votes.set(voting, errand);
            this.#await(errand, (error) => this.#failVote(voting, movie, error));
            this.dispatch({ type: "vote", voting, movie });
            this.#cast(voting);
        }));
    }
    /** Takes a frame about this session. */
    onFrame(frame) {
        // Without a reason it is the answer to our own wish.
        if (this.#isClosed || (frame.type === "unsubscribed" && !frame.reason))
            return;
        const isOurs = frame.type === "subscribed" ? frame.id === this.#subscription : this.#isSubscribed;
        if (!isOurs)
            return this.dispatch({ type: "stale_frame" });
        if (frame.type === "unsubscribed")
            return this.#onWithdrawn(frame.reason ?? "forbidden");
        if (frame.type === "resume_token")
            this.#resumeToken = frame.token;
        if (frame.type === "subscribed" || frame.type === "reset")
            this.#resumeToken = frame.resume_token ?? this.#resumeToken;
        if (frame.type === "subscribed")
            this.#isSubscribed = true;
        const shown = this.#line.trouble() ? asBefore(frame, this.#state) : frame;
        if (shown)
            this.dispatch({ type: "frame", frame: shown });
        if (frame.type === "events")
            this.#settleByEvents();
        // A listener may have closed the session meanwhile.
        if (frame.type !== "subscribed" || !this.#isSubscribed)
            return;
        this.#line.settle();
        this.#flush();
    }
    /** The gateway says who this is. */
    onIdentified(sub) {
        const { sub: before } = this.#state;
        if (before !== undefined && before !== sub) {
            this.#resumeToken = null;
            this.#abandon(new AbandonedError("identity_changed", "somebody else signed in before this was sent"));
        }
        this.dispatch({ type: "identified", sub });
    }
    /** The socket is gone; what was asked on it will not be answered. */
    onLost() {
        this.#unsubscribed();
        for (const errand of [...this.#messages.values(), ...this.#votes.values()])
            errand.isAsked = false;
        if (this.#state.status !== "stopped")
            this.dispatch({ type: "lost" });
    }
    /** It is over, until something changes. */
    stop(error) {
        this.#unsubscribed();
        this.#abandon(error);
        this.dispatch({ type: "stopped", error });
    }
    /** Nobody wants it any more. */
    close() {
        this.#isClosed = true;
        if (this.#state.status !== "stopped")
            this.#line.tell({ type: "unsubscribe", session: this.id });
        this.#unsubscribed();
        this.#abandon(new AbandonedError("closed", "the session was closed"));
        this.listeners.clear();
    }
    /**
     * Folds an action and tells who listens. What a listener does in turn is told after that, so that everybody hears of all
     * changes, each once and in order. A listener that has been taken off is not told any more.
     */
    dispatch(action) {
        const previous = this.#state;
        this.#state = reduce(previous, action);
        if (this.#state === previous)
            return;
        this.#untold.push([this.#state, previous]);
        if (this.#untold.length > 1)
            return;
        for (let change = this.#untold[0]; change; change = this.#untold[0]) {
            for (const listener of [...this.listeners])
                if (this.listeners.has(listener))
                    listener(...change);
            this.#untold.shift();
        }
    }
    #onSubscribeRefused(answer) {
        if (this.#isClosed)
            return;
        const again = answer.retry_after_ms ?? (["internal", "busy"].includes(answer.code) ? RETRY_SUBSCRIBE_MS : null);
        const wait = advisedMs(again, BUSY_RETRY_MS_MIN);
        if (again !== null)
            this.#retry = this.#line.world.setTimer(() => this.subscribe(), wait);
        else if (this.#line.trouble() && REFUSALS_FOR_LACK_OF_TOKEN.includes(answer.code))
            this.dispatch({ type: "lost" });
        else
            this.stop(refusal(answer));
    }
    #onWithdrawn(reason) {
        const error = new RefusedError(reason, `access to the session ended: ${reason}`);
        if (!this.#line.trouble())
            return this.stop(error);
        this.#unsubscribed();
        this.dispatch({ type: "lost" });
    }
    #unsubscribed() {
        this.#subscription = null;
        this.#isSubscribed = false;
        this.#line.world.clearTimer(this.#retry);
        this.#line.world.clearTimer(this.#again);
        this.#again = null;
    }
    /** Sends what has not been sent on this socket. */
    #flush() {
        for (const nonce of [...this.#messages.keys()])
            this.#post(nonce);
        for (const voting of [...this.#votes.keys()])
            this.#cast(voting);
    }
    #post(nonce) {
        const errand = this.#messages.get(nonce);
        if (!errand)
            return;
        this.#ask(errand, (answer) => {
            if (answer.type === "error")
                this.#failMessage(nonce, refusal(answer));
            else if (answer.type === "ack")
                this.#onSent(nonce, answer);
        });
    }
    /**
     * Sends a message or vote. Without a subscription nothing goes out: it would overtake the resume. Without a token it
     * would be refused. After a `busy` it waits, and so does everything behind it. The timeout runs anyway.
     */
    #ask(errand, onAnswer) {
        if (errand.isAsked || !this.#isSubscribed || this.#again !== null || this.#line.trouble())
            return;
        errand.isAsked = true;
        this.#line.ask(errand.frame, (answer) => {
            if (answer.type !== "error" || answer.code !== "busy")
                return onAnswer(answer);
            errand.isAsked = false;
            errand.refusal = refusal(answer);
            const wait = advisedMs(answer.retry_after_ms, BUSY_RETRY_MS_MIN, BUSY_RETRY_MS_DEFAULT);
            this.#again ??= this.#line.world.setTimer(() => {
                this.#again = null;
                this.#flush();
            }, wait);
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
        if (!errand)
            return;
        const { movie } = errand;
        this.#ask(errand, (answer) => {
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
    #unasked() {
        return { since: this.#line.world.now(), timer: null, isAsked: false, refusal: null };
    }
    /** Fails the errand if no answer comes in time. One that waits for an access token has more time. */
    #await(errand, fail) {
        const { world } = this.#line;
        errand.timer = world.setTimer(() => {
            const trouble = this.#line.trouble();
            const waits = trouble !== null && !errand.isAsked && world.now() - errand.since < TOKEN_WAIT_MS_MAX;
            if (waits)
                this.#await(errand, fail);
            else
                fail(trouble ?? errand.refusal ?? noAnswer());
        }, ANSWER_TIMEOUT_MS);
    }
}
/**
 * What a frame to a viewer without a token says, as it holds for the one whose token is missing for the moment: what they may
 * do and what they chose stays as it was. Null if it says nothing else.
 */
function asBefore(frame, { can }) {
    if (frame.type === "access")
        return null;
    if (frame.type !== "subscribed" && frame.type !== "reset")
        return frame;
    return { ...frame, can, ...(frame.votings && { votings: frame.votings.map(({ mine: _, ...voting }) => voting) }) };
}
function refusal({ code, message, retry_after_ms, reason }) {
    return new RefusedError(code, message ?? code, retry_after_ms ?? null, reason ?? null);
}
function noAnswer() {
    return new AbandonedError("no_answer", "no answer from the gateway");
}
/** A failure is in the state as well: who does not look at the promise must not crash the process. */
function handled(promise) {
    promise.catch(() => { });
    return promise;
}
