// The overlay: chat and poll over a video in OBS.
//
// Draws only after a change, without a loop or a ticking clock. While it reconnects, it shows the last state. It shows
// an error only if a person has to act.

import { barsView } from "./bars.js";
import { nameColour } from "./colour.js";
import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { followSession } from "./follow.js";
import { plural } from "./format.js";
import { isSessionId, placeOf } from "./identity.js";
import { now as time, TIMER_MS_MAX } from "./now.js";
import { currentVoting, stopCode } from "./room.js";
import { settingsOf } from "./settings.js";

const HISTORY = 30;
const place = placeOf(location.search, location.hash);
const settings = settingsOf(location.search);
const bars = barsView(byId("bars"));
const rows = new Map(); // From message id to {item, element}.
let wake = null; // The only timer. It fires when the next message or result must disappear.
let closing = { id: null, at: 0 };

setAttribute(byId("overlay"), "data-side", settings.side);
setAttribute(byId("overlay"), "data-size", settings.size);
window.addEventListener("hashchange", () => location.reload());
const follow =
  place.session && isSessionId(place.session)
    ? followSession({ id: place.session, token: place.token, history: HISTORY, draw })
    : null;
if (follow === null) say("The address of this overlay has no session ID. Add ?session=… to the URL in OBS.");

function draw(room) {
  const stop = stopCode(room);
  say(stop === null ? null : (STOPS[stop] ?? `The overlay stopped (${stop}). Refresh the browser source in OBS.`));
  const now = time();
  const moments = [settings.votes ? drawVote(room, now) : null, settings.chat ? drawChat(room, now) : null];
  const next = Math.min(...moments.map((moment) => moment ?? Number.POSITIVE_INFINITY));
  clearTimeout(wake);
  if (Number.isFinite(next)) wake = setTimeout(() => draw(follow.room()), Math.min(next - now + 20, TIMER_MS_MAX));
}

/** Draws the poll. Returns the time when its result must disappear; null if it has none. */
function drawVote(room, now) {
  const voting = currentVoting(room);
  const isClosed = voting?.status === "closed";
  // Does not show a result that was already there when the overlay opened.
  if (isClosed && closing.id !== voting.id) closing = { id: voting.id, at: wasOpen(voting.id) ? now : 0 };
  if (voting?.status === "open") setAttribute(byId("vote"), "data-open", voting.id);
  const until = isClosed ? closing.at + settings.resultMs : null;
  const isShown = voting !== null && (voting.status === "open" || until > now);
  setShown(byId("vote"), isShown);
  if (!isShown) return null;
  setText(byId("vote-question"), voting.question);
  setText(byId("vote-note"), `${isClosed ? "Result · " : ""}${plural(voting.total, "vote")}`);
  bars.render(voting);
  return until;
}

function wasOpen(id) {
  return byId("vote").dataset.open === id;
}

/** Draws the newest messages. Returns the time when the oldest one must disappear; null if it stays. */
function drawChat(room, now) {
  const isFresh = (item) => settings.fadeMs === 0 || item.at + settings.fadeMs > now;
  const said = room.items.filter((item) => item.kind === "message" && !item.deleted && isFresh(item));
  const shown = said.slice(-settings.lines);
  const kept = new Set(shown.map((item) => item.id));
  for (const [id, { element }] of rows) {
    if (kept.has(id)) continue;
    element.remove();
    rows.delete(id);
  }
  for (const item of shown) {
    const old = rows.get(item.id);
    if (old?.item === item) continue;
    const element = rowOf(item);
    if (old) old.element.replaceWith(element);
    else byId("chat").append(element);
    rows.set(item.id, { item, element });
  }
  hideCut();
  return settings.fadeMs > 0 && shown.length > 0 ? shown[0].at + settings.fadeMs : null;
}

/** Hides messages that do not fit completely, except the newest one. */
function hideCut() {
  const list = byId("chat");
  const rows = [...list.children];
  // Measures all rows before it changes one, so the browser computes the layout once.
  const isCut = rows.map((row) => row !== list.lastElementChild && row.offsetTop < list.offsetTop);
  for (const [index, row] of rows.entries()) setAttribute(row, "data-cut", isCut[index]);
}

function rowOf({ name, userId, body }) {
  const author = el("b", { dir: "auto" }, name);
  author.style.color = nameColour(userId ?? name);
  return el("li", {}, author, el("span", { dir: "auto" }, body));
}

function say(text) {
  setShown(byId("note"), text !== null);
  setText(byId("note"), text ?? "");
}

const STOPS = {
  unauthorized: "The token of this overlay is not valid. Create a new one and change the URL in OBS.",
  issuer_not_accepted: "The token of this overlay is from another server. Create a new one and change the URL in OBS.",
  token_too_large: "The token of this overlay is too large. Create a new one and change the URL in OBS.",
  token_expired: "The token of this overlay has expired. Create a new one and change the URL in OBS.",
  forbidden:
    "The token of this overlay is revoked or belongs to another session. Create a new one and change the URL in OBS.",
  not_found: "Session not found. Check the URL in OBS. A private session needs an overlay token in it: #token=…",
  banned: "The user of this overlay is banned. Create an overlay token and change the URL in OBS.",
};
