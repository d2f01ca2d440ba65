// Merges the client's messages with the page's marks (poll lines, dividers) into the list that the chat shows.
//
// Pure. An unchanged message gives the same item, so a view can compare by reference.

/** The most marks that a page keeps. Enough for the polls of an evening. */
export const MARKS_MAX = 100;
/** Messages of one author within this time share one heading. */
const FOLLOWS_MS = 3 * 60_000;

const known = new WeakMap();

/** Returns the list: messages in order, each mark after the messages with smaller numbers. */
export function itemsOf(chat, marks) {
  const items = [];
  const rest = [...marks].sort((a, b) => a.seq - b.seq);
  const first = chat.messages.find((message) => message.seq !== null)?.seq ?? 0;
  // Leaves out marks before the window. They appear when the viewer loads their messages.
  while (chat.before !== null && rest.length > 0 && rest[0].seq < first - 1) rest.shift();
  for (const message of chat.messages) {
    while (rest.length > 0 && message.seq !== null && rest[0].seq < message.seq) items.push(rest.shift());
    items.push(itemOf(message));
  }
  return [...items, ...rest];
}

/** Returns the chat line for a poll event; null for other events. */
export function lineOf({ seq, type, at, data }) {
  const line = (text) => ({ kind: "line", id: `line-${seq}`, seq, at: Date.parse(at) || 0, text });
  if (type === "voting.opened") return line(`Poll opened: ${data.question}`);
  if (type === "voting.closed") return line(`Poll closed: ${winnerOf(data) ?? data.question}`);
  return null;
}

/** Returns the message with this id; null if the list does not contain it. */
export function messageById(items, id) {
  return items.findLast((item) => item.kind === "message" && item.id === id) ?? null;
}

/** Returns whether `item` continues `previous`: same author, within three minutes, not a reply. */
export function continues(item, previous) {
  if (!previous || item.kind !== "message" || previous.kind !== "message") return false;
  if (item.userId !== previous.userId || item.replyTo) return false;
  return Math.abs(item.at - previous.at) < FOLLOWS_MS;
}

function itemOf(message) {
  const before = known.get(message);
  if (before) return before;
  const item = {
    kind: "message",
    id: message.id,
    seq: message.seq,
    at: Date.parse(message.created_at) || 0,
    userId: message.user_id,
    name: message.author?.display_name || message.author?.username || "Unknown user",
    role: message.author?.role ?? "viewer",
    body: message.deleted_at ? null : message.body,
    deleted: Boolean(message.deleted_at) || typeof message.body !== "string",
    edited: Boolean(message.edited_at),
    replyTo: message.reply_to,
  };
  known.set(message, item);
  return item;
}

function winnerOf({ results, options }) {
  const most = Math.max(0, ...(results?.counts ?? []).map((count) => count.votes));
  const winners = (results?.counts ?? []).filter((count) => most > 0 && count.votes === most);
  const title = options?.find((option) => option.movie === winners[0]?.movie)?.title;
  if (winners.length !== 1 || !title) return null;
  return `${title} wins with ${most} ${most === 1 ? "vote" : "votes"}`;
}
