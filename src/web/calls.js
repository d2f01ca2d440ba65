// The gateway's HTTP calls for moderators, with the token from the page's address.

import { call } from "./client/http.js";
import { normalId } from "./client/ids.js";

/** Returns the calls for one session. Each resolves to the `data` of the answer, or rejects with a code. */
export function callsOf(session, token) {
  const caller = { world: { fetch: (url, init) => fetch(url, init) }, base: "", token: async () => token };
  const send = (method, path, body) =>
    call(caller, method, path, {
      ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
  const place = `/v1/sessions/${normalId(session)}`;
  return {
    movies: (search) => send("GET", `/v1/movies?${new URLSearchParams({ search, limit: "30" })}`),
    openVoting: (voting) => send("POST", `${place}/votings`, voting),
    changeVoting: (voting, change) => send("PATCH", `/v1/votings/${voting}`, change),
    changeSession: (change) => send("PATCH", place, change),
    deleteMessage: (message) => send("DELETE", `/v1/messages/${message}`),
    bans: () => send("GET", `${place}/bans`),
    ban: (user, seconds) => send("PUT", `${place}/bans/${user}`, { seconds }),
    liftBan: (user) => send("DELETE", `${place}/bans/${user}`),
  };
}

/** Turns an error into a sentence that says what to do. */
export function words({ code, message, retryAfterMs }) {
  if (code === "no_answer") return "Cannot reach the gateway. Check your connection and try again.";
  if (code === "busy") return "The session is busy, so nothing changed. Try again.";
  if (code === "unavailable") return "The gateway cannot reach the database. Try again in a moment.";
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  return retryAfterMs ? `${sentence}. Try again in ${Math.ceil(retryAfterMs / 1000)} s.` : `${sentence}.`;
}
