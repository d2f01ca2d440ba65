// The client with the real supabase-js: page load, token refresh, sign-out, and outages of the auth server.

import { createClient } from "@supabase/supabase-js";
import { expect, test, vi } from "vitest";
import { WebSocket } from "ws";

import { supabaseTokens } from "../src/index.ts";
import type { SubscribedFrame } from "../src/wire.ts";
import { type FakeWorld, inFakeWorld, SESSION, settle, subscribed, token, WELCOME } from "./fakes.ts";

const USER = "aaaaaaaa-0000-4000-8000-000000000001";
const HOUR = 3600;

test("a page load with a stored session opens one socket and signs in once", async () => {
  const { options, events } = project({ expiresIn: HOUR });
  const { world, usher } = inFakeWorld(options);
  usher.session(SESSION);
  await vi.waitUntil(() => events.includes("INITIAL_SESSION") && world.sockets.length > 0);
  await pause(20);
  await admit(world);
  await pause(20);
  expect(events).toContain("INITIAL_SESSION");
  expect(world.sockets).toHaveLength(1);
  expect(world.socket.of("auth")).toHaveLength(1);
  expect([world.socket.closed, usher.connection.status]).toEqual([null, "open"]);
});

test("a page load without a stored session opens one socket", async () => {
  const { options, events } = project({ expiresIn: null });
  const { world, usher } = inFakeWorld(options);
  usher.session(SESSION);
  await vi.waitUntil(() => events.includes("INITIAL_SESSION") && world.sockets.length > 0);
  await pause(20);
  world.socket.say(WELCOME);
  await vi.waitUntil(() => world.socket.of("subscribe").length > 0);
  world.socket.say(subscribed());
  await pause(20);
  expect([world.sockets.length, world.socket.closed, usher.connection.status]).toEqual([1, null, "open"]);
});

test("the client sends a refreshed token on the open socket", async () => {
  const { supabase, options } = project({ expiresIn: HOUR });
  const { world, usher } = await opened(options);
  await supabase.auth.refreshSession();
  await vi.waitUntil(() => world.socket.of("auth").length === 2);
  expect(world.socket.last("auth").token).toBe(token(USER, { n: 1 }));
  expect([world.sockets.length, usher.connection.error]).toEqual([1, null]);
});

test("4001 makes supabase-js refresh a token that it considers valid", async () => {
  const { options, calls } = project({ expiresIn: HOUR });
  const { world, session } = await opened(options);
  world.socket.cut(4001);
  await vi.waitUntil(() => world.sockets.length === 2);
  expect(calls).toEqual(["refresh_token"]);
  await admit(world, { recovered: true });
  await pause(20);
  expect(world.socket.last("auth").token).toBe(token(USER, { n: 1 }));
  expect([session.status, world.sockets.length]).toEqual(["live", 2]);
});

test("an outage at page load with an expired session does not count as a sign-out", async () => {
  const it = project({ expiresIn: -HOUR });
  it.outage.is = true;
  const { world, usher } = inFakeWorld(it.options);
  const session = usher.session(SESSION);
  // supabase-js tries for 30 s. The client waits only 8 s and then reads without a token.
  await settle();
  await world.pass(8000);
  expect(usher.connection.error?.code).toBe("token_unavailable");
  world.socket.say(WELCOME);
  world.socket.say(subscribed({ can: { send: false, vote: false, moderate: false } }));
  expect([session.status, session.state.sub]).toEqual(["live", undefined]);
  it.outage.is = false;
  await vi.waitUntil(
    async () => {
      await world.passAlive(1000);
      return world.socket.of("auth").length > 0;
    },
    { timeout: 30_000, interval: 100 },
  );
  expect(world.socket.last("auth").token).toBe(token(USER, { n: 1 }));
  world.socket.say({ type: "authenticated", id: 0, sub: USER, role: "authenticated" });
  expect([usher.connection.error, session.state.sub, world.sockets.length]).toEqual([null, USER, 1]);
});

test("after a sign-out the client reconnects without a token", async () => {
  const { supabase, options } = project({ expiresIn: HOUR });
  const { world, usher, session } = await opened(options);
  await supabase.auth.signOut({ scope: "local" });
  await vi.waitUntil(() => world.sockets.length === 2);
  world.socket.say(WELCOME);
  await vi.waitUntil(() => world.socket.of("subscribe").length > 0);
  world.socket.say(subscribed({ recovered: true }));
  expect(world.socket.of("auth")).toHaveLength(0);
  expect([session.state.sub, usher.connection.error]).toEqual([null, null]);
});

/** Plays the gateway. Waits for the `auth` frame, because supabase-js answers late. */
async function admit(world: FakeWorld, more: Partial<SubscribedFrame> = {}) {
  world.socket.say(WELCOME);
  await vi.waitUntil(() => world.socket.of("auth").length > 0);
  world.socket.say({ type: "authenticated", id: 0, sub: USER, role: "authenticated" });
  world.socket.say(subscribed(more));
}

async function opened(options: ReturnType<typeof supabaseTokens>) {
  const { world, usher } = inFakeWorld(options);
  const session = usher.session(SESSION);
  await vi.waitUntil(() => world.sockets.length > 0);
  await admit(world);
  await pause(20);
  expect(world.sockets).toHaveLength(1);
  return { world, usher, session };
}

/** Returns a supabase-js client with a stored session and a fake auth server that can fail. */
function project({ expiresIn }: { expiresIn: number | null }) {
  const outage = { is: false };
  const calls: string[] = [];
  let refreshes = 0;
  const user = { id: USER, aud: "authenticated", role: "authenticated", email: "me@example.org", user_metadata: {} };
  const sessionOf = (n: number, seconds: number) => ({
    access_token: token(USER, { n }),
    token_type: "bearer",
    expires_in: seconds,
    expires_at: Math.floor(Date.now() / 1000) + seconds,
    refresh_token: `refresh ${n}`,
    user,
  });
  const stored = new Map<string, string>();
  if (expiresIn !== null) stored.set("session", JSON.stringify(sessionOf(0, expiresIn)));
  const supabase = createClient("https://project.example", "sb_publishable_key", {
    auth: {
      autoRefreshToken: false,
      storageKey: "session",
      storage: {
        getItem: (key: string) => stored.get(key) ?? null,
        setItem: (key: string, value: string) => void stored.set(key, value),
        removeItem: (key: string) => void stored.delete(key),
      },
    },
    // Node 20 has no WebSocket class. This test opens no Realtime connection.
    realtime: { transport: WebSocket as never },
    global: {
      fetch: async (url) => {
        if (outage.is) throw new TypeError("fetch failed");
        const { pathname, searchParams } = new URL(String(url));
        calls.push(searchParams.get("grant_type") ?? pathname);
        refreshes += 1;
        return Response.json(sessionOf(refreshes, HOUR));
      },
    },
  });
  const events: string[] = [];
  supabase.auth.onAuthStateChange((event) => void events.push(event));
  return { supabase, options: supabaseTokens(supabase), events, calls, outage };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
