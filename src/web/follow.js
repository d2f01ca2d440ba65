// Connects a page to a session: passes the token to the client, applies its changes to the room, and draws.

import { connect } from "./client/index.js";
import { StoppedError } from "./client/errors.js";
import { identityOf } from "./identity.js";
import { now, TIMER_MS_MAX } from "./now.js";
import { initialRoom, reduce } from "./room.js";

const WARN_EXPIRY_MS = 60_000;

/**
 * Follows a session. Calls `draw(room)` at most once per animation frame, after a change. Returns {session, dispatch,
 * retry, room}.
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
  // Uses one long timer instead of checking the clock every second.
  const warnIn = me.expiresAt === null ? null : Math.max(0, me.expiresAt - WARN_EXPIRY_MS - now());
  // Skips the warning if it is more than 24 days away, which is too long for a browser timer.
  if (warnIn !== null && warnIn <= TIMER_MS_MAX) setTimeout(warn, warnIn);
  return { session, dispatch, retry, room: () => room };

  // The page cannot renew the token of a link. After the first connection, an expired token ends the session.
  function getToken() {
    if (hasOpened && me.expiresAt !== null && me.expiresAt <= now())
      throw new StoppedError("token_expired", "the token in the address has expired");
    return token;
  }

  function dispatch(action) {
    room = reduce(room, { ...action, now: now() });
    if (drawing) return;
    drawing = true;
    // Draws several changes together. A hidden page draws nothing.
    requestAnimationFrame(() => {
      drawing = false;
      draw(room);
    });
  }

  /** Retries immediately. Reloads the page if the session or the connection has stopped. */
  function retry() {
    if (room.session.status === "stopped" || room.connection.status === "stopped") location.reload();
    else client.wake();
  }

  function warn() {
    const text = "Your sign-in expires within a minute. Open a new link to stay signed in.";
    if (room.connection.status === "open") dispatch({ type: "toast", tone: "warn", text });
  }
}
