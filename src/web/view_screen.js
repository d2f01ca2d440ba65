// The card in place of a session: finding the seat, the start screen, and each way in which it can go wrong.

import { byId, el, setShown, setText } from "./dom.js";
import { normalId } from "./client/ids.js";
import { addressOf, isSessionId } from "./identity.js";
import { stopCode } from "./room.js";

/** Attempts before a server that was never reached is called unreachable. */
const FAILURES_UNREACHABLE = 2;

/** The card. `on` is {retry, go, instead, welcome}: try again now, go to another address, and cards of the page's own. */
export function screenView(on) {
  let shown = null;
  byId("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const session = normalId(byId("start-session").value.trim());
    const token = byId("start-token").value.trim();
    if (isSessionId(session)) on.go(addressOf(session, token || null));
    else {
      setText(byId("start-error"), "That is not a session id: it is a uuid, 36 characters long.");
      byId("start-session").focus();
    }
  });
  return { render, start };

  /** The screen of somebody who named no session, or none that can be one. */
  function start(bad) {
    document.body.dataset.screen = "card";
    const { title, text } = on.welcome ?? WELCOME;
    setText(byId("card-title"), title);
    setText(byId("card-text"), text);
    setShown(byId("start"), true);
    setShown(byId("start-hint"), true);
    if (bad) setText(byId("start-error"), "The address names no valid session id.");
    byId("start-session").focus();
  }

  function render(state) {
    const card = cardOf(state) ?? on.instead?.(state) ?? null;
    document.body.dataset.screen = card ? "card" : "session";
    const key = card?.title ?? null;
    if (key === shown) return;
    shown = key;
    if (!card) return;
    setText(byId("card-title"), card.title);
    setText(byId("card-text"), card.text);
    byId("card-actions").replaceChildren(...(card.actions ?? []).map((name) => action(name, state, on)));
    if (card.actions) byId("card-title").focus();
  }
}

function cardOf(state) {
  const stop = stopCode(state);
  if (stop !== null)
    return STOPS[stop] ?? { ...STOPS.refused, text: `The server ended the connection (${stop}).` };
  if (state.ready) return null;
  if (state.connection.failures >= FAILURES_UNREACHABLE) return UNREACHABLE;
  return { title: "Finding your seat…", text: "" };
}

function action(name, state, on) {
  if (name === "retry")
    return el("button", { type: "button", class: "primary", onclick: on.retry }, "Try again");
  if (name === "guest")
    return el(
      "button",
      { type: "button", class: "ghost", onclick: () => on.go(addressOf(state.id, null)) },
      "Watch as a guest",
    );
  if (name === "watch")
    return el(
      "button",
      { type: "button", class: "primary", onclick: () => on.go(`/${location.search}${location.hash}`) },
      "Watch instead",
    );
  return el(
    "button",
    { type: "button", class: "ghost", onclick: () => on.go(location.pathname) },
    "Choose another session",
  );
}

const WELCOME = {
  title: "Welcome to Usher",
  text: "Live chat and votes for movie nights. Which session shall it be?",
};

const STOPS = {
  unauthorized: {
    title: "That ticket is not valid",
    text: "The token in this address was not accepted. It may be mistyped or come from another server.",
    actions: ["guest", "other"],
  },
  issuer_not_accepted: {
    title: "That ticket is from elsewhere",
    text: "The token in this address was issued by a server that this one does not accept.",
    actions: ["guest", "other"],
  },
  token_too_large: {
    title: "That ticket is too large",
    text: "The token in this address is larger than the server takes.",
    actions: ["guest", "other"],
  },
  token_expired: {
    title: "Your ticket has expired",
    text: "Open a fresh link to come back in. Nothing is lost: you can catch up from the log.",
    actions: ["guest", "other"],
  },
  banned: {
    title: "You cannot enter this session",
    text: "A moderator has removed you from it.",
    actions: ["other"],
  },
  forbidden: {
    title: "You cannot watch this session any more",
    text: "It was deleted or has become private, or you are no longer one of its members.",
    actions: ["other"],
  },
  not_found: {
    title: "No such session",
    text: "It does not exist, or it is private and you are not one of its members. If you were invited, open the link while signed in.",
    actions: ["retry", "other"],
  },
  session_ended: { title: "This session has ended", text: "Thanks for watching.", actions: ["other"] },
  protocol: {
    title: "This page is out of date",
    text: "The server does not understand it any more. Reload to get the present one.",
    actions: ["retry"],
  },
  refused: { title: "The server ended the connection", text: "", actions: ["retry", "other"] },
};

const UNREACHABLE = {
  title: "The server cannot be reached",
  text: "It may be starting, or your network may be down. This page keeps trying.",
  actions: ["retry"],
};
