/**
 * Follows one session over a connection: subscribes, resumes, sends messages and votes, and settles their promises.
 *
 * Keeps unanswered messages and votes. If the socket is lost, it sends them again after the resume. A message keeps its
 * nonce, so it counts once. The reducer holds the state; this module only dispatches actions to it.
 *
 * The id of the latest `subscribe` frame identifies the subscription. Frames that arrive before the `subscribed` with
 * this id belong to an earlier subscription: the gateway sent them before it processed the `unsubscribe`. This module
 * drops them.
 */

import { advisedMs } from "./backoff.ts";
import { PENDING_MAX } from "./chat.ts";
import { resumePoint } from "./continuity.ts";
import { AbandonedError, RefusedError, type TokenError, type UsherError } from "./errors.ts";
import { normalId, normalIdOrNull } from "./ids.ts";
import { type Action, INITIAL_STATE, reduce, type SessionState } from "./state.ts";
import type { AckFrame, ClientFrame, ErrorFrame, ServerFrame, SessionFrame } from "./wire.ts";
import type { World } from "./world.ts";

/** The time limit for an answer to a message or vote. The gateway itself tries for ten seconds. */
const ANSWER_TIMEOUT_MS = 15_000;
/** The longest wait of a message or vote for an access token. After that the viewer should decide again. */
const TOKEN_WAIT_MS_MAX = 5 * 60_000;
/** The wait before another `subscribe` after an `internal` or `busy` error without a time. */
const RETRY_SUBSCRIBE_MS = 2000;
/** The least wait after a refusal that asks to try again, whatever time the gateway gives. */
const BUSY_RETRY_MS_MIN = 100;
/** The wait after a `busy` error without a time. */
const BUSY_RETRY_MS_DEFAULT = 1000;
/** Refusals of a viewer without a token. They may not apply to the same viewer with a token. */
const REFUSALS_FOR_LACK_OF_TOKEN: readonly string[] = ["unauthorized", "forbidden", "not_found"];

/** A committed message: its event number, its id and its nonce. */
export interface Sent {
  readonly seq: number;
  readonly id: string;
  readonly nonce: string;
}

/** The parts of the client that a follower uses. */
export interface Line {
  readonly world: World;
  /**
   * Sends a frame that expects an answer, and returns its id; null without a connection. If the socket is lost,
   * `onAnswer` is never called.
   */
  readonly ask: (frame: ClientFrame, onAnswer: (frame: ServerFrame) => void) => number | null;
  /** Sends a frame and ignores the answer. */
  readonly tell: (frame: ClientFrame) => void;
  /** Reports a successful subscription. */
  readonly settle: () => void;
  /** Returns why the viewer has no usable access token; null while they have one, or need none. */
  readonly trouble: () => TokenError | null;
}

/** An unsettled message or vote: its frame and its promise. */
interface Errand<Result> {
  readonly frame: ClientFrame;
  readonly since: number;
  timer: unknown;
  /** Whether the current socket has sent the frame, so that an answer is due. */
  isAsked: boolean;
  /** The last `busy` error, if any. */
  refusal: RefusedError | null;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: UsherError) => void;
}

/** One followed session. */
export class Follower {
  readonly id: string;
  /** Called after each change of the state. */
  readonly listeners = new Set<(state: SessionState, previous: SessionState) => void>();
  readonly #line: Line;
  readonly #history: number;
  readonly #messages = new Map<string, Errand<Sent>>();
  readonly #votes = new Map<string, Errand<void> & { readonly movie: string | null }>();
  #state = INITIAL_STATE;
  /** Changes that the listeners have not received yet. `dispatch` is delivering the first one. */
  readonly #untold: [state: SessionState, previous: SessionState][] = [];
  /** The id of the latest `subscribe` frame on this socket. */
  #subscription: number | null = null;
  #isSubscribed = false;
  #isClosed = false;
  #resumeToken: string | null = null;
  /** The timer of the next `subscribe` after a refusal. */
  #retry: unknown = null;
  /** The timer that sends messages and votes again after a `busy` error; null if none waits. */
  #again: unknown = null;

  constructor(id: string, line: Line, history: number) {
    this.id = id;
    this.#line = line;
    this.#history = history;
  }

  /** The state of the session. */
  get state(): SessionState {
    return this.#state;
  }

  /** Subscribes to the session, or resumes from the last position. The client calls this after each sign-in. */
  subscribe(): void {
    if (this.#isClosed) return;
    this.#line.world.clearTimer(this.#retry);
    this.#isSubscribed = false;
    const resume = resumePoint(this.#state.continuity, this.#resumeToken);
    const session = this.id;
    this.#subscription = this.#line.ask(
      resume ? { type: "subscribe", session, resume } : { type: "subscribe", session, history: this.#history },
      (answer) => answer.type === "error" && this.#onSubscribeRefused(answer),
    );
  }

  /** Sends a message, or sends it again. The state shows it immediately as pending. */
  send(body: string, answered: string | null, given: string): Promise<Sent> {
    const [replyTo, nonce] = [normalIdOrNull(answered), normalId(given)];
    const frame: ClientFrame = { type: "send", session: this.id, body, nonce, ...(replyTo && { reply_to: replyTo }) };
    return handled(
      new Promise((resolve, reject) => {
        if (this.#state.status === "stopped" && this.#state.error) return reject(this.#state.error);
        if (this.#messages.size >= PENDING_MAX)
          return reject(new AbandonedError("queue_full", `${PENDING_MAX} messages wait for their answer`));
        this.#takeMessage(nonce)?.reject(new AbandonedError("superseded", "the message was sent again"));
        const created_at = new Date(this.#line.world.now()).toISOString();
        const errand: Errand<Sent> = { frame, ...this.#unasked(), resolve, reject };
        this.#messages.set(nonce, errand);
        this.#await(errand, (error) => this.#failMessage(nonce, error));
        this.dispatch({ type: "send", message: { nonce, body, reply_to: replyTo, created_at } });
        this.#post(nonce);
      }),
    );
  }

  /** Sends a failed message again with its nonce. If the first try did succeed, the message still counts once. */
  resend(given: string): Promise<Sent> {
    const nonce = normalId(given);
    const item = this.#state.chat.pending.find((item) => item.nonce === nonce && item.status === "failed");
    if (item) return this.send(item.body, item.reply_to, nonce);
    return handled(Promise.reject(new AbandonedError("closed", "no failed message has this nonce")));
  }

  /** Removes a pending message. The gateway may still have received it. */
  discard(given: string): void {
    const nonce = normalId(given);
    this.#failMessage(nonce, new AbandonedError("closed", "the message was discarded"));
    this.dispatch({ type: "discard", nonce });
  }

  /** Votes, changes the vote, or withdraws it with null. A later call for the same poll replaces an earlier one. */
  vote(givenVoting: string, givenMovie: string | null): Promise<void> {
    const [voting, movie] = [normalId(givenVoting), normalIdOrNull(givenMovie)];
    return handled(
      new Promise((resolve, reject) => {
        if (this.#state.status === "stopped" && this.#state.error) return reject(this.#state.error);
        this.#takeVote(voting)?.reject(new AbandonedError("superseded", "another choice was made"));
        const frame: ClientFrame = { type: "vote", voting, movie };
        const errand = { frame, movie, ...this.#unasked(), resolve, reject };
        this.#votes.set(voting, errand);
        this.#await(errand, (error) => this.#failVote(voting, movie, error));
        this.dispatch({ type: "vote", voting, movie });
        this.#cast(voting);
      }),
    );
  }

  /** Handles a frame about this session. */
  onFrame(frame: SessionFrame): void {
    // An `unsubscribed` without a reason answers our own `unsubscribe`.
    if (this.#isClosed || (frame.type === "unsubscribed" && !frame.reason)) return;
    const isOurs = frame.type === "subscribed" ? frame.id === this.#subscription : this.#isSubscribed;
    if (!isOurs) return this.dispatch({ type: "stale_frame" });
    if (frame.type === "unsubscribed") return this.#onWithdrawn(frame.reason ?? "forbidden");
    if (frame.type === "resume_token") this.#resumeToken = frame.token;
    if (frame.type === "subscribed" || frame.type === "reset")
      this.#resumeToken = frame.resume_token ?? this.#resumeToken;
    if (frame.type === "subscribed") this.#isSubscribed = true;
    const shown = this.#line.trouble() ? asBefore(frame, this.#state) : frame;
    if (shown) this.dispatch({ type: "frame", frame: shown });
    if (frame.type === "events") this.#settleByEvents();
    // A listener may have closed the session during `dispatch`.
    if (frame.type !== "subscribed" || !this.#isSubscribed) return;
    this.#line.settle();
    this.#flush();
  }

  /** Handles the viewer's identity, as the gateway confirms it. A new identity abandons all unsettled requests. */
  onIdentified(sub: string | null): void {
    const { sub: before } = this.#state;
    if (before !== undefined && before !== sub) {
      this.#resumeToken = null;
      this.#abandon(new AbandonedError("identity_changed", "another user signed in before this was sent"));
    }
    this.dispatch({ type: "identified", sub });
  }

  /** Handles the loss of the socket. The gateway will not answer the frames that it carried. */
  onLost(): void {
    this.#unsubscribed();
    for (const errand of [...this.#messages.values(), ...this.#votes.values()]) errand.isAsked = false;
    if (this.#state.status !== "stopped") this.dispatch({ type: "lost" });
  }

  /** Stops following, and fails all unsettled messages and votes with `error`. A later `subscribe` starts again. */
  stop(error: UsherError): void {
    this.#unsubscribed();
    this.#abandon(error);
    this.dispatch({ type: "stopped", error });
  }

  /** Ends the subscription permanently: the app has closed its last `Session` object for it. */
  close(): void {
    this.#isClosed = true;
    if (this.#state.status !== "stopped") this.#line.tell({ type: "unsubscribe", session: this.id });
    this.#unsubscribed();
    this.#abandon(new AbandonedError("closed", "the session was closed"));
    this.listeners.clear();
  }

  /**
   * Applies an action and calls the listeners. If a listener dispatches another action, its change is queued until all
   * listeners have received the first one. So each listener receives every change once and in order. A removed listener
   * receives nothing more.
   */
  dispatch(action: Action): void {
    const previous = this.#state;
    this.#state = reduce(previous, action);
    if (this.#state === previous) return;
    this.#untold.push([this.#state, previous]);
    if (this.#untold.length > 1) return;
    for (let change = this.#untold[0]; change; change = this.#untold[0]) {
      for (const listener of [...this.listeners]) if (this.listeners.has(listener)) listener(...change);
      this.#untold.shift();
    }
  }

  #onSubscribeRefused(answer: ErrorFrame): void {
    if (this.#isClosed) return;
    const again = answer.retry_after_ms ?? (["internal", "busy"].includes(answer.code) ? RETRY_SUBSCRIBE_MS : null);
    const wait = advisedMs(again, BUSY_RETRY_MS_MIN);
    if (again !== null) this.#retry = this.#line.world.setTimer(() => this.subscribe(), wait);
    else if (this.#line.trouble() && REFUSALS_FOR_LACK_OF_TOKEN.includes(answer.code)) this.dispatch({ type: "lost" });
    else this.stop(refusal(answer));
  }

  #onWithdrawn(reason: string): void {
    const error = new RefusedError(reason, `access to the session ended: ${reason}`);
    if (!this.#line.trouble()) return this.stop(error);
    this.#unsubscribed();
    this.dispatch({ type: "lost" });
  }

  #unsubscribed(): void {
    this.#subscription = null;
    this.#isSubscribed = false;
    this.#line.world.clearTimer(this.#retry);
    this.#line.world.clearTimer(this.#again);
    this.#again = null;
  }

  /** Sends all messages and votes that this socket has not sent yet. */
  #flush(): void {
    for (const nonce of [...this.#messages.keys()]) this.#post(nonce);
    for (const voting of [...this.#votes.keys()]) this.#cast(voting);
  }

  #post(nonce: string): void {
    const errand = this.#messages.get(nonce);
    if (!errand) return;
    this.#ask(errand, (answer) => {
      if (answer.type === "error") this.#failMessage(nonce, refusal(answer));
      else if (answer.type === "ack") this.#onSent(nonce, answer);
    });
  }

  /**
   * Sends a message or vote, unless it has to wait:
   * - for the subscription, because it would overtake the resume;
   * - for a token, because the gateway would refuse it;
   * - after a `busy` error, together with everything behind it.
   *
   * The timeout runs during the wait.
   */
  #ask<Result>(errand: Errand<Result>, onAnswer: (answer: ServerFrame) => void): void {
    if (errand.isAsked || !this.#isSubscribed || this.#again !== null || this.#line.trouble()) return;
    errand.isAsked = true;
    this.#line.ask(errand.frame, (answer) => {
      if (answer.type !== "error" || answer.code !== "busy") return onAnswer(answer);
      errand.isAsked = false;
      errand.refusal = refusal(answer);
      const wait = advisedMs(answer.retry_after_ms, BUSY_RETRY_MS_MIN, BUSY_RETRY_MS_DEFAULT);
      this.#again ??= this.#line.world.setTimer(() => {
        this.#again = null;
        this.#flush();
      }, wait);
    });
  }

  #onSent(nonce: string, { seq = 0, message: id = "" }: AckFrame): void {
    this.#takeMessage(nonce)?.resolve({ seq, id, nonce });
    this.dispatch({ type: "sent", nonce, seq, id });
  }

  /** Settles messages whose log event arrives before the `ack`, or without one. */
  #settleByEvents(): void {
    if (this.#messages.size === 0) return;
    for (const { type, seq, data } of this.#state.latest) {
      if (type === "chat.created" && data.nonce !== null && this.#messages.has(data.nonce))
        this.#takeMessage(data.nonce)?.resolve({ seq, id: data.id, nonce: data.nonce });
    }
  }

  #failMessage(nonce: string, error: UsherError): void {
    this.#takeMessage(nonce)?.reject(error);
    this.dispatch({ type: "send_failed", nonce, error });
  }

  #cast(voting: string): void {
    const errand = this.#votes.get(voting);
    if (!errand) return;
    const { movie } = errand;
    this.#ask(errand, (answer) => {
      if (answer.type === "error") return this.#failVote(voting, movie, refusal(answer));
      if (this.#votes.get(voting)?.movie === movie) this.#takeVote(voting)?.resolve();
      this.dispatch({ type: "voted", voting, movie });
    });
  }

  #failVote(voting: string, movie: string | null, error: UsherError): void {
    if (this.#votes.get(voting)?.movie === movie) this.#takeVote(voting)?.reject(error);
    this.dispatch({ type: "vote_failed", voting, movie });
  }

  #abandon(error: UsherError): void {
    for (const nonce of [...this.#messages.keys()]) this.#failMessage(nonce, error);
    for (const [voting, { movie }] of [...this.#votes]) this.#failVote(voting, movie, error);
  }

  #takeMessage(nonce: string): Errand<Sent> | undefined {
    return this.#take(this.#messages, nonce);
  }

  #takeVote(voting: string): Errand<void> | undefined {
    return this.#take(this.#votes, voting);
  }

  #take<Kind extends { readonly timer: unknown }>(errands: Map<string, Kind>, key: string): Kind | undefined {
    const errand = errands.get(key);
    if (errand) this.#line.world.clearTimer(errand.timer);
    errands.delete(key);
    return errand;
  }

  #unasked() {
    return { since: this.#line.world.now(), timer: null, isAsked: false, refusal: null };
  }

  /** Fails the errand if no answer arrives in time. An errand that waits for an access token has five minutes. */
  #await<Result>(errand: Errand<Result>, fail: (error: UsherError) => void): void {
    const { world } = this.#line;
    errand.timer = world.setTimer(() => {
      const trouble = this.#line.trouble();
      const waits = trouble !== null && !errand.isAsked && world.now() - errand.since < TOKEN_WAIT_MS_MAX;
      if (waits) this.#await(errand, fail);
      else fail(trouble ?? errand.refusal ?? noAnswer());
    }, ANSWER_TIMEOUT_MS);
  }
}

/**
 * Adapts a frame for a viewer whose token is missing at the moment. The gateway sent it to a viewer without a token, so
 * this keeps the earlier permissions and votes. Returns null if the frame contains nothing else.
 */
function asBefore(frame: SessionFrame, { can }: SessionState): SessionFrame | null {
  if (frame.type === "access") return null;
  if (frame.type !== "subscribed" && frame.type !== "reset") return frame;
  return { ...frame, can, ...(frame.votings && { votings: frame.votings.map(({ mine: _, ...voting }) => voting) }) };
}

function refusal({ code, message, retry_after_ms, reason }: ErrorFrame): RefusedError {
  return new RefusedError(code, message ?? code, retry_after_ms ?? null, reason ?? null);
}

function noAnswer(): AbandonedError {
  return new AbandonedError("no_answer", "no answer from the gateway");
}

/** Marks a rejection as handled. The state shows the failure too, so an app may ignore the promise. */
function handled<Result>(promise: Promise<Result>): Promise<Result> {
  promise.catch(() => {});
  return promise;
}
