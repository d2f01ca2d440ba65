// The gateway's calls for those who moderate, with the token of the page's address.

import { call } from "./client/http.js";
import { normalId } from "./client/ids.js";

/** The calls for one session. Each gives the `data` of the answer, or rejects by name. */
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

/** A refusal in a sentence. */
export function words({ code, message, retryAfterMs }) {
  if (code === "no_answer") return "The gateway cannot be reached. Nothing was changed.";
  if (code === "busy") return "The session is busy at the moment, and nothing was changed. Try again.";
  if (code === "unavailable") return "The database cannot be reached at the moment. Try again.";
  if (code === "busy") return "Another change holds this back at the moment. Try again.";
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  return retryAfterMs ? `${sentence} (in ${Math.ceil(retryAfterMs / 1000)} s)` : `${sentence}.`;
}
