// Follows one session over a connection: subscribes, resumes, sends and votes, and settles what was asked.
//
// Holds what is on its way, so that a message or vote caught by a lost socket goes out again after the resume, under
// its old nonce, and counts once. The state itself lives in the reducer; this module only feeds it.

/** A message without an answer for this long has failed by name. */
const ANSWER_TIMEOUT_MS = 15_000;
/** Silence after which the client takes itself as level when the server did not say where the log ends. */
const QUIET_MS = 250;
/** A busy chat is never silent; this long after the subscription it counts as level anyway. */
const LEVEL_MS_MAX = 3000;
const RETRY_SUBSCRIBE_MS = 2000;

/** One followed session. `outside` has `dispatch`, `state`, `now`, `uuid`, `timers` and `connection`. */
export class Session {
  #outside;
  #next = 1; // The next frame id.
  #asked = new Map(); // Frame id to what it was: {kind, …}.
  #outgoing = new Map(); // Nonce to {body, replyTo, timer}.
  #wishes = new Map(); // Voting to the movie that is wanted.
  #level = { quiet: null, most: null };
  #subscribed = false;

  constructor(outside) {
    this.#outside = outside;
  }

  /** Asks to follow the session, from where it left off if it ever did. Called whenever the connection is ready. */
  subscribe() {
    this.#subscribed = false;
    this.#asked.clear();
    const resume = this.#outside.resume();
    const id = this.#ask({ kind: "subscribe" });
    const session = this.#session();
    this.#frame(
      resume ? { type: "subscribe", id, session, resume } : { type: "subscribe", id, session, history: 100 },
    );
  }

  /** Sends a message and shows it at once. */
  send(body, replyTo = null) {
    const nonce = this.#outside.uuid();
    this.#dispatch({ type: "send", message: { nonce, body, replyTo, at: this.#outside.now() } });
    this.#outgoing.set(nonce, { body, replyTo, timer: null });
    this.#post(nonce);
    return nonce;
  }

  /** Sends a failed message again under the same nonce: if it did arrive after all, it still counts once. */
  retry(nonce) {
    const failed = this.#outside.state().chat.pending.find((item) => item.nonce === nonce);
    if (!failed) return;
    const { body, replyTo } = failed;
    this.#dispatch({ type: "send", message: { nonce, body, replyTo, at: this.#outside.now() } });
    this.#outgoing.set(nonce, { body, replyTo, timer: null });
    this.#post(nonce);
  }

  /** Forgets a failed message. */
  discard(nonce) {
    this.#forget(nonce);
    this.#dispatch({ type: "send_dropped", nonce });
  }

  /** Votes, changes the vote, or withdraws it with null. */
  vote(voting, movie) {
    this.#dispatch({ type: "vote", voting, movie });
    this.#wishes.set(voting, movie);
    this.#cast(voting);
  }

  /** Takes a frame from the connection. */
  onFrame(frame) {
    const asked = this.#take(frame.id);
    if (frame.type === "error") return this.#onError(frame, asked);
    if (frame.type === "ack") return this.#onAck(frame, asked);
    const mine = frame.session === this.#session();
    if (frame.type === "unsubscribed" && mine)
      return this.#outside.connection.stop(frame.reason ?? "forbidden");
    if (frame.type === "subscribed" && mine) return this.#onSubscribed(frame);
    this.#dispatch({ type: "frame", frame, now: this.#outside.now() });
    if (mine && frame.type === "events") this.#onQuiet(QUIET_MS);
    if (mine && frame.type === "reset") this.#awaitLevel();
    if (frame.type === "token_expiring")
      this.#toast("warn", "Your sign-in expires within a minute. Open a fresh link to stay signed in.");
  }

  #onSubscribed(frame) {
    this.#subscribed = true;
    this.#dispatch({ type: "link", link: { phase: "live" } });
    this.#dispatch({ type: "frame", frame, now: this.#outside.now() });
    this.#outside.connection.settled();
    this.#awaitLevel();
    for (const nonce of this.#outgoing.keys()) this.#post(nonce);
    for (const voting of this.#wishes.keys()) this.#cast(voting);
  }

  #onAck(frame, asked) {
    if (asked?.kind === "send") {
      this.#forget(asked.nonce);
      this.#dispatch({
        type: "sent",
        nonce: asked.nonce,
        seq: frame.seq,
        message: frame.message,
        now: this.#outside.now(),
      });
    } else if (asked?.kind === "vote") {
      if (this.#wishes.get(asked.voting) === asked.movie) this.#wishes.delete(asked.voting);
      this.#dispatch({ type: "voted", voting: asked.voting, movie: asked.movie });
    }
  }

  #onError(frame, asked) {
    if (asked?.kind === "send") return this.#onSendError(asked.nonce, frame);
    if (asked?.kind === "vote") {
      if (this.#wishes.get(asked.voting) === asked.movie) this.#wishes.delete(asked.voting);
      const text = VOTE_ERRORS[frame.code] ?? `Your vote was not counted: ${frame.message ?? frame.code}`;
      this.#dispatch({ type: "vote_failed", voting: asked.voting, movie: asked.movie, text });
    } else if (asked?.kind === "subscribe") {
      const again = frame.retry_after_ms ?? (frame.code === "internal" ? RETRY_SUBSCRIBE_MS : null);
      if (again === null) this.#outside.connection.stop(frame.code ?? "refused");
      else this.#outside.timers.set(() => !this.#subscribed && this.subscribe(), again);
    } else {
      this.#toast("warn", frame.message ?? frame.code ?? "Something went wrong");
    }
  }

  #onSendError(nonce, frame) {
    if (!this.#outgoing.has(nonce)) return;
    this.#forget(nonce);
    const { code = "internal", message = "" } = frame;
    this.#dispatch({
      type: "send_failed",
      nonce,
      code,
      message,
      retryAfterMs: frame.retry_after_ms,
      now: this.#outside.now(),
    });
  }

  // Without a subscription nothing goes out: it would overtake the sign-in or the resume. The timeout runs anyway.
  #post(nonce) {
    const message = this.#outgoing.get(nonce);
    if (message.timer === null) {
      message.timer = this.#outside.timers.set(() => this.#onSendError(nonce, NO_ANSWER), ANSWER_TIMEOUT_MS);
    }
    if (!this.#subscribed) return;
    const id = this.#ask({ kind: "send", nonce });
    const frame = { type: "send", id, session: this.#session(), body: message.body, nonce };
    if (message.replyTo) frame.reply_to = message.replyTo;
    this.#frame(frame);
  }

  #cast(voting) {
    if (!this.#subscribed) return;
    const movie = this.#wishes.get(voting);
    const id = this.#ask({ kind: "vote", voting, movie });
    this.#frame({ type: "vote", id, voting, movie });
    this.#outside.timers.set(() => {
      const asked = this.#take(id);
      if (asked) this.#onError(NO_ANSWER, asked);
    }, ANSWER_TIMEOUT_MS);
  }

  #awaitLevel() {
    const { timers } = this.#outside;
    timers.clear(this.#level.most);
    this.#level.most = timers.set(() => this.#onLevel(), LEVEL_MS_MAX);
    this.#onQuiet(QUIET_MS * 2);
  }

  #onQuiet(ms) {
    if (this.#level.most === null) return;
    this.#outside.timers.clear(this.#level.quiet);
    this.#level.quiet = this.#outside.timers.set(() => this.#onLevel(), ms);
  }

  #onLevel() {
    this.#outside.timers.clear(this.#level.quiet);
    this.#outside.timers.clear(this.#level.most);
    this.#level = { quiet: null, most: null };
    this.#dispatch({ type: "level" });
  }

  #forget(nonce) {
    const message = this.#outgoing.get(nonce);
    if (message) this.#outside.timers.clear(message.timer);
    this.#outgoing.delete(nonce);
  }

  #ask(what) {
    const id = this.#next;
    this.#next += 1;
    this.#asked.set(id, what);
    return id;
  }

  #take(id) {
    const asked = this.#asked.get(id) ?? null;
    this.#asked.delete(id);
    return asked;
  }

  #frame(frame) {
    this.#outside.connection.send(frame);
  }

  #dispatch(action) {
    this.#outside.dispatch(action);
  }

  #toast(tone, text) {
    this.#dispatch({ type: "toast", tone, text });
  }

  #session() {
    return this.#outside.state().session;
  }

  /** The socket is gone; what was asked on it will not be answered. */
  onLost() {
    this.#subscribed = false;
    this.#asked.clear();
  }
}

const NO_ANSWER = { code: "no_answer", message: "no answer from the server" };

const VOTE_ERRORS = {
  no_answer: "No answer to your vote. Please try again.",
  voting_closed: "Voting has closed; this vote came too late.",
  conflict: "Votes cannot be changed here; your first one counts.",
  banned: "You are timed out and cannot vote.",
  session_ended: "This session has ended.",
  forbidden: "You cannot vote in this session.",
  rate_limited: "That was a little fast. Try again in a moment.",
};
