/** The app's handle of one followed session. */

import { hasOlder, type Message, type PendingMessage } from "./chat.ts";
import type { Continuity } from "./continuity.ts";
import { AbandonedError } from "./errors.ts";
import type { Follower, Sent } from "./follower.ts";
import { normalId } from "./ids.ts";
import type { SessionState, SessionStatus } from "./state.ts";
import type { Voting } from "./votings.ts";
import type { Can, LogEvent, SessionInfo } from "./wire.ts";

/** The most events that wait for a loop. With more, the loop ends with `slow_consumer`. */
const BEHIND_MAX = 1000;
/** The default number of messages in one page of older ones. */
const PAGE = 50;

/**
 * The origin of an event:
 * - `history`: the history at the start of a session;
 * - `missed`: it happened while the connection was lost;
 * - `live`: it is new. Play a sound or show a notification only for these.
 */
export type Origin = "history" | "missed" | "live";

/** The events of a session, with the value that their listeners receive. */
export interface SessionEvents {
  /** Any part of the state changed. The value is the whole state. */
  change: SessionState;
  /** A log event, each once and in order. */
  event: LogEvent & { readonly from: Origin };
  /** A new chat message, including the viewer's own. `from` is `live` for new messages. */
  message: Message & { readonly seq: number; readonly from: Origin };
  /** A message of the viewer failed: the gateway refused it or did not answer. */
  failed: PendingMessage;
  /** A poll opened, changed or closed, or its counts changed. */
  voting: Voting;
  /** The number of viewers changed. */
  viewers: number;
  status: SessionStatus;
  /** The client reconnected, and no event is missing. `resumes` counts these. */
  resume: Continuity;
  /** The gateway started over: later events do not continue the earlier ones. */
  reset: Continuity;
  /** The gateway broke its promise: event numbers are missing or arrived twice. */
  discontinuity: Continuity;
}

/** Options for sending a message. */
export interface SendOptions {
  /** The id of the message that this one answers. */
  readonly replyTo?: string;
  /** A uuid from the app. Two sends with the same nonce create one message. */
  readonly nonce?: string;
}

/** Loads older messages into a follower. Resolves to false if none exist. */
export type LoadOlder = (follower: Follower, limit: number) => Promise<boolean>;

/**
 * One followed session. Several `Session` objects may share one subscription. The client unsubscribes after the app has
 * closed the last of them.
 */
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

  /** The id of the session. */
  get id(): string {
    return this.#follower.id;
  }

  /** The whole state of the session, as one immutable value. */
  get state(): SessionState {
    return this.#follower.state;
  }

  /** The status of the session. */
  get status(): SessionStatus {
    return this.state.status;
  }

  /** Title, status, slow mode and other properties of the session; null until the first subscription. */
  get info(): SessionInfo | null {
    return this.state.info;
  }

  /** The viewer's permissions in the session. */
  get can(): Can {
    return this.state.can;
  }

  /** The messages in the chat window, oldest first. */
  get messages(): readonly Message[] {
    return this.state.chat.messages;
  }

  /** The viewer's own messages that are unanswered or failed. */
  get pending(): readonly PendingMessage[] {
    return this.state.chat.pending;
  }

  /** Whether messages older than the window may exist. */
  get hasOlder(): boolean {
    return hasOlder(this.state.chat);
  }

  /** The number of viewers; null until the gateway sends it. */
  get viewers(): number | null {
    return this.state.viewers;
  }

  /** The client's position in the log and its counters, which show that no event is missing. */
  get continuity(): Continuity {
    return this.state.continuity;
  }

  /** Returns a poll with its counts: the one with this id; without an id the open one, or else the last closed one. */
  tally(voting?: string): Voting | null {
    return findVoting(this.state.votings, voting);
  }

  /**
   * Sends a message and shows it immediately in `pending`. Resolves to its event number after the commit. Rejects with
   * an `UsherError`.
   *
   * The gateway refuses a body that contains only white space or invisible characters, with `bad_request`. If the
   * connection is lost, the client sends the message again with the same nonce, so it counts once.
   */
  send(body: string, { replyTo, nonce }: SendOptions = {}): Promise<Sent> {
    return this.#follower.send(body, replyTo ?? null, nonce ?? this.#uuid());
  }

  /** Sends a failed message again with its nonce. */
  resend(nonce: string): Promise<Sent> {
    return this.#follower.resend(nonce);
  }

  /** Removes a failed message from `pending`. */
  discard(nonce: string): void {
    this.#follower.discard(nonce);
  }

  /**
   * Votes, changes the vote, or withdraws it with null. The state shows the vote immediately, and reverts it if the
   * gateway refuses it.
   */
  vote(voting: string, movie: string | null): Promise<void> {
    return this.#follower.vote(voting, movie);
  }

  /** Loads older messages into the window. Resolves to false if none exist, or if the window is full. */
  older(limit: number = PAGE): Promise<boolean> {
    return this.#loadOlder(this.#follower, limit);
  }

  /**
   * Fixes the start of the window, for a list that is scrolled up: its messages stay in the window while new ones
   * arrive. `state.chat.arrived` counts the new ones. `newest` ends this.
   */
  readBack(): void {
    this.#follower.dispatch({ type: "read_back" });
  }

  /** Returns the window to the newest messages. Drops older messages that do not fit any more. */
  newest(): void {
    this.#follower.dispatch({ type: "newest" });
  }

  /** Calls `listener` for each event `name`. Returns a function that removes the listener. */
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
   * Iterates over the log events that arrive from now on, each once and in order. The loop ends when the app closes the
   * session. It throws if the session stops, or if the loop falls more than 1,000 events behind.
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

  /** Removes all listeners and releases the session. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const end of [...this.#endings]) end();
    this.#release();
  }
}

/** Returns the poll with this id; without an id the open poll, or else the one that closed last. */
export function findVoting(votings: readonly Voting[], given?: string): Voting | null {
  if (given === undefined) return votings[0] ?? null;
  const id = normalId(given);
  return votings.find((voting) => voting.id === id) ?? null;
}

type Teller<Value> = (state: SessionState, previous: SessionState) => readonly Value[];

/** For each event: returns the values to emit for a change of the state. */
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

/** Calls a listener. Reports an exception as uncaught, so that the other listeners still run. */
function tell<Value>(listener: (value: Value) => void, value: Value): void {
  try {
    listener(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
