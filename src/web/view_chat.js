// Shows a window onto the chat: at most ROWS_MAX rows, sticking to the latest unless the viewer scrolled up.
//
// The window is a range of absolute positions (dropped items included), so that it stays put while the oldest items
// are forgotten. Rows are reused by the identity of what they show.

import { continues, messageById } from "./chat.js";
import { byId, setAttribute, setShown, setText } from "./dom.js";
import { itemRow, newPillText, pendingRow } from "./view_message.js";

const ROWS_MAX = 300;
/** Rows shown while sticking; the rest of the window is for those who scroll up. */
const ROWS_STUCK = 150;
const PAGE = 75;
const STICK_PX = 48;

/** The chat log. `on` is {retry, discard, reply}. */
export function chatView(on) {
  const [scroll, log, pending, pill] = [byId("log-scroll"), byId("log"), byId("pending"), byId("new-pill")];
  const view = { stuck: true, start: 0, end: 0, generation: 0, seen: 0 };
  let rows = new Map(); // Item id to {item, follows, quoted, element}.
  let latest = null;
  let pendingShown = null;
  let placing = false; // Our own scrolling is not the viewer's.

  scroll.addEventListener("scroll", onScroll, { passive: true });
  scroll.addEventListener("keydown", onKey);
  log.addEventListener("click", (event) => {
    const id = event.target.closest?.("[data-reply]")?.dataset.reply;
    if (id) reply(id);
  });
  pill.addEventListener("click", () => stick());
  new ResizeObserver(() => view.stuck && toBottom()).observe(scroll);
  return { render, stick };

  function render(state) {
    latest = state;
    const { chat } = state;
    if (chat.generation !== view.generation)
      Object.assign(view, { generation: chat.generation, stuck: true, start: 0, end: 0, seen: 0 });
    const total = chat.dropped + chat.items.length;
    if (view.stuck) {
      view.end = total;
      view.start = Math.max(chat.dropped, total - ROWS_STUCK);
      view.seen = total;
    } else {
      // Scrolled up: the window grows downwards to its limit, then waits.
      view.start = Math.max(view.start, chat.dropped);
      view.end = Math.max(view.start, Math.min(total, view.start + ROWS_MAX));
    }
    announce(state);
    keepPlace(() => renderRows(state));
    renderPending(state);
    if (view.stuck) toBottom();
    setShown(byId("log-empty"), state.ready && !state.catching && total === 0 && chat.pending.length === 0);
    renderPill();
  }

  function renderRows(state) {
    const { chat } = state;
    const shown = chat.items.slice(view.start - chat.dropped, view.end - chat.dropped);
    const next = new Map();
    let before = null;
    let place = log.firstElementChild;
    for (const item of shown) {
      const row = reuse(item, continues(item, before), state);
      next.set(item.id, row);
      if (row.element === place) place = place.nextElementSibling;
      else log.insertBefore(row.element, place);
      before = item;
    }
    for (const [id, row] of rows) if (next.get(id)?.element !== row.element) row.element.remove();
    rows = next;
  }

  function reuse(item, follows, state) {
    const quoted = item.replyTo ? messageById(state.chat, item.replyTo) : null;
    const old = rows.get(item.id);
    if (old && old.item === item && old.follows === follows && old.quoted === quoted) return old;
    const element = itemRow(item, {
      follows,
      quoted,
      me: state.me.sub,
      streamer: state.info.streamer_id ?? null,
    });
    if (old?.element === document.activeElement) queueMicrotask(() => element.focus({ preventScroll: true }));
    return { item, follows, quoted, element };
  }

  function renderPending({ chat, me, link }) {
    const key = chat.pending;
    if (key === pendingShown) return;
    pendingShown = key;
    pending.replaceChildren(...key.map((item) => pendingRow(item, me, on, link)));
  }

  // History, catching up and paging are not news; only what arrives while reading along is read aloud.
  function announce(state) {
    const live = state.ready && !state.catching && view.stuck && state.link.phase === "live";
    if (!live) setAttribute(log, "aria-live", "off");
    else if (log.getAttribute("aria-live") !== "polite")
      setTimeout(() => setAttribute(log, "aria-live", "polite"), 300);
  }

  function renderPill() {
    const total = latest.chat.dropped + latest.chat.items.length;
    setShown(pill, !view.stuck);
    if (!view.stuck) setText(pill, newPillText(total - view.seen));
  }

  function onScroll() {
    if (placing || !latest) return;
    const { chat } = latest;
    const total = chat.dropped + chat.items.length;
    const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (below < STICK_PX && view.end >= total) {
      if (!view.stuck) {
        view.stuck = true;
        render(latest);
      }
      return;
    }
    view.stuck = false;
    if (scroll.scrollTop < 200 && view.start > chat.dropped) {
      view.start = Math.max(chat.dropped, view.start - PAGE);
      render(latest);
    } else if (below < 200 && view.end < total) {
      view.start = Math.min(view.start + PAGE, total);
      render(latest);
    }
    renderPill();
  }

  /** Goes to the latest message and stays there. */
  function stick() {
    view.stuck = true;
    if (latest) render(latest);
    toBottom();
  }

  function toBottom() {
    place(scroll.scrollHeight);
  }

  // Rows that come or go above must not move what is being read.
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
      event.preventDefault();
    } else if (event.key === "Enter" && at >= 0) {
      reply(messages[at].dataset.id);
      event.preventDefault();
    }
  }

  function reply(id) {
    const message = latest && messageById(latest.chat, id);
    if (message && !message.deleted) on.reply(message);
  }
}
