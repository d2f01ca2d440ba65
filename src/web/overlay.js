// The overlay: chat and votes over a video, in OBS, for a whole evening.
//
// Draws when something has changed and not otherwise: there is no loop and no clock that ticks. Between a lost connection
// and the next one it shows what it last knew. Says something only where a person has to do something.

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
const rows = new Map(); // Message id to {item, element}.
let wake = null; // The one timer: the next moment at which something fades.
let closing = { id: null, at: 0 };

setAttribute(byId("overlay"), "data-side", settings.side);
setAttribute(byId("overlay"), "data-size", settings.size);
window.addEventListener("hashchange", () => location.reload());
const follow =
  place.session && isSessionId(place.session)
    ? followSession({ id: place.session, token: place.token, history: HISTORY, draw })
    : null;
if (follow === null) say("The address of this overlay names no session: ?session=… is missing.");

function draw(room) {
  const stop = stopCode(room);
  say(stop === null ? null : (STOPS[stop] ?? `The overlay was stopped: ${stop}.`));
  const now = time();
  const moments = [settings.votes ? drawVote(room, now) : null, settings.chat ? drawChat(room, now) : null];
  const next = Math.min(...moments.map((moment) => moment ?? Number.POSITIVE_INFINITY));
  clearTimeout(wake);
  if (Number.isFinite(next)) wake = setTimeout(() => draw(follow.room()), Math.min(next - now + 20, TIMER_MS_MAX));
}

/** Draws the voting; gives when it is to go. */
function drawVote(room, now) {
  const voting = currentVoting(room);
  const isClosed = voting?.status === "closed";
  // A result that was there from the start is old news.
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

/** Draws the newest messages; gives when the oldest of them is to go. */
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

/** What has no room for all of it is not shown, but for the newest message: half a line looks broken. */
function hideCut() {
  const list = byId("chat");
  const rows = [...list.children];
  // All are measured before any is changed: one layout.
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
  unauthorized: "The token of this overlay is not valid. Make a new one and change the address in OBS.",
  issuer_not_accepted: "This server does not accept the issuer of this overlay's token. Make a new one and change the address in OBS.",
  token_too_large: "The token of this overlay is too large. Make a new one and change the address in OBS.",
  token_expired: "The token of this overlay has expired. Make a new one and change the address in OBS.",
  forbidden: "This overlay may not show the session: its token was revoked, or is for another session.",
  not_found: "This overlay finds no such session. A private one needs a token in its address: #token=…",
  banned: "This overlay may not show the session: its user is banned.",
};
