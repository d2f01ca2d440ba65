// @vitest-environment happy-dom
// The hooks in an app: in StrictMode, with a query cache, with supabase-js for tokens.

import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { createElement, type ReactNode, StrictMode, useEffect } from "react";
import { afterEach, expect, test, vi } from "vitest";

import {
  UsherProvider,
  type UsherProviderProps,
  useChat,
  useConnection,
  useSession,
  useTally,
  useViewers,
  useVote,
  usherKeys,
} from "../src/react/index.ts";
import {
  admit,
  chat,
  events,
  FIRST,
  inFakeWorld,
  SECOND,
  SESSION,
  settle,
  subscribed,
  VOTING,
  voting,
} from "./fakes.ts";

// StrictMode mounts, unmounts and mounts each hook again.
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
afterEach(cleanup);

test("all hooks share one subscription on one socket, which closes after the last unmount", async () => {
  const { world, wrapper } = inProvider();
  const both = () => [
    useViewers(SESSION),
    useSession(SESSION).status,
    useTally(SESSION)?.total,
    useConnection().status,
  ];
  const one = renderHook(both, { wrapper });
  const other = renderHook(both, { wrapper });
  expect(one.result.current).toEqual([null, "connecting", undefined, "connecting"]);
  await act(() => admit(world, { votings: [voting({ total: 7 })] }));
  expect(one.result.current).toEqual([3, "live", 7, "open"]);
  expect(other.result.current).toEqual(one.result.current);
  expect(world.socket.of("subscribe")).toHaveLength(1);

  one.unmount();
  await act(() => world.pass(10_000));
  expect(other.result.current[3]).toBe("open");
  other.unmount();
  await act(() => world.pass(10_000));
  expect([world.sockets.length, world.socket.closed]).toEqual([1, 1000]);
});

test("a change of route keeps the subscription, and another session gets another one", async () => {
  const { world, wrapper } = inProvider();
  const { rerender, result } = renderHook(({ id }) => useViewers(id), { wrapper, initialProps: { id: SESSION } });
  await act(() => admit(world));
  rerender({ id: "other" });
  expect(result.current).toBe(null);
  rerender({ id: SESSION });
  expect(result.current).toBe(3);
  await act(() => world.pass(5000));
  expect(world.socket.of("subscribe").map((frame) => frame.session)).toEqual([SESSION, "other"]);
  expect(world.socket.of("unsubscribe").map((frame) => frame.session)).toEqual(["other"]);
});

test("useSession calls the latest onEvent handler once for each event", async () => {
  const { world, wrapper } = inProvider();
  const heard: string[] = [];
  const { rerender } = renderHook(
    ({ name }) => useSession(SESSION, { onEvent: (event) => heard.push(`${name} ${event.seq}`) }),
    { wrapper, initialProps: { name: "a" } },
  );
  await act(() => admit(world));
  act(() => world.socket.say(events(chat(1))));
  rerender({ name: "b" });
  act(() => world.socket.say(events(chat(2))));
  expect(heard).toEqual(["a 1", "b 2"]);
});

test("useChat shows a sent message immediately, and its failure", async () => {
  const { world, wrapper } = inProvider();
  const { result } = renderHook(() => useChat(SESSION), { wrapper });
  await act(() => admit(world));
  act(() => world.socket.say(events(chat(1))));
  let sent = Promise.resolve<unknown>(null);
  act(() => {
    sent = result.current.send("hello");
  });
  expect(result.current.pending).toMatchObject([{ body: "hello", status: "sending" }]);
  const { id, nonce } = world.socket.last("send");
  act(() => world.socket.say({ type: "error", id, code: "slow_mode", message: "wait", retry_after_ms: 1000 }));
  await expect(sent).rejects.toMatchObject({ code: "slow_mode" });
  expect(result.current.pending).toMatchObject([{ status: "failed" }]);
  act(() => {
    sent = result.current.resend(String(nonce));
  });
  act(() => world.socket.say(events(chat(2, { nonce }))));
  expect(await sent).toMatchObject({ seq: 2 });
  expect([result.current.pending.length, result.current.messages.length]).toEqual([0, 2]);
});

test("a message still arrives after its component unmounts", async () => {
  const { world, wrapper } = inProvider();
  const { result, unmount } = renderHook(() => useChat(SESSION), { wrapper });
  await act(() => admit(world));
  let sent = Promise.resolve<unknown>(null);
  act(() => {
    sent = result.current.send("goodbye");
  });
  unmount();
  await world.pass(10_000);
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect(await sent).toMatchObject({ seq: 1 });
});

test("a list stays at its end, keeps its place while scrolled up, and loads older messages", async () => {
  const { world, wrapper } = inProvider();
  const list = fakeList();
  const { result } = renderHook(
    () => {
      const it = useChat(SESSION);
      useEffect(() => it.listRef(list.element), [it.listRef]);
      list.show(it.messages.map((message) => Number(message.seq)));
      return it;
    },
    { wrapper },
  );
  await act(() => admit(world, { seq: 100, head: 140 }));
  act(() => world.socket.say(events(...Array.from({ length: 40 }, (_, index) => chat(101 + index)))));
  expect(list.element.scrollTop).toBe(40 * 20);

  world.respond = () => {
    const messages = Array.from({ length: 50 }, (_, index) => ({ ...chat(100 - index).data, seq: 100 - index }));
    return Response.json({ data: { messages, next: "51" } });
  };
  await act(async () => {
    list.scrollTo(60);
    await settle();
    await new Promise((resolve) => setTimeout(resolve, 50));
  });
  expect(result.current.messages.map((message) => message.seq).slice(0, 2)).toEqual([51, 52]);
  expect(list.element.scrollTop).toBe(60 + 50 * 20);
  act(() => world.socket.say(events(chat(141), chat(142))));
  expect(result.current.unread).toBe(2);
  expect(list.element.scrollTop).toBe(60 + 50 * 20);

  act(() => {
    result.current.toNewest();
    list.scrollTo(list.element.scrollTop);
  });
  expect(result.current.unread).toBe(0);
  act(() => world.socket.say(events(chat(143))));
  expect(list.element.scrollTop).toBe(93 * 20);
  expect(world.requests).toHaveLength(1);
});

test("a list that is scrolled up keeps its place during 2,500 new messages and counts them all", async () => {
  const { world, wrapper } = inProvider();
  const list = fakeList();
  const { result, unmount } = renderHook(
    () => {
      const it = useChat(SESSION);
      useEffect(() => it.listRef(list.element), [it.listRef]);
      list.show(it.messages.map((message) => Number(message.seq)));
      return it;
    },
    { wrapper },
  );
  const say = (from: number, to: number) =>
    act(() => world.socket.say(events(...Array.from({ length: to - from + 1 }, (_, index) => chat(from + index)))));
  await act(() => admit(world, { seq: 100, head: 140 }));
  say(101, 140);
  act(() => list.scrollTo(300));
  expect(list.topOf(116)).toBe(0);
  for (let seq = 141; seq < 2641; seq += 250) say(seq, seq + 249);
  expect(list.topOf(116)).toBe(0);
  expect(result.current.unread).toBe(2500);
  expect(result.current.messages).toHaveLength(2000);

  act(() => {
    result.current.toNewest();
    list.scrollTo(list.element.scrollTop);
  });
  expect([result.current.unread, result.current.messages.at(-1)?.seq, result.current.messages.length]).toEqual([
    0, 2640, 500,
  ]);
  say(2641, 2641);
  expect([result.current.unread, result.current.messages.at(-1)?.seq]).toEqual([0, 2641]);

  // After a scrolled list unmounts, the next list starts at the newest message.
  act(() => list.scrollTo(300));
  for (let seq = 2642; seq < 5142; seq += 500) say(seq, seq + 499);
  unmount();
  const next = renderHook(() => useChat(SESSION), { wrapper });
  expect(next.result.current.messages.at(-1)?.seq).toBe(5141);
});

test("useChat and useTally distinguish loading, empty and stopped", async () => {
  const { world, usher, wrapper } = inProvider();
  const { result } = renderHook(() => ({ chat: useChat(SESSION), tally: useTally(SESSION), it: useSession(SESSION) }), {
    wrapper,
  });
  expect(result.current.chat).toMatchObject({ status: "connecting", isLoading: true, sessionError: null });
  expect([result.current.tally, result.current.it.isLoading]).toEqual([undefined, true]);
  await act(() => admit(world, { seq: 0, head: 2 }));
  expect(result.current.chat).toMatchObject({ status: "catching_up", isLoading: true });
  expect(result.current.tally).toBe(null);
  act(() => world.socket.say(events(chat(1))));
  expect(result.current.chat).toMatchObject({ isLoading: true });
  act(() => world.socket.say(events(chat(2))));
  expect(result.current.chat).toMatchObject({ status: "live", isLoading: false });
  // The state stays while the connection is lost.
  act(() => world.socket.cut());
  expect(result.current.chat).toMatchObject({ status: "waiting", isLoading: false });
  expect([result.current.tally, result.current.it.isLoading]).toEqual([null, false]);
  await act(async () => {
    await world.pass(1000);
    await admit(world, { recovered: true, seq: 2, head: 3, votings: [voting()] });
  });
  expect(result.current.chat.isLoading).toBe(false);
  expect(result.current.tally).toMatchObject({ question: "which?" });
  // After a reset the list is empty until its history arrives.
  act(() => world.socket.say({ type: "reset", session: SESSION, epoch: "e2", seq: 8, head: 9, reason: "ahead" }));
  expect(result.current.chat).toMatchObject({ messages: [], isLoading: true });
  act(() => world.socket.say(events(chat(9))));
  expect(result.current.chat.isLoading).toBe(false);

  const hidden = renderHook(() => ({ chat: useChat("hidden"), tally: useTally("hidden") }), { wrapper });
  await act(settle);
  act(() =>
    world.socket.say({ type: "error", id: world.socket.last("subscribe").id, code: "not_found", message: "no" }),
  );
  expect(hidden.result.current.chat).toMatchObject({ status: "stopped", isLoading: false });
  expect(hidden.result.current.chat.sessionError?.code).toBe("not_found");
  expect(hidden.result.current.tally).toBe(null);
  act(() => usher.close());
});

test("hooks with a null id follow nothing, and start when they get an id", async () => {
  const { world, wrapper } = inProvider({ queryClient: new QueryClient() });
  const { result, rerender } = renderHook(
    ({ id }: { id: string | null }) => ({
      it: useSession(id, { onEvent: () => {} }),
      chat: useChat(id),
      tally: useTally(id),
      vote: useVote(id),
      viewers: useViewers(id),
    }),
    { wrapper, initialProps: { id: null as string | null } },
  );
  await act(() => world.pass(1000));
  expect(world.sockets).toHaveLength(0);
  const { it, chat: messages, tally, vote, viewers } = result.current;
  expect([it.status, it.isLoading, messages.status, messages.isLoading]).toEqual(["idle", false, "idle", false]);
  expect([messages.messages, messages.hasOlder, tally, vote.canVote, viewers]).toEqual([
    [],
    false,
    undefined,
    false,
    null,
  ]);
  await expect(messages.send("hello")).rejects.toMatchObject({ code: "no_session" });
  await act(() => vote.vote(FIRST));
  messages.discard("nonce");
  await act(() => messages.loadOlder());

  rerender({ id: SESSION });
  await act(() => admit(world, { votings: [voting()] }));
  expect([result.current.it.status, result.current.viewers, result.current.vote.canVote]).toEqual(["live", 3, true]);
  rerender({ id: null });
  expect([result.current.it.status, result.current.viewers]).toEqual(["idle", null]);
  await act(() => world.pass(4000));
  expect(world.socket.closed).toBe(1000);
});

test("hooks and the query cache share a session whose id is in upper or lower case", async () => {
  const id = "5e551000-0000-4000-8000-00000000abcd";
  const queryClient = new QueryClient();
  const { world, wrapper } = inProvider({ queryClient });
  const { result } = renderHook(() => [useViewers(id.toUpperCase()), useSession(id).status], { wrapper });
  await act(settle);
  await act(() => admit(world, { session: id }));
  expect(result.current).toEqual([3, "live"]);
  expect(world.socket.of("subscribe").map((frame) => frame.session)).toEqual([id]);
  expect(queryClient.getQueryData(usherKeys.viewers(id.toUpperCase()))).toBe(3);
});

test("hooks show a vote from another tab", async () => {
  const { world, wrapper } = inProvider();
  const { result } = renderHook(() => ({ vote: useVote(SESSION), tally: useTally(SESSION) }), { wrapper });
  await act(() => admit(world, { votings: [voting()] }));
  act(() => world.socket.say({ type: "mine", session: SESSION, voting: VOTING, option: SECOND, movie: SECOND }));
  expect(result.current.vote.mine).toBe(SECOND);
  expect(result.current.tally?.rows.map((row) => row.mine)).toEqual([false, true]);
  act(() => world.socket.say({ type: "mine", session: SESSION, voting: VOTING, option: null, movie: null }));
  expect(result.current.vote.mine).toBe(null);
});

test("useChat of another session starts at its end, without the unread count and error of the first", async () => {
  const { world, wrapper } = inProvider();
  const list = fakeList();
  const { result, rerender } = renderHook(
    ({ id }) => {
      const it = useChat(id);
      useEffect(() => it.listRef(list.element), [it.listRef]);
      list.show(it.messages.map((message) => Number(message.seq)));
      return it;
    },
    { wrapper, initialProps: { id: SESSION } },
  );
  await act(() => admit(world, { seq: 10, head: 50 }));
  act(() => world.socket.say(events(...Array.from({ length: 40 }, (_, index) => chat(11 + index)))));
  act(() => list.scrollTo(300));
  await act(() => result.current.loadOlder());
  act(() => world.socket.say(events(chat(51))));
  expect([result.current.unread, result.current.error?.code]).toEqual([1, "bad_request"]);

  rerender({ id: "other" });
  await act(settle);
  const other = { session: "other", seq: 60, head: 90 };
  act(() => world.socket.say(subscribed(other)));
  act(() =>
    world.socket.say({ ...events(...Array.from({ length: 30 }, (_, index) => chat(61 + index))), session: "other" }),
  );
  expect([result.current.messages.length, result.current.unread, result.current.error]).toEqual([30, 0, null]);
  expect(list.element.scrollTop).toBe(30 * 20);
});

test("useChat reports a failure to load older messages, and does not retry in a loop", async () => {
  const { world, wrapper } = inProvider();
  const { result } = renderHook(() => useChat(SESSION), { wrapper });
  await act(() => admit(world, { seq: 100 }));
  await act(() => result.current.loadOlder());
  expect(result.current.error).toMatchObject({ code: "bad_request" });
  expect([result.current.isLoadingOlder, result.current.hasOlder]).toEqual([false, true]);
});

test("hooks show a vote immediately, and revert it with the error", async () => {
  const { world, wrapper } = inProvider();
  const { result } = renderHook(() => ({ own: useVote(SESSION), tally: useTally(SESSION, VOTING) }), { wrapper });
  expect(result.current.own.canVote).toBe(false);
  const counts = [{ movie: FIRST, votes: 1 }];
  await act(() => admit(world, { votings: [voting({ total: 1, counts })] }));
  expect(result.current.own.canVote).toBe(true);
  await act(async () => void result.current.own.vote(SECOND));
  expect(result.current.own).toMatchObject({ mine: SECOND, isPending: true, error: null });
  expect(result.current.tally?.rows).toMatchObject([
    { movie: FIRST, votes: 1, share: 1, leads: true, mine: false },
    { movie: SECOND, votes: 0, share: 0, leads: false, mine: true },
  ]);
  await act(async () => {
    world.socket.say({ type: "error", id: world.socket.last("vote").id, code: "voting_closed", message: "late" });
    await settle();
  });
  expect(result.current.own).toMatchObject({ mine: null, isPending: false, error: { code: "voting_closed" } });
});

test("useVote shows the error of a vote for its own poll only", async () => {
  const { world, wrapper } = inProvider();
  const { result } = renderHook(() => useVote(SESSION), { wrapper });
  await act(() => admit(world, { votings: [voting()] }));
  await act(async () => void result.current.vote(FIRST));
  await act(async () => {
    world.socket.say({ type: "error", id: world.socket.last("vote").id, code: "voting_closed", message: "late" });
    await settle();
  });
  expect(result.current.error).toMatchObject({ code: "voting_closed" });
  act(() => world.socket.say({ type: "tally", session: SESSION, ...voting({ version: 2, status: "closed" }) }));
  expect(result.current.error).toMatchObject({ code: "voting_closed" });
  act(() => world.socket.say({ type: "tally", session: SESSION, ...voting({ voting: "another" }) }));
  expect(result.current).toMatchObject({ canVote: true, error: null });
});

test("the query cache has the state for queries without a queryFn", async () => {
  const queryClient = new QueryClient();
  const { world, wrapper } = inProvider({ queryClient });
  const { result } = renderHook(
    () => {
      useViewers(SESSION);
      return useQuery<number | null>({ queryKey: usherKeys.viewers(SESSION) }).data;
    },
    { wrapper },
  );
  await act(() => admit(world));
  await act(async () => {
    world.socket.say({ type: "viewers", session: SESSION, count: 9 });
    world.socket.say(events(chat(1)));
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
  expect(result.current).toBe(9);
  expect(queryClient.getQueryData(usherKeys.messages(SESSION))).toMatchObject([{ body: "message 1" }]);
  await act(() => queryClient.refetchQueries({ queryKey: usherKeys.session(SESSION) }));
  expect(result.current).toBe(9);
});

test("a reset invalidates the queries of the app, and a resume does not", async () => {
  const queryClient = new QueryClient();
  const { world, wrapper } = inProvider({ queryClient, invalidate: (session) => [["highlights", session]] });
  const fetched = vi.fn(async () => "highlights");
  renderHook(
    () => {
      useViewers(SESSION);
      useQuery({ queryKey: ["highlights", SESSION], queryFn: fetched });
    },
    { wrapper },
  );
  await act(() => admit(world));
  await act(async () => {
    world.socket.cut();
    await world.pass(1000);
    await admit(world, { recovered: true });
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
  expect(fetched).toHaveBeenCalledTimes(1);
  await act(async () => {
    world.socket.say({ type: "reset", session: SESSION, epoch: "e2", seq: 9, head: 9, reason: "ahead" });
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
  expect(fetched).toHaveBeenCalledTimes(2);
});

test("a provider that renders again keeps its client and calls the latest invalidate function", async () => {
  const queryClient = new QueryClient();
  const prepared = vi.spyOn(queryClient, "setQueryDefaults");
  const invalidated = vi.spyOn(queryClient, "invalidateQueries");
  const { world, usher } = inFakeWorld();
  const followed = vi.spyOn(usher, "session");
  const app = (name: string) =>
    createElement(
      UsherProvider,
      { client: usher, queryClient, invalidate: () => [[name]] },
      createElement(Viewers, { key: "viewers" }),
    );
  const { rerender } = render(app("first"));
  await act(() => admit(world));
  const before = [prepared.mock.calls.length, followed.mock.calls.length];
  rerender(app("second"));
  expect([prepared.mock.calls.length, followed.mock.calls.length]).toEqual(before);
  act(() => world.socket.say({ type: "reset", session: SESSION, epoch: "e2", seq: 9, head: 9, reason: "ahead" }));
  expect(invalidated.mock.calls.map(([filters]) => filters?.queryKey)).toEqual([
    usherKeys.session(SESSION),
    ["second"],
  ]);
});

test("a provider with a supabase client connects only when a hook follows a session", async () => {
  const opened: string[] = [];
  vi.stubGlobal(
    "WebSocket",
    class {
      constructor(url: string) {
        opened.push(url);
      }
      close() {}
    },
  );
  let listeners = 0;
  const supabase = {
    auth: {
      getSession: async () => ({ data: { session: { access_token: "token" } } }),
      onAuthStateChange: () => {
        listeners += 1;
        return { data: { subscription: { unsubscribe: () => (listeners -= 1) } } };
      },
    },
  };
  const app = (child: ReactNode) =>
    createElement(StrictMode, null, createElement(UsherProvider, { url: "http://gateway.example", supabase }, child));
  const { rerender, unmount } = render(app(null));
  expect([opened.length, listeners]).toEqual([0, 0]);
  rerender(app(createElement(Viewers)));
  await act(settle);
  expect([opened, listeners]).toEqual([["ws://gateway.example/v1/socket"], 1]);
  unmount();
  await act(() => new Promise((resolve) => setTimeout(resolve, 3100)));
  expect(listeners).toBe(0);
  vi.unstubAllGlobals();
});

test("a new supabase object on each render keeps the socket and supplies the next token", async () => {
  const opened: string[] = [];
  vi.stubGlobal(
    "WebSocket",
    class {
      constructor(url: string) {
        opened.push(url);
      }
      close() {}
    },
  );
  const asked: string[] = [];
  const listeners = new Map<string, () => void>();
  const supabase = (name: string) => ({
    auth: {
      getSession: async () => {
        asked.push(name);
        return { data: { session: { access_token: "token" } } };
      },
      onAuthStateChange: (listener: () => void) => {
        listeners.set(name, listener);
        return { data: { subscription: { unsubscribe: () => listeners.delete(name) } } };
      },
    },
  });
  const app = (name: string) =>
    createElement(UsherProvider, { url: "http://gateway.example", supabase: supabase(name) }, createElement(Viewers));
  const { rerender, unmount } = render(app("0"));
  await act(settle);
  for (let count = 1; count <= 5; count += 1) {
    rerender(app(`${count}`));
    await act(settle);
  }
  await act(() => new Promise((resolve) => setTimeout(resolve, 3100)));
  expect(opened).toEqual(["ws://gateway.example/v1/socket"]);
  expect([...listeners.keys()]).toEqual(["5"]);
  expect(asked[0]).toBe("0");
  unmount();
  await act(() => new Promise((resolve) => setTimeout(resolve, 3100)));
  expect(listeners.size).toBe(0);
  vi.unstubAllGlobals();
});

test("a hook without a provider throws an error that names the provider", () => {
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => renderHook(() => useViewers(SESSION))).toThrow("<UsherProvider>");
  quiet.mockRestore();
});

function Viewers() {
  return createElement("p", null, String(useViewers(SESSION)));
}

/** Returns a provider whose client lives in a fake world. */
function inProvider(props: Omit<UsherProviderProps, "client" | "url" | "supabase" | "children"> = {}) {
  const { world, usher } = inFakeWorld();
  const queryClient = (props.queryClient as QueryClient | undefined) ?? new QueryClient();
  const wrapper = ({ children }: { children: ReactNode }) =>
    createElement(
      StrictMode,
      null,
      createElement(
        QueryClientProvider,
        { client: queryClient },
        createElement(UsherProvider, { client: usher, ...props }, children),
      ),
    );
  return { world, usher, wrapper };
}

/** Returns a fake scrolling element with rows of 20 pixels, because happy-dom has no layout. */
function fakeList() {
  const element = document.createElement("ol");
  const rows = new Map<number, HTMLElement>();
  let shown: number[] = [];
  let top = 0;
  Object.defineProperties(element, {
    clientHeight: { get: () => 200 },
    scrollHeight: { get: () => shown.length * 20 },
    scrollTop: { get: () => top, set: (value: number) => (top = value) },
  });
  element.getBoundingClientRect = () => ({ top: 0 }) as DOMRect;
  return {
    element,
    /** Returns the distance of a row from the top of the visible part. */
    topOf: (seq: number) => shown.indexOf(seq) * 20 - top,
    show(seqs: number[]) {
      shown = seqs;
      for (const seq of seqs) {
        if (rows.has(seq)) continue;
        const row = document.createElement("li");
        Object.defineProperty(row, "clientHeight", { get: () => 20 });
        row.getBoundingClientRect = () => ({ top: shown.indexOf(seq) * 20 - top }) as DOMRect;
        rows.set(seq, row);
      }
      element.replaceChildren(...seqs.flatMap((seq) => rows.get(seq) ?? []));
    },
    scrollTo(value: number) {
      top = value;
      element.dispatchEvent(new Event("scroll"));
    },
  };
}
