// Made by `npm run pages` from client/src. Change it there.
/**
 * Combines log events, pages of older messages and the viewer's pending messages into one chat window.
 *
 * Pure. A change replaces the message object and never mutates it, so a view can compare by reference. The window is
 * bounded: it drops the oldest messages first, and the app can load them again.
 */
/** The most messages in the window while the viewer follows the newest ones: at 20 messages per second, 25 s. */
export const MESSAGES_MAX = 500;
/** The most messages in the window while the viewer reads older ones: twenty pages of a hundred. */
export const MESSAGES_WITH_OLDER_MAX = 2000;
/** The most pending messages of the viewer: unanswered or failed. */
export const PENDING_MAX = 32;
/** Returns an empty window. The first event that it receives is `seq + 1`. */
export function emptyChat(seq = 0, pending = []) {
    const before = seq > 0 ? String(seq + 1) : null;
    return { messages: [], pending, before, readsBack: false, isHeld: false, tail: null, arrived: 0 };
}
/** Returns whether messages older than the window may exist. */
export function hasOlder(chat) {
    return chat.before !== null;
}
/** Applies new log events. */
export function foldEvents(chat, events) {
    const about = events.filter((event) => event.type.startsWith("chat."));
    const passed = events.at(-1)?.seq ?? 0;
    const messages = about.length === 0 ? chat.messages : chat.messages.slice();
    const tail = about.length === 0 ? chat.tail : (chat.tail?.slice() ?? null);
    let { pending, arrived } = chat;
    for (const event of about) {
        const lists = [messages, tail ?? []];
        if (event.type === "chat.created") {
            const message = { ...event.data, seq: event.seq };
            if (!change(lists, message.id, () => message)) {
                insert((tail ?? messages), message);
                arrived += 1;
            }
            pending = pending.filter((item) => item.nonce !== message.nonce && item.id !== message.id);
        }
        else if (event.type === "chat.updated") {
            change(lists, event.data.id, (message) => (message.deleted_at ? message : { ...message, ...event.data }));
        }
        else if (event.type === "chat.deleted") {
            change(lists, event.data.id, (message) => ({ ...message, ...event.data, body: null }));
        }
    }
    // The log has passed the number of an acknowledged message: the window shows it, or begins after it.
    if (pending.some((item) => item.seq !== null && item.seq <= passed))
        pending = pending.filter((item) => item.seq === null || item.seq > passed);
    if (messages === chat.messages && pending === chat.pending)
        return chat;
    if (pending.length === chat.pending.length)
        pending = chat.pending;
    return bounded({ ...chat, messages, tail, arrived, pending });
}
/** Adds a page of older messages to the start of the window. */
export function foldOlder(chat, page) {
    const messages = [...page.messages.toReversed(), ...chat.messages];
    const older = { ...chat, messages, before: page.next, readsBack: true };
    if (chat.isHeld)
        return bounded(older);
    // If the page does not fit, `bounded` would drop it immediately, and the app would load it again in a loop.
    return messages.length > MESSAGES_WITH_OLDER_MAX ? chat : older;
}
/** Fixes the start of the window while the viewer reads older messages. New messages are added while there is room. */
export function holdWindow(chat) {
    return chat.isHeld ? chat : { ...chat, isHeld: true };
}
/** Returns a message's position for the gateway's `before` parameter: its number, or else its time in µs and its id. */
export function placeOf({ seq, created_at, id }) {
    if (seq !== null)
        return String(seq);
    const fraction = /\.(\d+)/.exec(created_at)?.[1] ?? "";
    return `${Date.parse(created_at)}${fraction.slice(3, 6).padEnd(3, "0")}_${id}`;
}
/** Returns to the newest messages. Drops the older ones that the viewer loaded or held. */
export function foldNewest(chat) {
    if (!chat.readsBack && !chat.isHeld)
        return chat;
    const free = { ...chat, readsBack: false, isHeld: false, tail: null };
    return bounded(chat.tail === null ? free : { ...free, ...begunAt(chat.tail, chat.before) });
}
/** Adds a pending message. A failed message with the same nonce is replaced. */
export function addPending(chat, message) {
    const others = chat.pending.filter((item) => item.nonce !== message.nonce);
    const item = { ...message, status: "sending", seq: null, id: null, error: null };
    const excess = others.length + 1 - PENDING_MAX;
    // Makes room by dropping the oldest failed messages, never the unanswered ones.
    let room = excess;
    const kept = others.filter((other) => !(other.status === "failed" && room-- > 0));
    return { ...chat, pending: [...kept, item] };
}
/**
 * Stores the number of an acknowledged message. Its log event later replaces the pending message. `seen` is the newest
 * number that the client has received.
 */
export function acknowledge(chat, nonce, ack) {
    if (ack.seq <= (ack.seen ?? 0))
        return dropPending(chat, nonce);
    return changePending(chat, nonce, (item) => ({ ...item, status: "sent", seq: ack.seq, id: ack.id, error: null }));
}
/** Marks an unanswered message as failed, with the error. */
export function failPending(chat, nonce, error) {
    return changePending(chat, nonce, (item) => item.status === "sending" ? { ...item, status: "failed", error } : item);
}
/** Removes a pending message. */
export function dropPending(chat, nonce) {
    const pending = chat.pending.filter((item) => item.nonce !== nonce);
    return pending.length === chat.pending.length ? chat : { ...chat, pending };
}
function indexOf(messages, id) {
    // Searches from the end: most edits and deletions concern recent messages.
    return messages.findLastIndex((message) => message.id === id);
}
/** Inserts a message by its number: at the end, unless a fresh start delivers history from before the window. */
function insert(messages, message) {
    const after = messages.findLastIndex((other) => (other.seq ?? 0) < (message.seq ?? 0));
    messages.splice(after + 1, 0, message);
}
/** Changes the message with this id in the list that contains it. Returns false if no list contains it. */
function change(lists, id, act) {
    for (const messages of lists) {
        const at = indexOf(messages, id);
        const message = messages[at];
        if (message === undefined)
            continue;
        messages[at] = act(message);
        return true;
    }
    return false;
}
function changePending(chat, nonce, act) {
    return { ...chat, pending: chat.pending.map((item) => (item.nonce === nonce ? act(item) : item)) };
}
function bounded(chat) {
    const over = chat.messages.length - (chat.readsBack || chat.isHeld ? MESSAGES_WITH_OLDER_MAX : MESSAGES_MAX);
    if (chat.isHeld) {
        // Moves the newest messages to the tail, because the viewer reads the oldest ones.
        const rest = over > 0 ? [...chat.messages.slice(-over), ...(chat.tail ?? [])] : (chat.tail ?? []);
        const tail = rest.length > 0 ? rest.slice(-MESSAGES_MAX) : null;
        return { ...chat, messages: over > 0 ? chat.messages.slice(0, -over) : chat.messages, tail };
    }
    return over > 0 ? { ...chat, ...begunAt(chat.messages.slice(over), chat.before) } : chat;
}
/** Returns the messages with the position of the first one. */
function begunAt(messages, before) {
    const [first] = messages;
    return { messages, before: first ? placeOf(first) : before };
}
