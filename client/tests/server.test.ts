// Rendering on a server: nothing connects, and the HTML equals the first render in the browser.

import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import {
  UsherProvider,
  useChat,
  useConnection,
  useSession,
  useTally,
  useViewers,
  useVote,
} from "../src/react/index.ts";
import { inFakeWorld, SESSION } from "./fakes.ts";

// On a server, React reports wrong hooks through console.error.
beforeEach(() => void vi.spyOn(console, "error"));
afterEach(() => expect(console.error).not.toHaveBeenCalled());

function Page() {
  const { status } = useSession(SESSION);
  const { messages, pending, hasOlder } = useChat(SESSION);
  const { mine, canVote } = useVote(SESSION);
  const shown = [
    status,
    messages.length,
    pending.length,
    hasOlder,
    mine,
    canVote,
    useTally(SESSION),
    useViewers(SESSION),
    useConnection().status,
  ];
  return createElement("p", null, shown.join(" "));
}

test("a page renders without a connection, a timer or a listener", () => {
  const { world, usher } = inFakeWorld();
  const html = renderToString(createElement(UsherProvider, { client: usher }, createElement(Page)));
  expect(html).toBe("<p>connecting 0 0 false  false   idle</p>");
  expect([world.sockets.length, world.timers, world.watchers.size]).toEqual([0, 0, 0]);
});

test("a provider that creates its own client renders on a server", () => {
  const props = { url: "https://gateway.example" };
  expect(renderToString(createElement(UsherProvider, props, createElement(Page)))).toContain("connecting");
});
