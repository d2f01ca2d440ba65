// Shows a window of the chat: at most ROWS_MAX rows. It follows the latest message unless the viewer scrolls up.
//
// The window starts at an item, not at an index, so it stays in place while older items are added or removed. A row is
// reused while its item stays the same object.

import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { continues, messageById } from "./items.js";
import { linkPhase } from "./room.js";
import { itemRow, newPillText, pendingRow } from "./view_message.js";

const ROWS_MAX = 300;
/** The most rows while the list follows the latest message. A list that is scrolled up shows up to ROWS_MAX. */
const ROWS_STUCK = 150;
const PAGE = 50;
const STICK_PX = 48;
/** The distance from the top, in pixels, at which the view loads older messages. */
const NEAR_PX = 200;
const REPLY = { name: "reply", label: "Reply", describe: (name) => `Reply to ${name}` };

/** Creates the chat log. `on` is {retry, discard, reply, older, hold, newest}; `acts` are more buttons per message. */
export function chatView(on, acts = []) {
  const [scroll, log, pending, pill] = [byId("log-scroll"), byId("log"), byId("pending"), byId("new-pill")];
  const older = el("p", { class: "log-older", hidden: true }, "Loading earlier messages…");
  const view = { stuck: true, first: null, start: 0, end: 0, seen: 0 };
  let rows = new Map(); // From item id to {item, follows, quoted, element}.
  let latest = null;
  let pendingShown = null;
  let placing = false; // Whether this code is scrolling, and not the viewer.
  let loading = false;

  log.before(older);
  scroll.addEventListener("scroll", onScroll, { passive: true });
  scroll.addEventListener("keydown", onKey);
  log.addEventListener("click", (event) => {
    const name = event.target.closest?.("[data-act]")?.dataset.act;
    const id = event.target.closest?.("[data-id]")?.dataset.id;
    if (name) act(name, id);
  });
  pill.addEventListener("click", () => stick());
  new ResizeObserver(() => view.stuck && toBottom()).observe(scroll);
  return { render, stick };

  function render(room) {
    latest = room;
    const { items } = room;
    const total = items.length;
    if (view.stuck) {
      [view.start, view.end] = [Math.max(0, total - ROWS_STUCK), total];
      view.seen = room.session.chat.arrived;
    } else {
      // While scrolled up, the window grows downwards up to its limit.
      view.start = Math.max(0, items.findIndex((item) => item.id === view.first));
      view.end = Math.min(total, view.start + ROWS_MAX);
    }
    view.first = items[view.start]?.id ?? null;
    announce(room);
    keepPlace(() => renderRows(room));
    renderPending(room);
    if (view.stuck) toBottom();
    const isEmpty = total === 0 && room.session.chat.pending.length === 0;
    setShown(byId("log-empty"), isEmpty && linkPhase(room) === "live");
    renderPill();
  }

  function renderRows(room) {
    const next = new Map();
    let before = null;
    let place = log.firstElementChild;
    for (const item of room.items.slice(view.start, view.end)) {
      const row = reuse(item, continues(item, before), room);
      next.set(item.id, row);
      if (row.element === place) place = place.nextElementSibling;
      else log.insertBefore(row.element, place);
      before = item;
    }
    for (const [id, row] of rows) if (next.get(id)?.element !== row.element) row.element.remove();
    rows = next;
  }

  function reuse(item, follows, room) {
    const quoted = item.replyTo ? messageById(room.items, item.replyTo) : null;
    const old = rows.get(item.id);
    if (old && old.item === item && old.follows === follows && old.quoted === quoted) return old;
    const { me, info } = room;
    const streamer = info.streamer_id ?? null;
    const element = itemRow(item, { follows, quoted, me: me.sub, streamer, acts: [REPLY, ...acts] });
    if (old?.element === document.activeElement) queueMicrotask(() => element.focus({ preventScroll: true }));
    return { item, follows, quoted, element };
  }

  function renderPending({ session, me }) {
    const key = session.chat.pending;
    if (key === pendingShown) return;
    pendingShown = key;
    pending.replaceChildren(...key.map((item) => pendingRow(item, me, on)));
  }

  // Lets a screen reader announce only new messages, not history, missed messages or older pages.
  function announce(room) {
    if (!view.stuck || linkPhase(room) !== "live") setAttribute(log, "aria-live", "off");
    else if (log.getAttribute("aria-live") !== "polite")
      setTimeout(() => setAttribute(log, "aria-live", "polite"), 300);
  }

  function renderPill() {
    setShown(pill, !view.stuck);
    if (view.stuck) return;
    setText(pill, newPillText(latest.session.chat.arrived - view.seen));
  }

  function onScroll() {
    if (placing || !latest) return;
    const total = latest.items.length;
    const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (below < STICK_PX && view.end >= total) {
      if (!view.stuck) stick();
      return;
    }
    if (view.stuck) {
      view.stuck = false;
      on.hold();
    }
    if (scroll.scrollTop < NEAR_PX) growUp();
    else if (below < NEAR_PX && view.end < total) begin(Math.min(view.start + PAGE, total - 1));
    renderPill();
  }

  function growUp() {
    if (view.start > 0) begin(Math.max(0, view.start - PAGE));
    else if (!loading && latest.session.chat.before !== null) void loadOlder();
  }

  async function loadOlder() {
    loading = true;
    setShown(older, true);
    const found = await on.older().catch(() => false);
    setShown(older, false);
    loading = false;
    if (found && !view.stuck) growUp();
  }

  function begin(at) {
    view.first = latest.items[at]?.id ?? null;
    render(latest);
  }

  /** Scrolls to the latest message and follows new ones. */
  function stick() {
    view.stuck = true;
    on.newest();
    if (latest) render(latest);
    toBottom();
  }

  function toBottom() {
    place(scroll.scrollHeight);
  }

  // Keeps the first visible row in place when rows above it are added or removed.
  function keepPlace(change) {
    if (view.stuck) return change();
    const top = scroll.getBoundingClientRect().top;
    const anchor = [...log.children].find((row) => row.getBoundingClientRect().bottom > top);
    const before = anchor?.getBoundingClientRect().top;
    const id = anchor?.dataset.id;
    change();
    const after = anchor?.isConnected ? anchor : id && rows.get(id)?.element;
    if (after) place(scroll.scrollTop + after.getBoundingClientRect().top - before);
  }

  function place(top) {
    if (Math.abs(scroll.scrollTop - top) < 1) return;
    placing = true;
    scroll.scrollTop = top;
    requestAnimationFrame(() => (placing = false));
  }

  function onKey(event) {
    if (event.target.closest?.("[data-act]")) return;
    const messages = [...log.querySelectorAll(".message")];
    const at = messages.indexOf(document.activeElement);
    const steps = {
      ArrowUp: at < 0 ? messages.length - 1 : at - 1,
      ArrowDown: at < 0 ? messages.length - 1 : at + 1,
      Home: 0,
      End: messages.length - 1,
    };
    if (event.key in steps) {
      const target = messages[Math.max(0, Math.min(steps[event.key], messages.length - 1))];
      target?.focus();
      reachable(target);
      event.preventDefault();
    } else if (event.key === "Enter" && at >= 0) {
      act("reply", messages[at].dataset.id);
      event.preventDefault();
    }
  }

  // Makes only the buttons of the focused message reachable with Tab.
  function reachable(row) {
    for (const button of log.querySelectorAll('[data-act][tabindex="0"]')) button.tabIndex = -1;
    for (const button of row?.querySelectorAll("[data-act]") ?? []) button.tabIndex = 0;
  }

  function act(name, id) {
    const message = latest && messageById(latest.items, id);
    if (message && !message.deleted) on[name]?.(message);
  }
}
