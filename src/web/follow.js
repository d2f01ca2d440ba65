// The shell of every page that follows a session: gives the client a token, folds what it tells, and draws.

import { connect } from "./client/index.js";
import { StoppedError } from "./client/errors.js";
import { identityOf } from "./identity.js";
import { now, TIMER_MS_MAX } from "./now.js";
import { initialRoom, reduce } from "./room.js";

const WARN_EXPIRY_MS = 60_000;

/**
 * Follows a session. `draw(room)` is called once a frame in which something has changed. Gives {session, client, call,
 * room, dispatch, retry}.
 */
export function followSession({ id, token, history, draw }) {
  const me = identityOf(token);
  let room = initialRoom(id, me);
  let drawing = false;
  let hasOpened = false;

  const client = connect({ url: location.origin, history, getToken });
  const session = client.session(id);
  client.onConnection((state) => {
    hasOpened ||= state.status === "open";
    dispatch({ type: "connection", state });
  });
  session.on("change", (state) => dispatch({ type: "session", state }));
  session.on("failed", (item) => dispatch({ type: "refused", error: item.error }));
  dispatch({ type: "connection", state: client.connection });
  // One long timer, and not a look at the clock each second.
  const warnIn = me.expiresAt === null ? null : Math.max(0, me.expiresAt - WARN_EXPIRY_MS - now());
  // A page that is open for 24 days does without the warning.
  if (warnIn !== null && warnIn <= TIMER_MS_MAX) setTimeout(warn, warnIn);
  return { session, dispatch, retry, room: () => room };

  // A link's token is never renewed. Whether it ran out while it was in use, its own date says.
  function getToken() {
    if (hasOpened && me.expiresAt !== null && me.expiresAt <= now())
      throw new StoppedError("token_expired", "the token in the address has expired");
    return token;
  }

  function dispatch(action) {
    room = reduce(room, { ...action, now: now() });
    if (drawing) return;
    drawing = true;
    // Many frames of one instant are drawn once. A hidden page draws nothing.
    requestAnimationFrame(() => {
      drawing = false;
      draw(room);
    });
  }

  /** Tries now what would be tried later; what has stopped for good begins anew. */
  function retry() {
    if (room.session.status === "stopped" || room.connection.status === "stopped") location.reload();
    else client.wake();
  }

  function warn() {
    const text = "Your sign-in expires within a minute. Open a fresh link to stay signed in.";
    if (room.connection.status === "open") dispatch({ type: "toast", tone: "warn", text });
  }
}
