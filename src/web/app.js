// The shell: gives the pure parts a socket, a clock and randomness, and the views what to show.

import { Connection } from "./connection.js";
import { byId, setAttribute, setShown, setText } from "./dom.js";
import { shortCount } from "./format.js";
import { identityOf, isSessionId, placeOf } from "./identity.js";
import { Session } from "./session.js";
import { resumeOf } from "./continuity.js";
import { initialState, reduce } from "./state.js";
import { chatView } from "./view_chat.js";
import { composerView } from "./view_composer.js";
import { headerView } from "./view_header.js";
import { insightsView } from "./view_insights.js";
import { proofView } from "./view_proof.js";
import { screenView } from "./view_screen.js";
import { stageView } from "./view_stage.js";
import { toastsView } from "./view_toasts.js";
import { votesView } from "./view_votes.js";

const TICK_MS = 250;

const place = placeOf(location.search, location.hash);
const screen = screenView({ retry: () => follow?.retry(), go });
let follow = null;
if (place.session && isSessionId(place.session)) follow = followSession(place.session, place.token);
else screen.start(place.session !== null);
window.addEventListener("hashchange", () => location.reload());

function go(address) {
  location.assign(address);
}

function followSession(session, token) {
  const now = () => Date.now();
  const timers = { set: (act, ms) => setTimeout(act, ms), clear: (handle) => clearTimeout(handle) };
  let state = initialState(session, identityOf(token));
  let drawing = false;

  const connection = new Connection({
    open: () => new WebSocket(socketAddress(), ["usher.v1"]),
    timers,
    now,
    random: Math.random,
    token: () => token,
    onLink: (link) => {
      if (link.phase !== undefined) client.onLost();
      dispatch({ type: "link", link });
    },
    onReady: () => client.subscribe(),
    onFrame: (frame) => client.onFrame(frame),
  });
  const client = new Session({
    connection,
    dispatch,
    timers,
    now,
    state: () => state,
    resume: () => resumeOf(state.position),
    uuid,
  });
  const views = makeViews(connection, client);

  window.addEventListener("online", () => {
    dispatch({ type: "link", link: { online: true } });
    connection.retryNow();
  });
  window.addEventListener("offline", () => {
    dispatch({ type: "link", link: { online: false } });
    connection.probe();
  });
  document.addEventListener(
    "visibilitychange",
    () => document.visibilityState === "visible" && connection.retryNow(),
  );
  window.addEventListener("pageshow", (event) => event.persisted && connection.retryNow());
  setInterval(tick, TICK_MS);
  dispatch({ type: "link", link: { online: navigator.onLine } });
  connection.start();
  return { retry: () => (state.link.phase === "stopped" ? connection.start() : connection.retryNow()) };

  function dispatch(action) {
    state = reduce(state, action);
    if (drawing) return;
    drawing = true;
    // Many frames of one instant are drawn once. A hidden page draws nothing.
    requestAnimationFrame(draw);
  }

  function draw() {
    drawing = false;
    for (const view of views) view.render(state);
    tick();
  }

  function tick() {
    if (document.visibilityState === "visible") for (const view of views) view.tick?.(state, now());
  }
}

function makeViews(connection, client) {
  const composer = composerView({
    send: (body, replyTo) => {
      client.send(body, replyTo);
      chat.stick();
    },
  });
  const chat = chatView({
    retry: (nonce) => client.retry(nonce),
    discard: (nonce) => client.discard(nonce),
    reply: (message) => composer.reply(message),
  });
  byId("skip").addEventListener("click", () => {
    showTab("chat");
    (byId("field").hidden ? byId("log-scroll") : byId("body")).focus();
  });
  return [
    screen,
    headerView({ retry: () => connection.retryNow() }),
    stageView(),
    votesView({ vote: (voting, movie) => client.vote(voting, movie) }),
    insightsView(),
    chat,
    composer,
    proofView(),
    toastsView(),
    tabsView(chat),
  ];
}

// On a phone the chat and the voting take turns.
function tabsView(chat) {
  let seen = 0;
  byId("tab-chat").addEventListener("click", () => {
    showTab("chat");
    chat.stick();
  });
  byId("tab-vote").addEventListener("click", () => showTab("vote"));
  return { render };

  function render(state) {
    const total = state.chat.dropped + state.chat.items.length;
    if (document.body.dataset.tab === "chat" || state.catching) seen = total;
    setShown(byId("tab-chat-new"), total > seen);
    setText(byId("tab-chat-new"), total > seen ? shortCount(total - seen) : "");
  }
}

function showTab(name) {
  document.body.dataset.tab = name;
  setAttribute(byId("tab-chat"), "aria-pressed", String(name === "chat"));
  setAttribute(byId("tab-vote"), "aria-pressed", String(name === "vote"));
}

function socketAddress() {
  const address = new URL("/v1/socket", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

// `crypto.randomUUID` exists on secure origins only, and a phone opens http://192.168.…:4000.
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
