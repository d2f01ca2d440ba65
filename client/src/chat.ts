/**
 * Folds the chat events of the log, pages of older messages and the viewer's own unsettled messages into one window.
 *
 * Pure. A message is replaced, never changed, so that a view can compare by reference. Bounded: the oldest go first, and
 * can be loaded again.
 */

import type { UsherError } from "./errors.ts";
import type { Author, LogEvent, MessageRow } from "./wire.ts";

/** Messages kept while the newest are followed; at 20 a second the last 25 s, in a quiet room the whole evening. */
export const MESSAGES_MAX = 500;
/** Messages kept while somebody reads back: twenty pages of a hundred. */
export const MESSAGES_WITH_OLDER_MAX = 2000;
/** The viewer's own messages that wait for an answer or were refused. */
export const PENDING_MAX = 32;

/** A message of the chat: its row, its author, and its number; null once it has left the log. */
export type Message = MessageRow & { readonly seq: number | null; readonly author: Author | null };

/** A page of older messages, newest first, and where the one before it ends; null when there is none. */
export interface OlderPage {
  readonly messages: readonly Message[];
  readonly next: string | null;
}

/** A message of the viewer's own that the log has not brought yet. */
export interface PendingMessage {
  readonly nonce: string;
  readonly body: string;
  readonly reply_to: string | null;
  readonly created_at: string;
  /** `sent` once it is committed, under `seq`; `failed` with the `error`. */
  readonly status: "sending" | "sent" | "failed";
  readonly seq: number | null;
  readonly id: string | null;
  readonly error: UsherError | null;
}

/** The window of the chat. */
export interface Chat {
  readonly messages: readonly Message[];
  readonly pending: readonly PendingMessage[];
  /** Where the window begins, as the gateway takes it for older messages; null when there are none. */
  readonly before: string | null;
  /** Whether somebody reads back, so that more is kept. */
  readonly readsBack: boolean;
  /** Whether the window stays where it is: what is read in it must not go. */
  readonly isHeld: boolean;
  /** The newest messages, apart from a window that is held and has no more room; null while the window has them. */
  readonly tail: readonly Message[] | null;
  /** How many messages have arrived. It only grows, so a difference of two values is what came in between. */
  readonly arrived: number;
}

/** The chat before anything has arrived that comes after the number `seq`. */
export function emptyChat(seq = 0, pending: readonly PendingMessage[] = []): Chat {
  const before = seq > 0 ? String(seq + 1) : null;
  return { messages: [], pending, before, readsBack: false, isHeld: false, tail: null, arrived: 0 };
}

/** Whether there may be messages older than the window. */
export function hasOlder(chat: Chat): boolean {
  return chat.before !== null;
}

/** Folds fresh log events. */
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
  // What was acknowledged under a number that has passed is shown, or lies before the window.
  if (pending.some((item) => item.seq !== null && item.seq <= passed))
    pending = pending.filter((item) => item.seq === null || item.seq > passed);
  if (messages === chat.messages && pending === chat.pending) return chat;
  if (pending.length === chat.pending.length) pending = chat.pending;
  return bounded({ ...chat, messages, tail, arrived, pending });
}

/** Puts a page of older messages before the window. */
export function foldOlder(chat: Chat, page: OlderPage): Chat {
  const messages = [...page.messages.toReversed(), ...chat.messages];
  const older = { ...chat, messages, before: page.next, readsBack: true };
  if (chat.isHeld) return bounded(older);
  // A page that no longer fits would go at once, and be asked for again without end.
  return messages.length > MESSAGES_WITH_OLDER_MAX ? chat : older;
}

/** Holds the window where it is: somebody reads back in it. New messages are added while there is room. */
export function holdWindow(chat: Chat): Chat {
  return chat.isHeld ? chat : { ...chat, isHeld: true };
}

/** Where a message stands, as the gateway takes it: its number, or its time in microseconds and its id. */
export function placeOf({ seq, created_at, id }: Message): string {
  if (seq !== null) return String(seq);
  const fraction = /\.(\d+)/.exec(created_at)?.[1] ?? "";
  return `${Date.parse(created_at)}${fraction.slice(3, 6).padEnd(3, "0")}_${id}`;
}

/** Back to the newest: what was loaded or held for reading back goes. */
export function foldNewest(chat: Chat): Chat {
  if (!chat.readsBack && !chat.isHeld) return chat;
  const free = { ...chat, readsBack: false, isHeld: false, tail: null };
  return bounded(chat.tail === null ? free : { ...free, ...begunAt(chat.tail, chat.before) });
}

/** Adds an optimistic message, or sends a failed one again under its old nonce. */
export function addPending(
  chat: Chat,
  message: Pick<PendingMessage, "nonce" | "body" | "reply_to" | "created_at">,
): Chat {
  const others = chat.pending.filter((item) => item.nonce !== message.nonce);
  const item: PendingMessage = { ...message, status: "sending", seq: null, id: null, error: null };
  const excess = others.length + 1 - PENDING_MAX;
  // Room is made by forgetting the oldest failures, never what is on its way.
  let room = excess;
  const kept = others.filter((other) => !(other.status === "failed" && room-- > 0));
  return { ...chat, pending: [...kept, item] };
}

/** Notes the number of an acknowledged message; its event replaces it. `seen` is the newest number seen. */
export function acknowledge(chat: Chat, nonce: string, ack: { seq: number; id: string; seen: number | null }): Chat {
  if (ack.seq <= (ack.seen ?? 0)) return dropPending(chat, nonce);
  return changePending(chat, nonce, (item) => ({ ...item, status: "sent", seq: ack.seq, id: ack.id, error: null }));
}

/** Marks a message as refused or unanswered, by name. */
export function failPending(chat: Chat, nonce: string, error: UsherError): Chat {
  return changePending(chat, nonce, (item) =>
    item.status === "sending" ? { ...item, status: "failed", error } : item,
  );
}

/** Forgets an unsettled message. */
export function dropPending(chat: Chat, nonce: string): Chat {
  const pending = chat.pending.filter((item) => item.nonce !== nonce);
  return pending.length === chat.pending.length ? chat : { ...chat, pending };
}

function indexOf(messages: readonly Message[], id: string): number {
  // From the end: edits and deletions mostly concern what was said last.
  return messages.findLastIndex((message) => message.id === id);
}

/** At its place, which is the end: only a fresh start that reaches back brings what lies before. */
function insert(messages: Message[], message: Message): void {
  const after = messages.findLastIndex((other) => (other.seq ?? 0) < (message.seq ?? 0));
  messages.splice(after + 1, 0, message);
}

/** Changes the message of that id in the list that has it; false if none has. */
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
    // The newest make room, since somebody reads among the oldest.
    const rest = over > 0 ? [...chat.messages.slice(-over), ...(chat.tail ?? [])] : (chat.tail ?? []);
    const tail = rest.length > 0 ? rest.slice(-MESSAGES_MAX) : null;
    return { ...chat, messages: over > 0 ? chat.messages.slice(0, -over) : chat.messages, tail };
  }
  return over > 0 ? { ...chat, ...begunAt(chat.messages.slice(over), chat.before) } : chat;
}

/** A window of these messages, and where it begins. */
function begunAt(messages: readonly Message[], before: string | null): Pick<Chat, "messages" | "before"> {
  const [first] = messages;
  return { messages, before: first ? placeOf(first) : before };
}
