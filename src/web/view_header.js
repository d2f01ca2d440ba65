// Shows the top bar: title and status of the session, number of viewers, connection, and the viewer's name.

import { nameColour, initials } from "./colour.js";
import { byId, setAttribute, setShown, setText } from "./dom.js";
import { count, shortCount } from "./format.js";
import { addressOf } from "./identity.js";
import { linkPhase } from "./room.js";

const STATUS = { live: "Live", scheduled: "Soon", ended: "Ended" };

/** Creates the header. The button calls `retry`. The links between the pages keep the session and token of `place`. */
export function headerView({ retry, place }) {
  byId("retry").addEventListener("click", retry);
  for (const link of byId("nav").querySelectorAll("a"))
    link.href = link.dataset.page + (place.session ? addressOf(place.session, place.token) : "");
  return { render, tick };
}

function render(state) {
  const title = state.info.title || (state.ready ? "Untitled session" : "Usher");
  setText(byId("title"), title);
  byId("title").title = title;
  document.title = state.info.title ? `${state.info.title} · Usher` : "Usher";

  const status = byId("status");
  setShown(status, state.ready && Boolean(state.info.status));
  status.dataset.status = state.info.status;
  setText(status, STATUS[state.info.status] ?? state.info.status);

  const { viewers, can } = state.session;
  setShown(byId("viewers"), viewers !== null);
  if (viewers !== null) {
    setText(byId("viewers-count"), shortCount(viewers));
    byId("viewers").title = `${count(viewers)} watching now`;
  }
  renderMe(state.me, can);
  setShown(byId("nav"), can.moderate);
}

function renderMe(me, can) {
  const role = me.anonymous ? "not signed in" : can.moderate ? "moderator" : "signed in";
  setText(byId("me-name"), me.anonymous ? "Guest" : me.name);
  byId("me").title = `${me.anonymous ? "Guest" : me.name}, ${role}`;
  setText(byId("me-avatar"), me.anonymous ? "?" : initials(me.name));
  byId("me-avatar").style.backgroundColor = me.anonymous ? "" : nameColour(me.sub);
  setAttribute(byId("me"), "data-anonymous", me.anonymous ? "yes" : null);
}

function tick(state, now) {
  const phase = linkPhase(state);
  byId("link").dataset.phase = phase;
  const text = phaseText(state, phase, now);
  setText(byId("link-text"), text);
  byId("link").title = text;
  // A screen reader announces changes of the phase, but not each second of the countdown.
  setAttribute(byId("link"), "aria-live", phase === "waiting" ? "off" : null);
  setShown(byId("retry"), phase === "waiting" && state.connection.retryAt - now > 1500);
}

function phaseText(state, phase, now) {
  if (phase === "live") return "Connected";
  if (phase === "catching_up") return "Catching up…";
  if (phase === "offline") return "Offline";
  if (phase === "stopped") return "Disconnected";
  if (phase === "connecting") return state.ready ? "Reconnecting…" : "Connecting…";
  const seconds = Math.ceil(Math.max(0, state.connection.retryAt - now) / 1000);
  return seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
}
