// Tests the Edge Function under Deno, with a real database and a real gateway.
//
// PostgREST and the auth server are not available here. A small server answers the function's two calls in their place:
// it runs the SQL function as service_role, and returns the user of a token.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { jwtVerify, SignJWT } from "jose";
import pg from "pg";

import { answer, type Settings } from "../../deploy/supabase/functions/overlay-token/overlay_token.ts";

const SERVICE_KEY = "the service key";

interface Dev {
  url: string;
  socket: string;
  database_url: string;
  jwt_secret: string;
  session: string;
  users: { id: string; username: string; role: string; token: string }[];
}

const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = Deno.env.get("USHER_BIN") ??
  resolve(root, Deno.env.get("CARGO_TARGET_DIR") ?? "target", "debug/usher");
const process = new Deno.Command(binary, {
  args: ["dev", "--json", "--listen", "127.0.0.1:0"],
  stdout: "piped",
  stderr: "null",
}).spawn();
const dev: Dev = JSON.parse(await firstLine(process.stdout));
const secret = new TextEncoder().encode(dev.jwt_secret);
const database = new pg.Pool({ connectionString: dev.database_url, max: 2 });
const platform = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, asThePlatform);
const settings: Settings = {
  supabaseUrl: `http://127.0.0.1:${platform.addr.port}`,
  serviceKey: SERVICE_KEY,
  jwtSecret: dev.jwt_secret,
  allowedOrigin: "https://app.example",
};
const streamer = dev.users.find((user) => user.role === "streamer")!;
const viewer = dev.users.find((user) => user.role === "viewer")!;

Deno.test("an overlay token can watch a private session, cannot write, and ends when it is revoked", async () => {
  const session = await privateSession();
  const response = await ask(streamer.token, { session, label: "main screen", days: 30 });
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("access-control-allow-origin"), "https://app.example");
  const { data } = await response.json();
  const { payload } = await jwtVerify(data.token, secret);
  assert.deepEqual(
    [payload.role, payload.sub, payload.usher_overlay, payload.exp],
    ["anon", data.id, session, Math.floor(Date.parse(data.expires_at) / 1000)],
  );

  const overlay = await connect(data.token);
  overlay.send({ type: "subscribe", id: 1, session });
  const subscribed = await overlay.answerTo(1);
  assert.equal(subscribed.type, "subscribed", JSON.stringify(subscribed));
  assert.deepEqual(subscribed.can, { send: false, vote: false, moderate: false });
  overlay.send({ type: "send", id: 2, session, body: "hello" });
  assert.equal((await overlay.answerTo(2)).code, "forbidden");
  overlay.send({ type: "subscribe", id: 3, session: dev.session });
  assert.equal((await overlay.answerTo(3)).code, "forbidden");

  // As the function's README says: the streamer updates the row, under row level security.
  await asUser(streamer.id, `update public.overlay_tokens set revoked_at = now() where id = '${data.id}'`);
  assert.equal(await overlay.closed, 4503);
  const again = await connect(data.token);
  again.send({ type: "subscribe", id: 1, session });
  assert.equal((await again.answerTo(1)).code, "forbidden");
  again.socket.close();
  await again.closed;
});

Deno.test("only the streamer of a session gets a token for it", async () => {
  const session = await privateSession();
  const cases: [string | null, unknown, number, string][] = [
    [viewer.token, { session }, 403, "forbidden"],
    [streamer.token, { session: crypto.randomUUID() }, 403, "forbidden"],
    [null, { session }, 401, "unauthorized"],
    ["not-a-token", { session }, 401, "unauthorized"],
    [await expired(streamer.id), { session }, 401, "unauthorized"],
    [streamer.token, { session: "here" }, 400, "bad_request"],
    [streamer.token, { session, label: "" }, 400, "bad_request"],
    [streamer.token, { session, days: 401 }, 400, "bad_request"],
    [streamer.token, { session, days: "30" }, 400, "bad_request"],
    [streamer.token, [session], 400, "bad_request"],
    [streamer.token, { session, padding: "x".repeat(5_000) }, 413, "too_large"],
  ];
  for (const [token, body, status, code] of cases) {
    const response = await ask(token, body);
    const text = await response.text();
    assert.equal(response.status, status, `${JSON.stringify(body)}: ${text}`);
    assert.equal(JSON.parse(text).error.code, code);
    for (const hidden of [SERVICE_KEY, dev.jwt_secret, settings.supabaseUrl]) assert(!text.includes(hidden));
  }
});

Deno.test("the 21st valid token of a session is refused with conflict", async () => {
  const session = await privateSession();
  for (let n = 0; n < 20; n++) {
    const response = await ask(streamer.token, { session });
    assert.equal(response.status, 201);
    await response.body?.cancel();
  }
  const response = await ask(streamer.token, { session });
  assert.equal(response.status, 409);
  assert.equal((await response.json()).error.code, "conflict");
});

Deno.test("an unreachable platform gives unavailable", async () => {
  const away = { ...settings, supabaseUrl: "http://127.0.0.1:9" };
  const response = await ask(streamer.token, { session: dev.session }, away);
  assert.equal(response.status, 503);
  assert.equal((await response.json()).error.code, "unavailable");
});

Deno.test("a browser's preflight request is answered", async () => {
  const preflight = new Request("http://function/", { method: "OPTIONS" });
  const response = await answer(preflight, settings);
  assert.equal(response.status, 204);
  assert.match(response.headers.get("access-control-allow-headers") ?? "", /authorization/);
  const get = await answer(new Request("http://function/"), settings);
  assert.equal(get.status, 405);
  await get.body?.cancel();
});

Deno.test.afterAll(async () => {
  await platform.shutdown();
  await endConnections();
  process.kill("SIGTERM");
  await process.status;
});

// ---- helpers ----

/**
 * Closes the pool and waits until its connections have closed. `end()` returns earlier, and a connection that Postgres
 * then closes would be an error.
 */
async function endConnections(): Promise<void> {
  let open = database.totalCount;
  const gone = new Promise<void>((resolve) => database.on("remove", () => --open === 0 && resolve()));
  await database.end();
  await gone;
}

function ask(token: string | null, body: unknown, by = settings): Promise<Response> {
  const headers = new Headers({ "content-type": "application/json" });
  if (token !== null) headers.set("authorization", `Bearer ${token}`);
  return answer(new Request("http://function/", { method: "POST", headers, body: JSON.stringify(body) }), by);
}

async function privateSession(): Promise<string> {
  const sql = `insert into public.movie_sessions (streamer_id, title, status, visibility)
    values ($1, 'members only', 'live', 'private') returning id`;
  return (await database.query(sql, [streamer.id])).rows[0].id;
}

async function asUser(id: string, statement: string): Promise<void> {
  const claims = JSON.stringify({ sub: id, role: "authenticated" });
  const client = await database.connect();
  try {
    await client.query("begin");
    await client.query("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)", [
      claims,
    ]);
    await client.query(statement);
    await client.query("commit");
  } finally {
    client.release();
  }
}

function expired(sub: string): Promise<string> {
  const claims = { sub, role: "authenticated", aud: "authenticated", exp: 1_700_000_000 };
  return new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(secret);
}

async function asThePlatform(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (request.headers.get("apikey") !== SERVICE_KEY) return Response.json({ message: "no key" }, { status: 401 });
  if (pathname === "/auth/v1/user") {
    try {
      const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
      const { payload } = await jwtVerify(token, secret, { audience: "authenticated" });
      return Response.json({ id: payload.sub, aud: "authenticated", role: payload.role });
    } catch {
      return Response.json({ code: 403, error_code: "bad_jwt", msg: "invalid JWT" }, { status: 403 });
    }
  }
  assert.equal(pathname, "/rest/v1/rpc/issue_overlay_token");
  const { session, issuer, label, days } = await request.json();
  const client = await database.connect();
  try {
    await client.query("begin; set local role service_role");
    const sql = "select to_json(t) as row from public.issue_overlay_token($1, $2, $3, $4) as t";
    const { rows } = await client.query(sql, [session, issuer, label, days]);
    await client.query("commit");
    return Response.json(rows[0].row);
  } catch (error) {
    await client.query("rollback");
    const { code, message, detail } = error as { code: string; message: string; detail?: string };
    return Response.json({ code, message, details: detail ?? null, hint: null }, { status: 400 });
  } finally {
    client.release();
  }
}

// deno-lint-ignore no-explicit-any
type Frame = Record<string, any>;

async function connect(token: string) {
  const socket = new WebSocket(`${dev.socket}?access_token=${token}`, "usher.v1");
  const frames: Frame[] = [];
  let wake = () => {};
  socket.onmessage = ({ data }) => {
    frames.push(JSON.parse(data));
    wake();
  };
  const closed = new Promise<number>((resolve) => (socket.onclose = ({ code }) => resolve(code)));
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  const answerTo = async (id: number): Promise<Frame> => {
    for (;;) {
      const frame = frames.find((frame) => frame.id === id);
      if (frame) return frame;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
  return { socket, closed, answerTo, send: (frame: Frame) => socket.send(JSON.stringify(frame)) };
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.includes("\n")) return text.slice(0, text.indexOf("\n"));
  }
  throw new Error("usher dev ended early");
}
