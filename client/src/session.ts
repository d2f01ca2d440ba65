/** One followed session, as an app holds it. */

import { hasOlder, type Message, type PendingMessage } from "./chat.ts";
import type { Continuity } from "./continuity.ts";
import { AbandonedError } from "./errors.ts";
import type { Follower, Sent } from "./follower.ts";
import { normalId } from "./ids.ts";
import type { SessionState, SessionStatus } from "./state.ts";
import type { Voting } from "./votings.ts";
import type { Can, LogEvent, SessionInfo } from "./wire.ts";

/** Events that a loop may fall behind before it ends with `slow_consumer`. */
const BEHIND_MAX = 1000;
/** Messages in one page of older ones. */
const PAGE = 50;

/**
 * How an event came: with the `history` that a session begins with, after a lost connection that had `missed` it, or
 * `live`. Only `live` ones are news for a sound or a notification.
 */
export type Origin = "history" | "missed" | "live";

/** What a session tells, and with what. */
export interface SessionEvents {
  /** Anything changed; with the whole state. */
  change: SessionState;
  /** An event of the log, each once and in order. */
  event: LogEvent & { readonly from: Origin };
  /** A new chat message, one's own too; `from` tells history from what is new. */
  message: Message & { readonly seq: number; readonly from: Origin };
  /** One's own message was refused or not answered. */
  failed: PendingMessage;
  /** A voting was opened, counted, changed or closed. */
  voting: Voting;
  /** How many are watching. */
  viewers: number;
  status: SessionStatus;
  /** Back after a lost connection, and nothing is missing; with how often that was so. */
  resume: Continuity;
  /** A fresh start that the gateway declared: what was shown before does not go on. */
  reset: Continuity;
  /** A promise was broken: numbers are missing or came twice. */
  discontinuity: Continuity;
}

/** How to send a message. */
export interface SendOptions {
  /** The message that is answered. */
  readonly replyTo?: string;
  /** A uuid of your own; the same one twice is one message. */
  readonly nonce?: string;
}

/** Loads older messages into a follower; false when there are none. */
export type LoadOlder = (follower: Follower, limit: number) => Promise<boolean>;

/** One session. Others may hold it too; it is left when the last of them closes it. */
export class Session implements AsyncIterable<SessionEvents["event"]> {
  readonly #follower: Follower;
  readonly #loadOlder: LoadOlder;
  readonly #release: () => void;
  readonly #uuid: () => string;
  readonly #endings = new Set<() => void>();
  #isClosed = false;

  constructor(follower: Follower, loadOlder: LoadOlder, uuid: () => string, release: () => void) {
    this.#follower = follower;
    this.#loadOlder = loadOlder;
    this.#uuid = uuid;
    this.#release = release;
  }

  /** The session's uuid. */
  get id(): string {
    return this.#follower.id;
  }

  /** Everything that is known of it, as one immutable value. */
  get state(): SessionState {
    return this.#follower.state;
  }

  /** How it stands. */
  get status(): SessionStatus {
    return this.state.status;
  }

  /** The session itself: title, status, slow mode; null until the first subscription. */
  get info(): SessionInfo | null {
    return this.state.info;
  }

  /** What this viewer may do in it. */
  get can(): Can {
    return this.state.can;
  }

  /** The window of the chat, oldest first. */
  get messages(): readonly Message[] {
    return this.state.chat.messages;
  }

  /** One's own messages that are on their way or failed. */
  get pending(): readonly PendingMessage[] {
    return this.state.chat.pending;
  }

  /** Whether there may be messages older than the window. */
  get hasOlder(): boolean {
    return hasOlder(this.state.chat);
  }

  /** How many are watching, or null while that is not known. */
  get viewers(): number | null {
    return this.state.viewers;
  }

  /** The numbers seen and what was counted on the way: the promise, checked. */
  get continuity(): Continuity {
    return this.state.continuity;
  }

  /** A voting with its counts: that of the id, or the open one, or the one that closed last. */
  tally(voting?: string): Voting | null {
    return findVoting(this.state.votings, voting);
  }

  /**
   * Sends a message and shows it at once among `pending`. Resolves to its number when it is committed; rejects by name.
   * A body that does not show (white space, zero-width characters) is refused as `bad_request`.
   * A lost connection does not fail it: it goes out again under its nonce, and counts once.
   */
  send(body: string, { replyTo, nonce }: SendOptions = {}): Promise<Sent> {
    return this.#follower.send(body, replyTo ?? null, nonce ?? this.#uuid());
  }

  /** Sends a failed message again under its nonce. */
  resend(nonce: string): Promise<Sent> {
    return this.#follower.resend(nonce);
  }

  /** Forgets a failed message. */
  discard(nonce: string): void {
    this.#follower.discard(nonce);
  }

  /** Votes, changes the vote, or withdraws it with null. Shown at once, taken back if it is refused. */
  vote(voting: string, movie: string | null): Promise<void> {
    return this.#follower.vote(voting, movie);
  }

  /** Loads older messages into the window; false when there are none, or no room for more. */
  older(limit: number = PAGE): Promise<boolean> {
    return this.#loadOlder(this.#follower, limit);
  }

  /**
   * Holds the window where it is, for a list that is scrolled up: what is read there stays, however much arrives. Ends with
   * `newest`. `state.chat.arrived` counts what comes meanwhile.
   */
  readBack(): void {
    this.#follower.dispatch({ type: "read_back" });
  }

  /** Back to the newest messages: what was loaded or held for reading back may go. */
  newest(): void {
    this.#follower.dispatch({ type: "newest" });
  }

  /** Calls `listener` whenever `name` happens; gives how to stop. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (value: SessionEvents[Name]) => void): () => void {
    let isOn = true;
    const told = (state: SessionState, previous: SessionState) => {
      for (const value of TELLERS[name](state, previous)) if (isOn) tell(listener, value);
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
  [Symbol.asyncIterator](): AsyncIterator<SessionEvents["event"], undefined> {
    const queue: SessionEvents["event"][] = [];
    let error = this.state.error;
    let isDone = this.#isClosed;
    let wake = () => {};
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
      if (queue.length <= BEHIND_MAX) return;
      error = new AbandonedError("slow_consumer", `a loop fell ${BEHIND_MAX} events behind`);
      queue.length = 0;
      end();
    });
    this.#endings.add(end);
    return {
      async next() {
        for (;;) {
          const value = queue.shift();
          if (value !== undefined) return { done: false, value };
          if (error !== null) {
            const thrown = error;
            error = null;
            end();
            throw thrown;
          }
          if (isDone) return { done: true, value: undefined };
          await new Promise<void>((resolve) => (wake = resolve));
        }
      },
      async return() {
        end();
        return { done: true, value: undefined };
      },
    };
  }

  /** Lets go of the session. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const end of [...this.#endings]) end();
    this.#release();
  }
}

/** The voting of that id; without one the open one, else the one that closed last. */
export function findVoting(votings: readonly Voting[], given?: string): Voting | null {
  if (given === undefined) return votings[0] ?? null;
  const id = normalId(given);
  return votings.find((voting) => voting.id === id) ?? null;
}

type Teller<Value> = (state: SessionState, previous: SessionState) => readonly Value[];

/** What of a change is worth which event. */
const TELLERS: { readonly [Name in keyof SessionEvents]: Teller<SessionEvents[Name]> } = {
  change: (state) => [state],
  event: (state, previous) =>
    state.latest === previous.latest ? [] : state.latest.map((event) => ({ ...event, from: originOf(event, state) })),
  message: (state, previous) =>
    TELLERS.event(state, previous).flatMap((event) =>
      event.type === "chat.created" ? [{ ...event.data, seq: event.seq, from: event.from }] : [],
    ),
  failed: (state, previous) =>
    state.chat.pending === previous.chat.pending
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

function originOf({ seq }: LogEvent, { head, isResumed }: SessionState): Origin {
  return seq > head ? "live" : isResumed ? "missed" : "history";
}

function grown(what: "gaps" | "duplicates" | "resumes" | "resets"): Teller<Continuity> {
  return ({ continuity }, previous) => (continuity[what] > previous.continuity[what] ? [continuity] : []);
}

/** A listener that throws is its owner's affair; the others are told all the same. */
function tell<Value>(listener: (value: Value) => void, value: Value): void {
  try {
    listener(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
