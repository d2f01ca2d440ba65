// Folds the chat events of the log and the viewer's own unsettled messages into one list.
//
// Pure. An item is replaced, never changed, so that a view can compare by reference. Bounded: the oldest items go
// first, and `dropped` counts them, so that a position in the list stays meaningful.

/** Items kept in memory; at 20 messages a second this is the last 50 s, in a quiet room the whole evening. */
export const ITEMS_MAX = 1000;

/** The chat before anything has arrived. */
export function emptyChat() {
  return { items: [], dropped: 0, generation: 0, pending: [] };
}

/** Forgets what was shown: the log went back in time, so none of it can be trusted. */
export function clearChat(chat) {
  const pending = chat.pending.filter((item) => item.status !== "sent");
  return { items: [], dropped: 0, generation: chat.generation + 1, pending };
}

/** Folds fresh log events into the chat. */
export function foldEvents(chat, events) {
  const items = chat.items.slice();
  let pending = chat.pending;
  for (const event of events) {
    const data = event.data ?? {};
    if (event.type === "chat.created") {
      const message = messageOf(event);
      const at = findMessage(items, message.id);
      if (at < 0) items.push(message);
      else items[at] = message;
      pending = settle(pending, message);
    } else if (event.type === "chat.updated") {
      replace(items, data.id, (message) => edit(message, data));
    } else if (event.type === "chat.deleted") {
      replace(items, data.id, (message) => ({ ...message, body: null, deleted: true }));
    } else {
      const line = lineOf(event);
      if (line) items.push(line);
    }
  }
  // What was acknowledged under a number that has passed is shown, or lies before what is held.
  const passed = events.at(-1)?.seq ?? 0;
  if (pending.some((item) => item.seq <= passed)) pending = pending.filter((item) => !(item.seq <= passed));
  return bounded({ ...chat, items, pending });
}

/** Appends a line that no event made, such as the divider of a resume. */
export function appendDivider(chat, divider) {
  return bounded({ ...chat, items: [...chat.items, divider] });
}

/** Replaces the divider of the same id, wherever it stands. */
export function updateDivider(chat, divider) {
  return { ...chat, items: chat.items.map((item) => (item.id === divider.id ? divider : item)) };
}

/** Adds an optimistic message, or sends a failed one again under its old nonce. */
export function addPending(chat, message) {
  const others = chat.pending.filter((item) => item.nonce !== message.nonce);
  return {
    ...chat,
    pending: [...others, { ...message, status: "sending", error: null, seq: NaN, id: null }],
  };
}

/** Notes the number of an acknowledged message; its event replaces it. `ack.seen` is the newest number seen. */
export function acknowledge(chat, nonce, ack) {
  if (ack.seq <= ack.seen || findMessage(chat.items, ack.message) >= 0) return dropPending(chat, nonce);
  return mapPending(chat, nonce, (item) => ({
    ...item,
    status: "sent",
    seq: ack.seq ?? NaN,
    id: ack.message ?? null,
  }));
}

/** Marks a message as refused or unanswered, by name. */
export function failPending(chat, nonce, error) {
  return mapPending(chat, nonce, (item) =>
    item.status === "sending" ? { ...item, status: "failed", error } : item,
  );
}

/** Forgets an unsettled message. */
export function dropPending(chat, nonce) {
  return { ...chat, pending: chat.pending.filter((item) => item.nonce !== nonce) };
}

/** The message of that id, or null when it is not held. */
export function messageById(chat, id) {
  const at = findMessage(chat.items, id);
  return at < 0 ? null : chat.items[at];
}

/** Whether `item` reads on from `previous`: same author, soon after, no quote between. */
export function continues(item, previous) {
  if (!previous || item.kind !== "message" || previous.kind !== "message") return false;
  if (item.userId !== previous.userId || item.replyTo) return false;
  return Math.abs(item.at - previous.at) < 3 * 60_000;
}

function messageOf(event) {
  const data = event.data ?? {};
  const author = data.author ?? {};
  const deleted = data.deleted_at != null || typeof data.body !== "string";
  return {
    kind: "message",
    id: data.id ?? `seq-${event.seq}`,
    seq: event.seq,
    at: Date.parse(data.created_at ?? event.at) || 0,
    userId: data.user_id ?? null,
    name: author.display_name || author.username || "Someone",
    role: author.role ?? "viewer",
    body: deleted ? null : data.body,
    deleted,
    edited: data.edited_at != null,
    replyTo: data.reply_to ?? null,
    nonce: data.nonce ?? null,
  };
}

function edit(message, data) {
  if (message.deleted || data.deleted_at != null) return { ...message, body: null, deleted: true };
  if (typeof data.body !== "string") return message;
  return { ...message, body: data.body, edited: data.edited_at != null };
}

function lineOf(event) {
  const data = event.data ?? {};
  const line = (text) => ({ kind: "line", id: `line-${event.seq}`, at: Date.parse(event.at) || 0, text });
  if (event.type === "voting.opened") return line(`Voting is open: ${data.question ?? ""}`);
  if (event.type === "voting.closed")
    return line(`Voting has closed: ${winnerOf(data) ?? data.question ?? ""}`);
  return null;
}

function winnerOf(data) {
  const counts = Array.isArray(data.results) ? data.results : data.results?.counts;
  if (!Array.isArray(counts) || !Array.isArray(data.options)) return null;
  const most = Math.max(0, ...counts.map((count) => count.votes ?? 0));
  const winners = counts.filter((count) => most > 0 && count.votes === most);
  const titles = winners.map(
    (count) => data.options.find((option) => option.movie === count.movie)?.title ?? null,
  );
  if (winners.length !== 1 || titles[0] === null) return null;
  return `${titles[0]} wins with ${most} ${most === 1 ? "vote" : "votes"}`;
}

function settle(pending, message) {
  if (!pending.length) return pending;
  return pending.filter(
    (item) => (message.nonce === null || item.nonce !== message.nonce) && item.id !== message.id,
  );
}

function replace(items, id, change) {
  const at = findMessage(items, id);
  if (at >= 0) items[at] = change(items[at]);
}

function findMessage(items, id) {
  if (id == null) return -1;
  // From the end: edits, deletions and replies mostly concern what was said last.
  for (let at = items.length - 1; at >= 0; at -= 1) {
    if (items[at].kind === "message" && items[at].id === id) return at;
  }
  return -1;
}

function mapPending(chat, nonce, change) {
  return { ...chat, pending: chat.pending.map((item) => (item.nonce === nonce ? change(item) : item)) };
}

function bounded(chat) {
  const over = chat.items.length - ITEMS_MAX;
  if (over <= 0) return chat;
  return { ...chat, items: chat.items.slice(over), dropped: chat.dropped + over };
}
