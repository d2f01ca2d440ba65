// @vitest-environment happy-dom
// The world as it is: what a page and its network tell, and what is missing where a page is old or plain.

import { afterEach, expect, test, vi } from "vitest";

import { realWorld, type Signal } from "../src/world.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test("the network and the page are listened to until nobody wants to know", () => {
  const heard: Signal[] = [];
  const stop = realWorld().watch((signal) => heard.push(signal));
  const happens = (target: EventTarget, event: string) => {
    target.dispatchEvent(new Event(event));
    return heard.splice(0);
  };
  expect(happens(globalThis, "offline")).toEqual(["offline"]);
  expect(happens(globalThis, "online")).toEqual(["online"]);
  // Out of the back-forward cache, unfrozen, and in sight again.
  expect(happens(globalThis, "pageshow")).toEqual(["wake"]);
  expect(happens(document, "resume")).toEqual(["wake"]);
  expect(happens(document, "visibilitychange")).toEqual(["wake"]);
  vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  expect(happens(document, "visibilitychange")).toEqual([]);
  expect(happens(globalThis, "online")).toEqual(["online"]);
  stop();
  expect(happens(globalThis, "online")).toEqual([]);
});

test("where there is no page, as in Node and React Native, nothing is listened to and nothing breaks", () => {
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("addEventListener", undefined);
  const stop = realWorld().watch(() => {});
  expect(stop).not.toThrow();
});

test("without TLS, where a browser makes no uuids, they are made by chance", () => {
  vi.stubGlobal("crypto", {});
  const made = new Set(Array.from({ length: 1000 }, realWorld().uuid));
  expect(made.size).toBe(1000);
  for (const uuid of made)
    expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("a socket speaks the protocol by name, with the class that was passed; where there is none it says so", () => {
  const opened: unknown[] = [];
  class Own {
    constructor(...words: unknown[]) {
      opened.push(words);
    }
  }
  realWorld({ WebSocket: Own as never }).openSocket("wss://gateway.example/v1/socket");
  expect(opened).toEqual([["wss://gateway.example/v1/socket", ["usher.v1"]]]);
  vi.stubGlobal("WebSocket", undefined);
  expect(() => realWorld().openSocket("wss://gateway.example")).toThrow(
    expect.objectContaining({ name: "StoppedError", code: "no_websocket" }),
  );
});
