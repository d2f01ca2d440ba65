/**
 * Combines log events, pages of older messages and the viewer's pending messages into one chat window.
 *
 * Pure. A change replaces the message object and never mutates it, so a view can compare by reference. The window is
 * bounded: it drops the oldest messages first, and the app can load them again.
 */

import type { UsherError } from "./errors.ts";
import type { Author, LogEvent, MessageRow } from "./wire.ts";

/** The most messages in the window while the viewer follows the newest ones: at 20 messages per second, 25 s. */
export const MESSAGES_MAX = 500;
/** The most messages in the window while the viewer reads older ones: twenty pages of a hundred. */
export const MESSAGES_WITH_OLDER_MAX = 2000;
/** The most pending messages of the viewer: unanswered or failed. */
export const PENDING_MAX = 32;

/** A chat message: its row, its author and its event number. `seq` is null if the log no longer has the message. */
export type Message = MessageRow & { readonly seq: number | null; readonly author: Author | null };

/** A page of older messages, newest first. `next` is the start of the next older page, or null on the last page. */
export interface OlderPage {
  readonly messages: readonly Message[];
  readonly next: string | null;
}

/** A message that the viewer has sent and the log has not delivered yet. */
export interface PendingMessage {
  readonly nonce: string;
  readonly body: string;
  readonly reply_to: string | null;
  readonly created_at: string;
  /** `sent` after the database commits the message as event `seq`; `failed` with an `error`. */
  readonly status: "sending" | "sent" | "failed";
  readonly seq: number | null;
  readonly id: string | null;
  readonly error: UsherError | null;
}

/** The chat window. */
export interface Chat {
  readonly messages: readonly Message[];
  readonly pending: readonly PendingMessage[];
  /** The start of the window, in the format of the gateway's `before` parameter; null if no older messages exist. */
  readonly before: string | null;
  /** Whether the viewer has loaded older messages. The window then keeps more. */
  readonly readsBack: boolean;
  /** Whether the start of the window is fixed, so that the messages on screen stay in it. */
  readonly isHeld: boolean;
  /** The newest messages, when a held window is full and cannot take them; null while the window contains them. */
  readonly tail: readonly Message[] | null;
  /** Counts arrived messages. It never decreases: the difference of two values is the number of new messages. */
  readonly arrived: number;
}

/** Returns an empty window. The first event that it receives is `seq + 1`. */
export function emptyChat(seq = 0, pending: readonly PendingMessage[] = []): Chat {
  const before = seq > 0 ? String(seq + 1) : null;
  return { messages: [], pending, before, readsBack: false, isHeld: false, tail: null, arrived: 0 };
}

/** Returns whether messages older than the window may exist. */
export function hasOlder(chat: Chat): boolean {
  return chat.before !== null;
}

/** Applies new log events. */
export function foldEvents(chat: Chat, events: readonly LogEvent[]): Chat {
  const about = events.filter((event) => event.type.startsWith("chat."));
  const passed = events.at(-1)?.seq ?? 0;
  const messages = about.length === 0 ? chat.messages : chat.messages.slice();
  const tail = about.length === 0 ? chat.tail : (chat.tail?.slice() ?? null);
  let { pending, arrived } = chat;
  for (const event of about) {
    const lists = [messages, tail ?? []] as Message[][];
    if (event.type === "chat.created") {
      const message: Message = { ...event.data, seq: event.seq };
      if (!change(lists, message.id, () => message)) {
        insert((tail ?? messages) as Message[], message);
        arrived += 1;
      }
      pending = pending.filter((item) => item.nonce !== message.nonce && item.id !== message.id);
    } else if (event.type === "chat.updated") {
      change(lists, event.data.id, (message) => (message.deleted_at ? message : { ...message, ...event.data }));
    } else if (event.type === "chat.deleted") {
      change(lists, event.data.id, (message) => ({ ...message, ...event.data, body: null }));
    }
  }
  // The log has passed the number of an acknowledged message: the window shows it, or begins after it.
  if (pending.some((item) => item.seq !== null && item.seq <= passed))
    pending = pending.filter((item) => item.seq === null || item.seq > passed);
  if (messages === chat.messages && pending === chat.pending) return chat;
  if (pending.length === chat.pending.length) pending = chat.pending;
  return bounded({ ...chat, messages, tail, arrived, pending });
}

/** Adds a page of older messages to the start of the window. */
export function foldOlder(chat: Chat, page: OlderPage): Chat {
  const messages = [...page.messages.toReversed(), ...chat.messages];
  const older = { ...chat, messages, before: page.next, readsBack: true };
  if (chat.isHeld) return bounded(older);
  // If the page does not fit, `bounded` would drop it immediately, and the app would load it again in a loop.
  return messages.length > MESSAGES_WITH_OLDER_MAX ? chat : older;
}

/** Fixes the start of the window while the viewer reads older messages. New messages are added while there is room. */
export function holdWindow(chat: Chat): Chat {
  return chat.isHeld ? chat : { ...chat, isHeld: true };
}

/** Returns a message's position for the gateway's `before` parameter: its number, or else its time in µs and its id. */
export function placeOf({ seq, created_at, id }: Message): string {
  if (seq !== null) return String(seq);
  const fraction = /\.(\d+)/.exec(created_at)?.[1] ?? "";
  return `${Date.parse(created_at)}${fraction.slice(3, 6).padEnd(3, "0")}_${id}`;
}

/** Returns to the newest messages. Drops the older ones that the viewer loaded or held. */
export function foldNewest(chat: Chat): Chat {
  if (!chat.readsBack && !chat.isHeld) return chat;
  const free = { ...chat, readsBack: false, isHeld: false, tail: null };
  return bounded(chat.tail === null ? free : { ...free, ...begunAt(chat.tail, chat.before) });
}

/** Adds a pending message. A failed message with the same nonce is replaced. */
export function addPending(
  chat: Chat,
  message: Pick<PendingMessage, "nonce" | "body" | "reply_to" | "created_at">,
): Chat {
  const others = chat.pending.filter((item) => item.nonce !== message.nonce);
  const item: PendingMessage = { ...message, status: "sending", seq: null, id: null, error: null };
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
export function acknowledge(chat: Chat, nonce: string, ack: { seq: number; id: string; seen: number | null }): Chat {
  if (ack.seq <= (ack.seen ?? 0)) return dropPending(chat, nonce);
  return changePending(chat, nonce, (item) => ({ ...item, status: "sent", seq: ack.seq, id: ack.id, error: null }));
}

/** Marks an unanswered message as failed, with the error. */
export function failPending(chat: Chat, nonce: string, error: UsherError): Chat {
  return changePending(chat, nonce, (item) =>
    item.status === "sending" ? { ...item, status: "failed", error } : item,
  );
}

/** Removes a pending message. */
export function dropPending(chat: Chat, nonce: string): Chat {
  const pending = chat.pending.filter((item) => item.nonce !== nonce);
  return pending.length === chat.pending.length ? chat : { ...chat, pending };
}

function indexOf(messages: readonly Message[], id: string): number {
  // Searches from the end: most edits and deletions concern recent messages.
  return messages.findLastIndex((message) => message.id === id);
}

/** Inserts a message by its number: at the end, unless a fresh start delivers history from before the window. */
function insert(messages: Message[], message: Message): void {
  const after = messages.findLastIndex((other) => (other.seq ?? 0) < (message.seq ?? 0));
  messages.splice(after + 1, 0, message);
}

/** Changes the message with this id in the list that contains it. Returns false if no list contains it. */
function change(lists: readonly Message[][], id: string, act: (message: Message) => Message): boolean {
  for (const messages of lists) {
    const at = indexOf(messages, id);
    const message = messages[at];
    if (message === undefined) continue;
    messages[at] = act(message);
    return true;
  }
  return false;
}

function changePending(chat: Chat, nonce: string, act: (item: PendingMessage) => PendingMessage): Chat {
  return { ...chat, pending: chat.pending.map((item) => (item.nonce === nonce ? act(item) : item)) };
}

function bounded(chat: Chat): Chat {
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
function begunAt(messages: readonly Message[], before: string | null): Pick<Chat, "messages" | "before"> {
  const [first] = messages;
  return { messages, before: first ? placeOf(first) : before };
}
