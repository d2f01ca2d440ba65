// A clock, timers and sockets that only move when a test says so.

export class FakeWorld {
  time = 1_000_000;
  sockets = [];
  #timers = new Map();
  #next = 1;

  now = () => this.time;
  timers = {
    set: (act, ms) => {
      const handle = this.#next++;
      this.#timers.set(handle, { at: this.time + ms, act });
      return handle;
    },
    clear: (handle) => this.#timers.delete(handle),
  };

  open = () => {
    const socket = {
      readyState: 1,
      sent: [],
      closed: null,
      send: (text) => socket.sent.push(JSON.parse(text)),
      close: (code) => ((socket.readyState = 3), (socket.closed = code)),
    };
    this.sockets.push(socket);
    return socket;
  };

  get socket() {
    return this.sockets.at(-1);
  }

  /** Runs every timer that comes due within `ms`, in order. */
  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.#timers]
        .filter(([, timer]) => timer.at <= end)
        .sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].act();
    }
    this.time = end;
  }

  /** The machine sleeps: time passes, no timer runs until it wakes. */
  sleep(ms) {
    this.time += ms;
    this.pass(0);
  }

  say(frame) {
    this.socket.onmessage({ data: JSON.stringify(frame) });
  }

  cut(code = 1006) {
    const socket = this.socket;
    socket.readyState = 3;
    socket.onclose({ code });
  }
}

export const SESSION = "11111111-1111-4111-8111-111111111111";
export const VOTING = "22222222-2222-4222-8222-222222222222";

export function chatEvent(seq, { user = "u1", body = `message ${seq}`, nonce = null, ...rest } = {}) {
  const author = { username: user, display_name: user, avatar_path: null, role: "viewer" };
  return {
    seq,
    type: "chat.created",
    at: new Date(seq * 1000).toISOString(),
    data: { id: `m${seq}`, user_id: user, body, nonce, author, ...rest },
  };
}

export function subscribed(more = {}) {
  return {
    type: "subscribed",
    session: SESSION,
    epoch: "e1",
    seq: 0,
    recovered: false,
    reason: "fresh",
    resume_token: "t1",
    viewers: 3,
    can: { send: true, vote: true, moderate: false },
    info: { title: "Night", status: "live", slow_mode_seconds: 0, chat_enabled: true },
    votings: [],
    ...more,
  };
}
