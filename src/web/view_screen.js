// The card in place of a session: the start screen, the loading screen, and one card per error.

import { byId, el, setShown, setText } from "./dom.js";
import { normalId } from "./client/ids.js";
import { addressOf, isSessionId } from "./identity.js";
import { stopCode } from "./room.js";

/** After this many failed attempts, the card says that it cannot reach the server. */
const FAILURES_UNREACHABLE = 2;

/** Creates the card. `on` is {retry, go, instead, welcome}: see `openPage`; `go` opens another address. */
export function screenView(on) {
  let shown = null;
  byId("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const session = normalId(byId("start-session").value.trim());
    const token = byId("start-token").value.trim();
    if (isSessionId(session)) on.go(addressOf(session, token || null));
    else {
      setText(byId("start-error"), "This is not a session ID. Enter a UUID of 36 characters.");
      byId("start-session").focus();
    }
  });
  return { render, start };

  /** Shows the start screen. `bad` is true if the address has an invalid session id. */
  function start(bad) {
    document.body.dataset.screen = "card";
    const { title, text } = on.welcome ?? WELCOME;
    setText(byId("card-title"), title);
    setText(byId("card-text"), text);
    setShown(byId("start"), true);
    setShown(byId("start-hint"), true);
    if (bad) setText(byId("start-error"), "The session ID in the address is not valid. Enter another one.");
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
    return STOPS[stop] ?? { ...STOPS.refused, text: `The server gave the reason “${stop}”.` };
  if (state.ready) return null;
  if (state.connection.failures >= FAILURES_UNREACHABLE) return UNREACHABLE;
  return { title: "Connecting…", text: "" };
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
      "Watch the session",
    );
  return el(
    "button",
    { type: "button", class: "ghost", onclick: () => on.go(location.pathname) },
    "Choose another session",
  );
}

const WELCOME = {
  title: "Welcome to Usher",
  text: "Live chat and polls for movie nights. Enter the session that you want to watch.",
};

const STOPS = {
  unauthorized: {
    title: "Your token is not valid",
    text: "The server did not accept the token in this address. Check the link, or ask for a new one.",
    actions: ["guest", "other"],
  },
  issuer_not_accepted: {
    title: "Your token is from another server",
    text: "This server does not accept the issuer of the token in this address. Ask for a new link.",
    actions: ["guest", "other"],
  },
  token_too_large: {
    title: "Your token is too large",
    text: "The token in this address is larger than the server accepts. Ask for a new link.",
    actions: ["guest", "other"],
  },
  token_expired: {
    title: "Your token has expired",
    text: "Open a new link to continue. You will see the messages that you missed.",
    actions: ["guest", "other"],
  },
  banned: {
    title: "You are banned from this session",
    text: "A moderator banned you. Contact the streamer if you think that this is a mistake.",
    actions: ["other"],
  },
  forbidden: {
    title: "You can no longer watch this session",
    text: "It was deleted or made private, or you are no longer a member.",
    actions: ["other"],
  },
  not_found: {
    title: "Session not found",
    text: "It does not exist, or it is private and you are not a member. If you were invited, open the link while signed in.",
    actions: ["retry", "other"],
  },
  session_ended: { title: "This session has ended", text: "Thanks for watching.", actions: ["other"] },
  protocol: {
    title: "This page is out of date",
    text: "The server no longer supports this version. Try again to reload the page.",
    actions: ["retry"],
  },
  refused: { title: "The server ended the connection", text: "", actions: ["retry", "other"] },
};

const UNREACHABLE = {
  title: "Cannot reach the server",
  text: "It may be starting, or your network may be down. This page keeps trying.",
  actions: ["retry"],
};
