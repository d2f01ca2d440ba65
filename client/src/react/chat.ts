/** The chat of a session: a window over its messages, one's own unsettled ones, and reading back by scrolling up. */

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

import { type Chat, hasOlder, type Message, type PendingMessage } from "../chat.ts";
import type { UsherError } from "../errors.ts";
import type { Sent } from "../follower.ts";
import { normalId } from "../ids.ts";
import type { SendOptions, Session } from "../session.ts";
import type { SessionStatus } from "../state.ts";
import { isLoading, type SessionId, useActions, useSelected } from "./hooks.ts";
import { useSource } from "./provider.ts";

/** Pixels from an edge that count as being there. */
const EDGE_PX = 80;
/** On a server there is no layout, and React 18 says so for each effect. */
const useLayout = typeof document === "undefined" ? useEffect : useLayoutEffect;

/** The chat. */
export interface UseChat {
  /** How the session stands: `stopped` with `sessionError`, if it may not be seen. */
  readonly status: SessionStatus;
  /** Whether the first messages are still on their way: an empty list then says nothing. */
  readonly isLoading: boolean;
  /** Why the session is `stopped`. */
  readonly sessionError: UsherError | null;
  /** The window, oldest first; a deleted message has no `body`. */
  readonly messages: readonly Message[];
  /** One's own messages that are on their way or failed; show them after the others. */
  readonly pending: readonly PendingMessage[];
  readonly hasOlder: boolean;
  readonly isLoadingOlder: boolean;
  /** Why older messages could not be loaded. */
  readonly error: UsherError | null;
  /** Messages that came while the list was scrolled up. */
  readonly unread: number;
  /** Loads a page of older messages. A list with `listRef` does it by itself. */
  readonly loadOlder: () => Promise<void>;
  /** Scrolls to the newest message. */
  readonly toNewest: () => void;
  /** For the element that scrolls: it stays at the newest, loads older ones when scrolled up, and does not jump. */
  readonly listRef: (list: HTMLElement | null) => void;
  /** Sends a message; resolves to its number, or rejects by name. */
  readonly send: (body: string, options?: SendOptions) => Promise<Sent>;
  readonly resend: (nonce: string) => Promise<Sent>;
  readonly discard: (nonce: string) => void;
}

/** The chat of a session. */
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
  // biome-ignore lint/correctness/useExhaustiveDependencies: the failure was of another session.
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

/** Where a list is scrolled to, and what follows from it. */
function useScrolling(id: SessionId, chat: Chat, mayLoad: boolean, loadOlder: () => Promise<void>) {
  const { messages, pending, arrived } = chat;
  const canLoad = mayLoad && hasOlder(chat);
  const source = useSource();
  const [list, setList] = useState<HTMLElement | null>(null);
  /** How many messages had arrived when the reader left the end; null while they are there. */
  const [seen, setSeen] = useState<number | null>(null);
  const anchor = useRef<Anchor | null>(null);
  const held = useRef<Session | null>(null);

  // The session in which the window is held while the list is scrolled up. Another one, or another list, begins at its end.
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

  // After each change of the list: stay at its end, or hold what is being read where it is.
  useLayout(() => {
    if (!list) return;
    // The browser's own anchoring, which Safari lacks, would move the list a second time.
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

/** A row, and how far it was from the top of the list. */
interface Anchor {
  readonly element: Element;
  readonly top: number;
}

function topOf(element: Element, list: Element): number {
  return element.getBoundingClientRect().top - list.getBoundingClientRect().top;
}

/** The first row that can be seen; by halves, since the rows of a long list lie in order. */
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
