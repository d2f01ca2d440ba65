// Creates the element of one chat item. Inserts text only as text, never as HTML.

import { nameColour } from "./colour.js";
import { el } from "./dom.js";
import { plural, timeOfDay } from "./format.js";
import { caughtUpText, LOST } from "./room.js";

const ROLES = { streamer: "Streamer", moderator: "Mod", admin: "Admin" };
const QUOTE_MAX = 90;

/** Creates the row of a message, a line or a divider. `context` is {follows, quoted, me, streamer, acts}. */
export function itemRow(item, context) {
  if (item.kind === "divider") return dividerRow(item);
  if (item.kind === "line") return el("p", { class: "line", dir: "auto" }, item.text);
  return messageRow(item, context);
}

/** Creates the row of a pending message. `on` is {retry, discard}. */
export function pendingRow(item, me, on) {
  const failed = item.status === "failed";
  const row = el(
    "div",
    { class: "message mine unsettled", "data-status": item.status },
    heading({ name: me.name, userId: me.sub, role: "viewer", at: Date.parse(item.created_at) }, null),
    el("p", { class: "text", dir: "auto" }, item.body),
  );
  const state = el(
    "p",
    { class: "unsettled-note" },
    failed ? `Not sent: ${item.error.message || item.error.code}` : "Sending…",
  );
  if (failed) {
    state.append(
      el("button", { type: "button", class: "link", onclick: () => on.retry(item.nonce) }, "Try again"),
      el("button", { type: "button", class: "link", onclick: () => on.discard(item.nonce) }, "Discard"),
    );
    state.setAttribute("role", "alert");
  }
  if (failed || item.status === "sending") row.append(state);
  return row;
}

/** Returns one line that quotes a message. */
export function quoteOf(message) {
  if (!message) return "an earlier message";
  if (message.deleted) return `${message.name}: message deleted`;
  const text = message.body.replace(/\s+/gu, " ").trim();
  const letters = [...text];
  return `${message.name}: ${letters.length > QUOTE_MAX ? `${letters.slice(0, QUOTE_MAX).join("")}…` : text}`;
}

function messageRow(item, { follows, quoted, me, streamer, acts }) {
  const row = el("div", { class: "message", tabindex: "-1", "data-id": item.id });
  if (item.userId !== null && item.userId === me) row.classList.add("mine");
  if (follows) row.classList.add("follows");
  if (item.replyTo)
    row.append(
      el("p", { class: "quote", dir: "auto" }, el("span", { class: "sr" }, "In reply to "), quoteOf(quoted)),
    );
  row.append(heading(item, streamer));
  if (item.deleted) {
    row.append(el("p", { class: "text deleted" }, "message deleted"));
    return row;
  }
  const text = el("p", { class: "text", dir: "auto" }, calm(item.body));
  if (item.edited) text.append(el("span", { class: "edited" }, " (edited)"));
  const isOthers = item.userId !== me && item.userId !== streamer;
  row.append(text, el("span", { class: "acts" }, ...acts.filter((act) => isOthers || !act.isForOthers).map(button)));
  return row;

  function button({ name, label, describe }) {
    const said = describe(item.name);
    return el("button", { type: "button", tabindex: "-1", "data-act": name, "aria-label": said, title: said }, label);
  }
}

function heading(item, streamer) {
  const name = el("span", { class: "name", dir: "auto" }, item.name);
  name.style.color = nameColour(item.userId ?? item.name);
  const role = item.userId !== null && item.userId === streamer ? "streamer" : item.role;
  const badge = ROLES[role] ? el("span", { class: "role", "data-role": role }, ROLES[role]) : null;
  const time = el(
    "time",
    { datetime: new Date(item.at).toISOString(), title: new Date(item.at).toLocaleString() },
    timeOfDay(item.at),
  );
  return el("p", { class: "who" }, name, badge, time);
}

// Collapses empty lines, so that one message cannot push the others out of view.
function calm(body) {
  return body.replace(/\s*\n\s*\n\s*/gu, "\n\n").trim();
}

function dividerRow(item) {
  const text = item.divides === "lost" ? LOST : caughtUpText(item.count);
  return el("p", { class: "divider", "data-divides": item.divides }, el("span", {}, text));
}

/** Returns the text of the button that leads to the latest messages. */
export function newPillText(unseen) {
  return unseen > 0 ? `↓ ${plural(unseen, "new message")}` : "↓ Jump to the latest";
}
