// @vitest-environment happy-dom
// The real environment: signals of the page and the network, and missing browser features.

import { afterEach, expect, test, vi } from "vitest";

import { realWorld, type Signal } from "../src/world.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test("watch reports network and page events until it is stopped", () => {
  const heard: Signal[] = [];
  const stop = realWorld().watch((signal) => heard.push(signal));
  const happens = (target: EventTarget, event: string) => {
    target.dispatchEvent(new Event(event));
    return heard.splice(0);
  };
  expect(happens(globalThis, "offline")).toEqual(["offline"]);
  expect(happens(globalThis, "online")).toEqual(["online"]);
  // The page returns from the back-forward cache, is unfrozen, and becomes visible.
  expect(happens(globalThis, "pageshow")).toEqual(["wake"]);
  expect(happens(document, "resume")).toEqual(["wake"]);
  expect(happens(document, "visibilitychange")).toEqual(["wake"]);
  vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  expect(happens(document, "visibilitychange")).toEqual([]);
  expect(happens(globalThis, "online")).toEqual(["online"]);
  stop();
  expect(happens(globalThis, "online")).toEqual([]);
});

test("watch does nothing without a page, as in Node and React Native", () => {
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("addEventListener", undefined);
  const stop = realWorld().watch(() => {});
  expect(stop).not.toThrow();
});

test("uuid works without crypto.randomUUID, as on pages without TLS", () => {
  vi.stubGlobal("crypto", {});
  const made = new Set(Array.from({ length: 1000 }, realWorld().uuid));
  expect(made.size).toBe(1000);
  for (const uuid of made)
    expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("openSocket uses the given class and the usher.v1 subprotocol, and throws without a class", () => {
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
