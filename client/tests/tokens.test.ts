// Access tokens that are unavailable, expired, too large or refused: what the viewer keeps, and when the client tries
// again.

import { expect, test } from "vitest";

import { StoppedError, type SupabaseLike, supabaseTokens } from "../src/index.ts";
import {
  admit,
  chat,
  events,
  FIRST,
  following,
  inFakeWorld,
  SESSION,
  settle,
  subscribed,
  token,
  VOTING,
  voting,
  WELCOME,
} from "./fakes.ts";

const CANNOT = { send: false, vote: false, moderate: false };
/** The state that the gateway sends to a viewer without a token. */
const AS_NOBODY = { can: CANNOT, votings: [voting({ mine: null })] };
const OUTAGE = new Error("fetch failed");

/** A fake auth server that can fail, behind the supabase-js methods that the client uses. */
class FakeAuth implements Pick<SupabaseLike["auth"], "getSession" | "refreshSession" | "onAuthStateChange"> {
  current: string | null = "t1";
  expires_at = Number.MAX_SAFE_INTEGER;
  fresh = "t2";
  outage: "none" | "error" | "hang" = "none";
  readonly asked: ("getSession" | "refreshSession")[] = [];
  readonly listeners = new Set<() => void>();

  async getSession() {
    this.asked.push("getSession");
    return this.#answer();
  }

  async refreshSession() {
    this.asked.push("refreshSession");
    if (this.outage === "none" && this.current !== null) this.current = this.fresh;
    return this.#answer();
  }

  onAuthStateChange(listener: () => void) {
    this.listeners.add(listener);
    return { data: { subscription: { unsubscribe: () => this.listeners.delete(listener) } } };
  }

  async #answer() {
    if (this.outage === "hang") await new Promise(() => {});
    if (this.outage === "error") return { data: { session: null }, error: OUTAGE };
    const session = this.current === null ? null : { access_token: this.current, expires_at: this.expires_at };
    return { data: { session }, error: null };
  }
}

function signedIn() {
  const auth = new FakeAuth();
  return { auth, options: supabaseTokens({ auth }) };
}

test.each([
  ["error", 0],
  ["hang", 8000],
] as const)(
  "during an outage of the auth server (%s) the client reads public sessions and keeps messages pending",
  async (outage, after) => {
    const { auth, options } = signedIn();
    auth.outage = outage;
    const { world, usher } = inFakeWorld(options);
    const session = usher.session(SESSION);
    const sent = session.send("written during the outage");
    await world.pass(after);
    expect(usher.connection.error).toMatchObject({ name: "TokenError", code: "token_unavailable" });
    world.socket.say(WELCOME);
    expect(world.socket.of("auth")).toHaveLength(0);
    world.socket.say(subscribed({ seq: 0, head: 1, ...AS_NOBODY }));
    world.socket.say(events(chat(1)));
    expect([session.status, session.messages.length]).toEqual(["live", 1]);
    expect(usher.connection).toMatchObject({ status: "open", error: { code: "token_unavailable" } });
    // The message waits for the viewer's token: the client neither sends nor fails it.
    await world.passAlive(60_000);
    expect(session.pending).toMatchObject([{ body: "written during the outage", status: "sending" }]);
    expect(world.socket.of("send")).toHaveLength(0);
    expect(auth.asked.length).toBeLessThan(12);

    auth.outage = "none";
    await world.passAlive(40_000);
    expect(world.socket.last("auth").token).toBe("t1");
    world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
    expect(usher.connection).toMatchObject({ status: "open", error: null });
    world.socket.say(subscribed({ recovered: true, seq: 1 }));
    const { id, body } = world.socket.last("send");
    expect(body).toBe("written during the outage");
    world.socket.say({ type: "ack", id, seq: 2, message: "m2" });
    expect(await sent).toMatchObject({ seq: 2 });
    expect(world.sockets).toHaveLength(1);
  },
);

test("an outage of the auth server keeps the viewer's identity, permissions, votes and messages", async () => {
  const { auth, options } = signedIn();
  const { world, usher, session } = await following(options, { votings: [voting({ mine: FIRST })] });
  expect(session.state.sub).toBe("me");
  const sent = session.send("on its way");
  auth.outage = "error";
  world.socket.cut(4001);
  await settle();
  expect(auth.asked.at(-1)).toBe("getSession");
  world.socket.say(WELCOME);
  world.socket.say(subscribed({ recovered: true, ...AS_NOBODY }));
  world.socket.say({ type: "access", session: SESSION, can: CANNOT });
  expect(usher.connection).toMatchObject({ status: "open", error: { code: "token_unavailable", cause: OUTAGE } });
  expect(session.status).toBe("live");
  expect(session.state.sub).toBe("me");
  expect(session.can).toMatchObject({ send: true, vote: true });
  expect(session.tally()?.mine).toBe(FIRST);
  expect(session.pending).toMatchObject([{ body: "on its way", status: "sending" }]);
  expect([world.socket.of("auth").length, world.socket.of("send").length]).toEqual([0, 0]);

  auth.outage = "none";
  await world.pass(2000);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  world.socket.say(subscribed({ recovered: true, votings: [voting({ mine: FIRST })] }));
  world.socket.say({ type: "ack", id: world.socket.last("send").id, seq: 1, message: "m1" });
  expect((await sent).seq).toBe(1);
});

test("a message or vote that waits for a token fails with token_unavailable after five minutes", async () => {
  const { auth, options } = signedIn();
  auth.outage = "error";
  const { world, usher } = inFakeWorld(options);
  const session = usher.session(SESSION);
  const outcomes = [session.send("hello"), session.vote(VOTING, FIRST)].map((promise) =>
    promise.catch((error: { code: string }) => error.code),
  );
  await settle();
  world.socket.say(WELCOME);
  world.socket.say(subscribed(AS_NOBODY));
  await world.passAlive(4 * 60_000);
  expect(session.pending).toMatchObject([{ status: "sending" }]);
  await world.passAlive(2 * 60_000);
  expect(await Promise.all(outcomes)).toEqual(["token_unavailable", "token_unavailable"]);
  expect(session.pending).toMatchObject([{ status: "failed", error: { code: "token_unavailable" } }]);
});

test("a private session waits for the viewer's token during an outage and does not stop", async () => {
  const { auth, options } = signedIn();
  auth.outage = "error";
  const { world, usher } = inFakeWorld(options);
  const session = usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: world.socket.last("subscribe").id, code: "not_found", message: "no" });
  expect(session.status).toBe("waiting");
  auth.outage = "none";
  await world.pass(2000);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  world.socket.say(subscribed());
  expect([session.status, usher.connection.error]).toEqual(["live", null]);
});

test("during an outage the client also waits after withdrawn access (4503) and a missing token (4501)", async () => {
  const { auth, options } = signedIn();
  const { world, usher, session } = await following(options);
  auth.outage = "error";
  world.socket.cut(4001);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say(subscribed({ recovered: true, ...AS_NOBODY }));
  world.socket.say({ type: "unsubscribed", session: SESSION, reason: "forbidden" });
  world.socket.cut(4503);
  expect([session.status, usher.connection.status]).toEqual(["waiting", "waiting"]);
  await world.pass(1000);
  world.socket.say(WELCOME);
  world.socket.cut(4501);
  expect(usher.connection).toMatchObject({ status: "waiting", error: { code: "token_unavailable" } });
  auth.outage = "none";
  await world.pass(20_000);
  await admit(world, { recovered: true });
  expect([session.status, usher.connection.error]).toEqual(["live", null]);
});

test("after 4001 the client asks supabase-js for a refresh at most every 20 s", async () => {
  const { auth, options } = signedIn();
  const { world, usher, session } = await following(options);
  world.socket.cut(4001);
  await settle();
  expect(auth.asked).toEqual(["getSession", "getSession", "refreshSession"]);
  await admit(world, { recovered: true });
  expect(world.socket.last("auth").token).toBe("t2");
  expect([session.status, session.continuity.resumes]).toEqual(["live", 1]);

  // supabase-js returns the same token again, and reports a token change after each refresh.
  world.socket.cut(4001);
  await settle();
  const before = auth.asked.length;
  for (let second = 0; second < 60; second += 1) {
    usher.renewToken();
    await world.passAlive(1000);
  }
  const refreshes = auth.asked.slice(before).filter((name) => name === "refreshSession");
  expect(refreshes.length).toBeLessThanOrEqual(3);
  expect(usher.connection.error?.code).toBe("token_expired");
});

test("supabaseTokens refreshes an expired session first, and reports token_expired if that fails", async () => {
  const { auth, options } = signedIn();
  auth.expires_at = 1;
  const { world, usher } = inFakeWorld(options);
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  expect(world.socket.last("auth").token).toBe("t2");

  const stale = signedIn();
  stale.auth.expires_at = 1;
  stale.auth.refreshSession = async () => ({ data: { session: null }, error: OUTAGE }) as never;
  const other = inFakeWorld(stale.options);
  const session = other.usher.session(SESSION);
  await other.world.pass(500);
  expect(other.usher.connection.error).toMatchObject({ code: "token_expired", cause: OUTAGE });
  other.world.socket.say(WELCOME);
  other.world.socket.say(subscribed());
  expect([session.status, other.world.socket.of("auth").length]).toEqual(["live", 0]);
});

test("while the token is expired the client shows token_expired and reads public sessions", async () => {
  let current = token("me", { exp: 1 });
  const { world, usher } = inFakeWorld({ getToken: () => current });
  const session = usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: 0, code: "unauthorized", message: "no", reason: "expired" });
  await world.pass(250);
  expect(usher.connection).toMatchObject({ status: "waiting", error: { code: "token_expired" } });
  await world.pass(2000);
  world.socket.say(WELCOME);
  world.socket.say(subscribed());
  expect([session.status, usher.connection.status, usher.connection.error?.code]).toEqual([
    "live",
    "open",
    "token_expired",
  ]);
  current = token("me");
  usher.renewToken();
  await settle();
  expect(world.socket.last("auth").token).toBe(current);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  expect(usher.connection.error).toBe(null);
});

test("a sign-out during an outage fails the pending messages with identity_changed", async () => {
  const { auth, options } = signedIn();
  const { world, usher, session } = await following(options);
  const sent = session.send("mine");
  auth.outage = "error";
  world.socket.cut(4001);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say(subscribed({ recovered: true, ...AS_NOBODY }));
  [auth.outage, auth.current] = ["none", null];
  await world.pass(2000);
  await admit(world, { recovered: true, ...AS_NOBODY });
  await expect(sent).rejects.toMatchObject({ code: "identity_changed" });
  expect([session.state.sub, session.can.send, usher.connection.error]).toEqual([null, false, null]);
});

test("an error from getToken is visible in the connection state, and the socket stays open", async () => {
  let failure: Error | null = new Error("no cookie");
  const getToken = () => {
    if (failure) throw failure;
    return "token";
  };
  const { world, usher } = inFakeWorld({ getToken });
  const seen: (string | undefined)[] = [];
  usher.onConnection(({ error }) => seen.push(error?.code));
  usher.session(SESSION);
  await settle();
  expect(usher.connection.error).toMatchObject({ code: "token_unavailable", cause: { message: "no cookie" } });
  expect(seen).toContain("token_unavailable");
  failure = null;
  world.socket.say(WELCOME);
  await world.pass(2000);
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  world.socket.say(subscribed());

  failure = new Error("no cookie again");
  world.socket.say({ type: "token_expiring" });
  await settle();
  expect(usher.connection).toMatchObject({ status: "open", error: { cause: { message: "no cookie again" } } });
  failure = null;
  await world.pass(10_000);
  expect([usher.connection.error, world.sockets.length]).toEqual([null, 1]);
});

test("hanging calls of getToken do not pile up, and the client uses a late answer", async () => {
  const answers: ((token: string) => void)[] = [];
  const { world, usher } = inFakeWorld({ getToken: () => new Promise((resolve) => answers.push(resolve)) });
  usher.session(SESSION);
  await world.pass(8000);
  world.socket.say(WELCOME);
  world.socket.say(subscribed());
  await world.passAlive(20_000);
  expect(answers).toHaveLength(1);
  answers[0]?.("late");
  await world.pass(0);
  expect(world.socket.last("auth").token).toBe("late");
});

test("a sign-in during the connect opens no second socket, and the client sends the newest token", async () => {
  const { auth, options } = signedIn();
  const { world, usher } = inFakeWorld(options);
  usher.session(SESSION);
  // supabase-js also calls its listeners at each page load.
  for (const listener of auth.listeners) listener();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await settle();
  expect(world.sockets).toHaveLength(1);
  usher.renewToken();
  auth.current = "newer";
  world.socket.say(WELCOME);
  await settle();
  expect(world.socket.of("auth").map((frame) => frame.token)).toEqual(["newer"]);
  // The next change happens before the answer.
  auth.current = "newest";
  usher.renewToken();
  world.socket.say({ type: "authenticated", id: 0, sub: "me", role: "authenticated" });
  world.socket.say(subscribed());
  await settle();
  expect(world.socket.of("auth").map((frame) => frame.token)).toEqual(["newer", "newest"]);
  expect(world.sockets).toHaveLength(1);
});

test.each([
  ["by its size", { max: 1000, answer: null }],
  ["by the gateway", { max: 1_000_000, answer: { code: "too_large", message: "token must have at most 32768 bytes" } }],
  ["by a gateway of before", { max: 1_000_000, answer: { code: "bad_request", message: "token must be a string" } }],
])("a token that is too large (%s) stops the connection until the app has another one", async (_, { max, answer }) => {
  let current = "x".repeat(40_000);
  const { world, usher } = inFakeWorld({ getToken: () => current });
  const session = usher.session(SESSION);
  await settle();
  world.socket.say({ ...WELCOME, max_frame_bytes: max });
  if (answer) world.socket.say({ type: "error", id: 0, ...answer });
  await world.pass(600_000);
  expect(usher.connection).toMatchObject({
    status: "stopped",
    error: { name: "StoppedError", code: "token_too_large" },
  });
  expect([world.sockets.length, session.state.error?.code]).toEqual([1, "token_too_large"]);
  expect(world.socket.of("auth")).toHaveLength(answer ? 1 : 0);
  usher.renewToken();
  await world.pass(60_000);
  expect(world.sockets).toHaveLength(1);
  current = "small";
  usher.renewToken();
  await admit(world);
  expect([usher.connection.status, session.status]).toEqual(["open", "live"]);
});

test("a new token that is too large does not end an open socket before the old token expires", async () => {
  let current = "small";
  const { world, usher } = await following({ getToken: () => current });
  world.socket.say({ ...WELCOME, max_frame_bytes: 1000 });
  current = "x".repeat(40_000);
  usher.renewToken();
  await world.pass(10_000);
  expect([usher.connection.status, world.sockets.length]).toEqual(["open", 1]);
  world.socket.cut(4001);
  await world.pass(600_000);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: "token_too_large" } });
  expect(world.sockets).toHaveLength(1);
});

test("a message that is too large for a frame rejects with too_large, and the socket stays open", async () => {
  const { world, usher, session } = await following();
  world.socket.say({ ...WELCOME, max_frame_bytes: 32_768 });
  world.socket.say(subscribed({ recovered: true }));
  await expect(session.send("🍿".repeat(10_000))).rejects.toMatchObject({ name: "RefusedError", code: "too_large" });
  expect([world.socket.of("send").length, usher.connection.status]).toEqual([0, "open"]);
});

test.each([
  [{ reason: "issuer" }, "issuer_not_accepted"],
  [{ reason: "too_large" }, "token_too_large"],
  [{ code: "too_large" }, "token_too_large"],
  [{ reason: "claim" }, "unauthorized"],
  [{ reason: "what a newer gateway knows" }, "unauthorized"],
  [{}, "unauthorized"],
])("the gateway's reason decides the error code of a refused token, not its message: %o", async (said, code) => {
  // Each message belongs to another reason.
  for (const message of ["token has expired", "claim iss is wrong", "token is longer than 1 bytes", "geht nicht"]) {
    const { world, usher } = inFakeWorld({ getToken: () => token("me") });
    usher.session(SESSION);
    await settle();
    world.socket.say(WELCOME);
    world.socket.say({ type: "error", id: 0, code: "unauthorized", message, ...said });
    await world.pass(60_000);
    expect(usher.connection).toMatchObject({ status: "stopped", error: { code, message } });
  }
});

test("the reason decides whether a token has expired; without one the device clock does", async () => {
  for (const [exp, reason, code] of [
    [4_000_000_000, "expired", "token_expired"],
    [1, "signature", "unauthorized"],
    [1, undefined, "token_expired"],
  ] as const) {
    const { world, usher } = inFakeWorld({ getToken: () => token("me", { exp }) });
    usher.session(SESSION);
    await settle();
    world.socket.say(WELCOME);
    world.socket.say({ type: "error", id: 0, code: "unauthorized", message: "no", reason });
    await world.pass(250);
    expect([reason, usher.connection.error?.code]).toEqual([reason, code]);
  }
});

test("a refused issuer gives issuer_not_accepted with the gateway's message", async () => {
  const { world, usher } = inFakeWorld({ getToken: () => token("me") });
  const session = usher.session(SESSION);
  const said = { code: "unauthorized", message: "claim iss is wrong", reason: "issuer" };
  await settle();
  world.socket.say(WELCOME);
  world.socket.say({ type: "error", id: 0, ...said });
  await world.pass(60_000);
  expect(usher.connection.error).toMatchObject({ code: "issuer_not_accepted", message: "claim iss is wrong" });
  expect(usher.connection.error).toBeInstanceOf(StoppedError);
  expect([session.state.error?.code, world.sockets.length]).toEqual(["issuer_not_accepted", 1]);
});
