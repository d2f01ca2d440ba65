/** The chat of a session: the message window, the viewer's pending messages, and scrolling up to older messages. */

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

import { type Chat, hasOlder, type Message, type PendingMessage } from "../chat.ts";
import type { UsherError } from "../errors.ts";
import type { Sent } from "../follower.ts";
import { normalId } from "../ids.ts";
import type { SendOptions, Session } from "../session.ts";
import type { SessionStatus } from "../state.ts";
import { isLoading, type SessionId, useActions, useSelected } from "./hooks.ts";
import { useSource } from "./provider.ts";

/** A list within this distance of an edge, in pixels, counts as scrolled to that edge. */
const EDGE_PX = 80;
/** Avoids a warning: on a server, React 18 warns about each layout effect. */
const useLayout = typeof document === "undefined" ? useEffect : useLayoutEffect;

/** The result of `useChat`. */
export interface UseChat {
  /** The status of the session: `stopped` with a `sessionError` if the viewer may not see it. */
  readonly status: SessionStatus;
  /** Whether the first messages are still loading. An empty list is then not an empty chat. */
  readonly isLoading: boolean;
  /** The reason for `stopped`. */
  readonly sessionError: UsherError | null;
  /** The messages in the window, oldest first. A deleted message has no `body`. */
  readonly messages: readonly Message[];
  /** The viewer's own messages that are unanswered or failed. Show them after the others. */
  readonly pending: readonly PendingMessage[];
  readonly hasOlder: boolean;
  readonly isLoadingOlder: boolean;
  /** The reason why loading older messages failed. */
  readonly error: UsherError | null;
  /** The number of messages that arrived while the list was scrolled up. */
  readonly unread: number;
  /** Loads a page of older messages. A list with `listRef` calls it automatically. */
  readonly loadOlder: () => Promise<void>;
  /** Scrolls to the newest message. */
  readonly toNewest: () => void;
  /**
   * The `ref` of the scrolling element. The list follows the newest message, loads older ones when the viewer scrolls
   * up, and does not jump.
   */
  readonly listRef: (list: HTMLElement | null) => void;
  /** Sends a message. Resolves to its event number, or rejects with an `UsherError`. */
  readonly send: (body: string, options?: SendOptions) => Promise<Sent>;
  readonly resend: (nonce: string) => Promise<Sent>;
  readonly discard: (nonce: string) => void;
}

/** Returns the chat of a session. */
export function useChat(given: SessionId): UseChat {
  const id = given && normalId(given);
  const chat = useSelected(id, (state) => state.chat);
  const status = useSelected(id, (state) => state.status);
  const sessionError = useSelected(id, (state) => state.error);
  const isFirst = useSelected(id, isLoading);
  const act = useActions(id);
  const [isLoadingOlder, setLoading] = useState(false);
  const [error, setError] = useState<UsherError | null>(null);
  const loading = useRef(false);

  const loadOlder = useCallback(async () => {
    if (loading.current) return;
    loading.current = true;
    setLoading(true);
    setError(null);
    try {
      await act((session) => session.older());
    } catch (error) {
      setError(error as UsherError);
    } finally {
      loading.current = false;
      setLoading(false);
    }
  }, [act]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the error belongs to the session before.
  useEffect(() => setError(null), [id]);
  const scrolling = useScrolling(id, chat, error === null, loadOlder);
  return {
    status,
    isLoading: isFirst,
    sessionError,
    messages: chat.messages,
    pending: chat.pending,
    hasOlder: hasOlder(chat),
    isLoadingOlder,
    error,
    loadOlder,
    ...scrolling,
    send: useCallback((body, options) => act((session) => session.send(body, options)), [act]),
    resend: useCallback((nonce) => act((session) => session.resend(nonce)), [act]),
    discard: useCallback((nonce) => void act(async (session) => session.discard(nonce)).catch(() => {}), [act]),
  };
}

/** Tracks the scroll position of a list: follows its end, keeps the messages on screen in place, loads older ones. */
function useScrolling(id: SessionId, chat: Chat, mayLoad: boolean, loadOlder: () => Promise<void>) {
  const { messages, pending, arrived } = chat;
  const canLoad = mayLoad && hasOlder(chat);
  const source = useSource();
  const [list, setList] = useState<HTMLElement | null>(null);
  /** The count of arrived messages when the viewer scrolled up; null while the list is at its end. */
  const [seen, setSeen] = useState<number | null>(null);
  const anchor = useRef<Anchor | null>(null);
  const held = useRef<Session | null>(null);

  // Follows the session whose window this list holds. Another session or another list starts at its end.
  useLayout(() => {
    if (!list || id === null) return;
    const { session, release } = source.follow(id);
    held.current = session;
    return () => {
      if (anchor.current !== null) session.newest();
      anchor.current = null;
      held.current = null;
      setSeen(null);
      release();
    };
  }, [source, id, list]);

  // After each change of the list: stay at its end, or keep the first visible row in place.
  useLayout(() => {
    if (!list) return;
    // Turns off the browser's scroll anchoring (Safari has none): it would move the list a second time.
    list.style.overflowAnchor = "none";
    if (anchor.current === null) list.scrollTop = list.scrollHeight;
    else list.scrollTop += topOf(anchor.current.element, list) - anchor.current.top;
  }, [list, messages, pending]);

  useLayout(() => {
    if (!list) return;
    const onScroll = () => {
      const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight <= EDGE_PX;
      if (isAtEnd && anchor.current !== null) held.current?.newest();
      if (!isAtEnd && anchor.current === null) held.current?.readBack();
      setSeen((seen) => (isAtEnd ? null : (seen ?? arrived)));
      anchor.current = isAtEnd ? null : firstVisible(list);
      if (list.scrollTop <= EDGE_PX && canLoad && !isAtEnd) void loadOlder();
    };
    list.addEventListener("scroll", onScroll, { passive: true });
    return () => list.removeEventListener("scroll", onScroll);
  }, [list, arrived, canLoad, loadOlder]);

  const toNewest = useCallback(() => {
    if (list) list.scrollTop = list.scrollHeight;
  }, [list]);
  return { listRef: setList, toNewest, unread: seen === null ? 0 : arrived - seen };
}

/** A row and its distance from the top of the list, in pixels. */
interface Anchor {
  readonly element: Element;
  readonly top: number;
}

function topOf(element: Element, list: Element): number {
  return element.getBoundingClientRect().top - list.getBoundingClientRect().top;
}

/** Finds the first visible row by binary search: the rows of a list lie in order. */
function firstVisible(list: Element): Anchor | null {
  let rows = list.children;
  while (rows.length === 1 && rows[0] && rows[0].children.length > 0) rows = rows[0].children;
  let [low, high] = [0, rows.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    const row = rows[middle];
    if (row && topOf(row, list) + row.clientHeight <= 0) low = middle + 1;
    else high = middle;
  }
  const element = rows[low];
  return element ? { element, top: topOf(element, list) } : null;
}
