// The client over Server-Sent Events and HTTP calls, where WebSockets are blocked.

import fc from "fast-check";
import { expect, test } from "vitest";

import { readEvents } from "../src/http_socket.ts";
import {
  chat,
  events,
  FIRST,
  inFakeWorld,
  SESSION,
  settle,
  subscribed,
  token,
  VOTING,
  voting,
  WELCOME,
} from "./fakes.ts";

test("the client tries HTTP if WebSockets do not open, and stays with HTTP for ten minutes", async () => {
  const { usher, world, session, gateway } = blocked();
  await until(world, () => session.status === "live");
  expect(world.sockets).toHaveLength(2);
  expect(usher.connection).toMatchObject({ status: "open", transport: "http" });
  gateway.say(events(chat(1), chat(2)), 2);
  gateway.end();
  await until(world, () => gateway.streams.length === 2 && session.status === "live");
  expect(world.sockets).toHaveLength(2);
  expect(gateway.streams[1]?.headers.get("last-event-id")).toBe("2");
  gateway.say(events(chat(3)), 3);
  await until(world, () => session.continuity.seq === 3);
  expect(session.continuity).toMatchObject({ received: 3, gaps: 0, duplicates: 0, resumes: 1, resets: 0 });
  // After ten minutes the network may have changed, so the client tries a WebSocket again.
  for (let count = 0; count < 60; count += 1) {
    await world.pass(10_000);
    gateway.comment();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(world.sockets).toHaveLength(2);
  gateway.end();
  await until(world, () => world.sockets.length === 3);
});

test("a stream resumes with its number and epoch, so a failover to another database causes a reset", async () => {
  let current = token("me", { n: 1 });
  const { world, usher, session, gateway } = blocked({ getToken: () => current });
  await until(world, () => session.status === "live");
  expect(gateway.streams[0]?.query).toBe("?history=50");
  gateway.say(events(chat(1), chat(2)), 2);
  await until(world, () => session.continuity.seq === 2);
  gateway.end();
  await until(world, () => gateway.streams.length === 2 && session.status === "live");
  expect(gateway.streams[1]?.query).toBe("?epoch=e1");
  // A stream that restarts with a new token also sends its epoch.
  current = token("me", { n: 2 });
  usher.renewToken();
  await until(world, () => gateway.streams.length === 3);
  expect([gateway.streams[2]?.query, gateway.streams[2]?.headers.get("last-event-id")]).toEqual(["?epoch=e1", "2"]);

  gateway.epoch = "another/one";
  gateway.end();
  await until(world, () => gateway.streams.length === 4 && session.continuity.resets === 1);
  gateway.say(events(chat(8)), 8);
  await until(world, () => session.continuity.seq === 8);
  expect(session.messages.map(({ seq }) => seq)).toEqual([8]);
  expect(session.continuity).toMatchObject({ epoch: "another/one", resets: 1, gaps: 0, duplicates: 0 });
  gateway.end();
  await until(world, () => gateway.streams.length === 5 && session.status === "live");
  expect(gateway.streams[4]?.query).toBe("?epoch=another%2Fone");
  expect(session.continuity).toMatchObject({ resets: 1, stale: 0 });
});

test("a first stream that restarts with a new token also sends its epoch", async () => {
  let current = token("me", { n: 1 });
  const { world, usher, session, gateway } = blocked({ getToken: () => current });
  await until(world, () => session.status === "live");
  gateway.say(events(chat(1)), 1);
  await until(world, () => session.continuity.seq === 1);
  [current, gateway.epoch] = [token("me", { n: 2 }), "another"];
  usher.renewToken();
  await until(world, () => gateway.streams.length === 2 && session.continuity.resets === 1);
  expect(gateway.streams.map(({ query }) => query)).toEqual(["?history=50", "?epoch=e1"]);
  expect(session.continuity).toMatchObject({ epoch: "another", gaps: 0, duplicates: 0 });
});

test("a session that the app closes and follows again gets only the frames of its new stream", async () => {
  const { world, usher, session, gateway } = blocked();
  await until(world, () => session.status === "live");
  usher.session("other");
  await until(world, () => gateway.streams.length === 2);
  session.close();
  await world.pass(3000);
  expect(gateway.streams[0]?.signal.aborted).toBe(true);
  const again = usher.session(SESSION);
  await until(world, () => again.status === "live");
  gateway.say(events(chat(1)), 1);
  await until(world, () => again.continuity.seq === 1);
  expect(again.continuity).toMatchObject({ received: 1, duplicates: 0, stale: 0 });
});

test("after an outage of the auth server the client signs in over HTTP and sends pending messages", async () => {
  let outage = true;
  const getToken = () => {
    if (outage) throw new Error("away");
    return token("me");
  };
  const { world, usher, session, gateway } = blocked({ getToken });
  await until(world, () => session.status === "live");
  expect(usher.connection).toMatchObject({ transport: "http", error: { code: "token_unavailable" } });
  gateway.answers.push(() => Response.json({ data: { seq: 1, message: "m1" } }));
  const sent = session.send("hello");
  await world.pass(1000);
  expect([gateway.calls.length, gateway.streams[0]?.headers.get("authorization")]).toEqual([0, null]);
  outage = false;
  expect((await Promise.all([sent, until(world, () => gateway.calls.length === 1)]))[0].seq).toBe(1);
  expect(gateway.streams.map(({ signal }) => signal.aborted)).toEqual([true, false]);
  expect(gateway.calls[0]?.headers.get("authorization")).toBe(`Bearer ${token("me")}`);
  expect(usher.connection.error).toBe(null);
});

test.each([
  [431, undefined, undefined, "token_too_large"],
  [401, "unauthorized", "issuer", "issuer_not_accepted"],
  [401, "unauthorized", undefined, "unauthorized"],
])("a token refused with HTTP %i (%s, %s) stops the connection", async (status, code, reason, name) => {
  const { world, usher, session, gateway } = blocked({ getToken: () => token("me") });
  gateway.refuse = () =>
    code ? Response.json({ error: { code, message: "no", reason } }, { status }) : new Response("", { status });
  await until(world, () => session.status === "stopped");
  await world.pass(600_000);
  expect(usher.connection).toMatchObject({ status: "stopped", error: { code: name } });
  expect(gateway.refused).toBe(1);
});

test("the client retries a busy session while the other sessions continue", async () => {
  const { world, usher, session, gateway } = blocked();
  await until(world, () => session.status === "live");
  gateway.refuse = () => refused(503, "busy", 500);
  const other = usher.session("other");
  await until(world, () => gateway.refused === 1);
  gateway.refuse = () => null;
  await until(world, () => other.status === "live");
  expect([usher.connection.failures, session.status, session.continuity.resumes]).toEqual([2, "live", 0]);
  gateway.answers.push(
    () => refused(503, "busy", 300),
    () => Response.json({ data: { seq: 1, message: "m1" } }),
  );
  const sent = session.send("hello");
  await until(world, () => gateway.calls.length === 2);
  expect((await sent).seq).toBe(1);
});

test("if a WebSocket has opened before, the client tries HTTP only after six failures", async () => {
  const { usher, world } = inFakeWorld();
  usher.session(SESSION);
  await settle();
  world.socket.say(WELCOME);
  world.socket.say(subscribed());
  world.socket.cut();
  for (let count = 0; count < 7; count += 1) {
    await world.pass((usher.connection.retryAt ?? world.time) - world.time);
    if (usher.connection.transport === "websocket") world.socket.cut();
  }
  expect(world.sockets).toHaveLength(1 + 6);
  expect(usher.connection.transport).toBe("http");
});

test("a message, a vote and a withdrawal are HTTP calls, and refusals keep their codes", async () => {
  const { world, session, gateway } = blocked({ getToken: () => token("me") });
  await until(world, () => session.status === "live");
  gateway.answers.push(() => Response.json({ data: { seq: 1, message: "m1" } }, { status: 201 }));
  const sent = session.send("hello");
  expect(await sent).toMatchObject({ seq: 1, id: "m1" });
  const [post] = gateway.calls;
  expect(post).toMatchObject({ method: "POST", path: `/v1/sessions/${SESSION}/messages`, body: { body: "hello" } });
  expect(post?.headers.get("idempotency-key")).toMatch(/^[0-9a-f-]{36}$/);
  expect(post?.headers.get("authorization")).toBe(`Bearer ${token("me")}`);

  gateway.answers.push(
    () => Response.json({ data: {} }),
    () => Response.json({ data: {} }),
  );
  await session.vote(VOTING, FIRST);
  await session.vote(VOTING, null);
  expect(gateway.calls.slice(1).map(({ method, body }) => [method, body])).toEqual([
    ["PUT", { movie: FIRST }],
    ["DELETE", null],
  ]);
  gateway.answers.push(() => refused(403, "slow_mode", 3000));
  await expect(session.send("again")).rejects.toMatchObject({ code: "slow_mode", retryAfterMs: 3000 });
});

test("the client sends a message again with the same key after a failed call", async () => {
  const { world, session, gateway } = blocked();
  await until(world, () => session.status === "live");
  gateway.answers.push(() => Promise.reject(new TypeError("failed to fetch")));
  gateway.answers.push(() => Response.json({ data: { seq: 1, message: "m1" } }));
  const sent = session.send("hello");
  await until(world, () => gateway.calls.length === 2);
  expect((await sent).seq).toBe(1);
  const [first, second] = gateway.calls.map(({ headers }) => headers.get("idempotency-key"));
  expect(first).toBe(second);
});

test("the client obeys Retry-After, and a session that it may not see stops alone", async () => {
  const full = blocked();
  full.gateway.refuse = () => new Response("", { status: 503, headers: { "retry-after": "7" } });
  await until(full.world, () => full.gateway.refused === 1);
  await settle();
  expect((full.usher.connection.retryAt ?? 0) - full.world.time).toBe(7000);

  const hidden = blocked();
  hidden.gateway.refuse = () => refused(404, "not_found");
  await until(hidden.world, () => hidden.session.status === "stopped");
  expect(hidden.session.state.error?.code).toBe("not_found");
  expect(hidden.usher.connection.status).toBe("open");
});

test("the client replaces an expiring token on its streams, and stops if the first token is refused", async () => {
  let current = token("me", { n: 1 });
  const { usher, world, session, gateway } = blocked({ getToken: () => current });
  await until(world, () => session.status === "live");
  gateway.refuse = (headers) =>
    headers.get("authorization") === `Bearer ${token("me", { n: 1 })}` ? refused(401, "unauthorized") : null;
  current = token("me", { n: 2 });
  gateway.say({ type: "token_expiring" });
  await until(world, () => gateway.streams.length === 2);
  expect(gateway.streams[1]?.headers.get("authorization")).toBe(`Bearer ${token("me", { n: 2 })}`);
  expect([usher.connection.failures, gateway.refused]).toEqual([2, 0]);

  const liar = blocked({ getToken: () => "not.a.token" });
  liar.gateway.refuse = () => refused(401, "unauthorized");
  await until(liar.world, () => liar.session.status === "stopped");
  expect(liar.session.state.error?.code).toBe("unauthorized");
});

test("closing a session or the client aborts the streams", async () => {
  const { usher, world, session, gateway } = blocked();
  const other = usher.session("other");
  await until(world, () => session.status === "live" && gateway.streams.length === 2);
  other.close();
  await world.pass(4000);
  expect(gateway.streams.map(({ signal }) => signal.aborted)).toEqual([false, true]);
  usher.close();
  expect(gateway.streams[0]?.signal.aborted).toBe(true);
});

test("the parser gives the same events wherever the stream is cut into chunks", async () => {
  const text =
    ': hello\n\nid: 7\ndata: {"a":"ü🍿"}\n\ndata: one\r\ndata: two\r\n\r\nevent: x\nid: x\ndata:three\n\ndata: unfinished';
  const bytes = new TextEncoder().encode(text);
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(fc.nat(bytes.length), { maxLength: 12 }), async (cuts) => {
      const ends = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          for (const [index, end] of ends.entries()) controller.enqueue(bytes.slice(ends[index - 1] ?? 0, end));
          controller.close();
        },
      });
      const read = [];
      for await (const event of readEvents(body, () => {})) read.push(event);
      expect(read).toEqual([
        { data: '{"a":"ü🍿"}', last: 7 },
        { data: "one\ntwo", last: 7 },
        { data: "three", last: 7 },
      ]);
    }),
  );
});

/** Creates a client whose WebSockets never open, and a fake gateway that answers HTTP. */
function blocked(options: Parameters<typeof inFakeWorld>[0] = {}) {
  const { world, usher } = inFakeWorld(options);
  const open = world.openSocket;
  world.openSocket = (url) => {
    const socket = open(url);
    void settle().then(() => socket.cut());
    return socket;
  };
  const gateway = new FakeGateway();
  world.respond = (url, init) => gateway.respond(url, init);
  return { world, usher, session: usher.session(SESSION), gateway };
}

class FakeGateway {
  epoch = "e1";
  readonly streams: {
    query: string;
    headers: Headers;
    signal: AbortSignal;
    controller: ReadableStreamDefaultController;
  }[] = [];
  readonly calls: { method: string; path: string; headers: Headers; body: unknown }[] = [];
  readonly answers: (() => Response | Promise<Response>)[] = [];
  refuse: (headers: Headers) => Response | null = () => null;
  refused = 0;

  respond(url: string, init: RequestInit): Response | Promise<Response> {
    const headers = new Headers(init.headers);
    const { pathname: path, search: query, searchParams } = new URL(url);
    if (!path.endsWith("/stream")) {
      this.calls.push({
        method: init.method ?? "GET",
        path,
        headers,
        body: init.body ? JSON.parse(String(init.body)) : null,
      });
      return this.answers.shift()?.() ?? new Response("", { status: 500 });
    }
    const refusal = this.refuse(headers);
    if (refusal) {
      this.refused += 1;
      return refusal;
    }
    const body = new ReadableStream({
      start: (controller) => {
        this.streams.push({ query, headers, signal: init.signal as AbortSignal, controller });
        init.signal?.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
    });
    const { epoch } = this;
    const last = headers.get("last-event-id");
    const isOther = (searchParams.get("epoch") ?? epoch) !== epoch;
    const seq = isOther ? 7 : Number(last ?? 0);
    const session = path.split("/")[3] ?? "";
    this.say(
      { ...subscribed({ epoch, seq, recovered: last !== null && !isOther, votings: [voting()] }), session },
      seq,
    );
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  }

  say(frame: object, id?: number) {
    const text = `${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(frame)}\n\n`;
    this.streams.at(-1)?.controller.enqueue(new TextEncoder().encode(text));
  }

  comment() {
    this.streams.at(-1)?.controller.enqueue(new TextEncoder().encode(":\n\n"));
  }

  end() {
    this.streams.at(-1)?.controller.close();
  }
}

function refused(status: number, code: string, retry_after_ms?: number): Response {
  return Response.json({ error: { code, message: code, retry_after_ms } }, { status });
}

/** Advances the fake world and lets real streams run until the condition holds. */
async function until(world: { pass: (ms: number) => Promise<void> }, holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 200; turn += 1) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
    await world.pass(50);
  }
  throw new Error(`still false after 200 turns: ${holds}`);
}
