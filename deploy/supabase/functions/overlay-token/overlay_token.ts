// Issues overlay tokens, with which a browser source in OBS can watch one session and do nothing else.
//
// The auth server verifies the caller. `public.issue_overlay_token` decides whether the caller may issue a token, and
// stores a row with which the token can be revoked. Only then does the function sign the token.

import { createClient } from "@supabase/supabase-js";
import { SignJWT } from "jose";

/** The settings of the deployed function. */
export interface Settings {
  supabaseUrl: string;
  serviceKey: string;
  /** The project's JWT secret, which is the gateway's `SUPABASE_JWT_SECRET`. */
  jwtSecret: string;
  /** The origin of the app, for CORS. `*` is safe, because the function reads no cookies. */
  allowedOrigin: string;
}

interface Wish {
  session: string;
  label: string;
  days: number;
}

const BODY_BYTES_MAX = 4_096;
const LABEL_LENGTH_MAX = 64;
const DAYS_MAX = 400;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** HTTP status and code for each error code of the database. */
const REFUSALS: Record<string, [status: number, code: string]> = {
  US004: [403, "forbidden"],
  US005: [404, "not_found"],
  US007: [400, "bad_request"],
  US009: [409, "conflict"],
};

class Refusal extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
  }
}

/** Answers one request: 201 with `{"data":{"token","id","session","expires_at"}}`, or `{"error":{"code","message"}}`. */
export async function answer(request: Request, settings: Settings): Promise<Response> {
  const headers = {
    "access-control-allow-origin": settings.allowedOrigin,
    "access-control-allow-headers": "authorization, apikey, content-type, x-client-info",
    "access-control-allow-methods": "POST",
    vary: "origin",
    "cache-control": "no-store",
  };
  if (request.method === "OPTIONS") return new Response(null, { status: 204, headers });
  try {
    if (request.method !== "POST") {
      throw new Refusal(405, "bad_request", "use POST with a JSON body");
    }
    return Response.json({ data: await issue(request, settings) }, { status: 201, headers });
  } catch (error) {
    if (error instanceof Refusal) {
      const { code, message, status } = error;
      return Response.json({ error: { code, message } }, { status, headers });
    }
    // Logs only the name: a message could contain a URL with a key.
    console.error("overlay-token failed:", error instanceof Error ? error.name : "unknown");
    const internal = { code: "internal", message: "the token could not be issued" };
    return Response.json({ error: internal }, { status: 500, headers });
  }
}

async function issue(request: Request, settings: Settings) {
  const bearer = /^bearer (\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (!bearer) {
    throw new Refusal(401, "unauthorized", "send the streamer's access token as Authorization: Bearer …");
  }
  const wish = await read(request);
  const supabase = createClient(settings.supabaseUrl, settings.serviceKey, {
    auth: { persistSession: false, autoRefreshToken: false },
  });

  const { data: { user }, error: unknown } = await supabase.auth.getUser(bearer);
  if (!user) {
    const status = unknown?.status ?? 0;
    throw status >= 400 && status < 500
      ? new Refusal(401, "unauthorized", "the access token is not valid, or has expired")
      : new Refusal(503, "unavailable", "the auth server does not answer: try again");
  }

  const { data: row, error } = await supabase.rpc("issue_overlay_token", { issuer: user.id, ...wish });
  if (error || !row) {
    const [status, code] = REFUSALS[error?.code ?? ""] ?? [503, "unavailable"];
    throw new Refusal(status, code, status === 503 ? "the database does not answer: try again" : error!.message);
  }
  return {
    token: await sign(row.id, row.session_id, row.expires_at, settings.jwtSecret),
    id: row.id,
    session: row.session_id,
    expires_at: row.expires_at,
  };
}

/** Signs a token with the role anon. For the Data API its bearer is anonymous; only the gateway reads `usher_overlay`. */
function sign(id: string, session: string, expiresAt: string, secret: string): Promise<string> {
  return new SignJWT({ role: "anon", usher_overlay: session })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setSubject(id)
    .setIssuedAt()
    .setExpirationTime(new Date(expiresAt))
    .sign(new TextEncoder().encode(secret));
}

async function read(request: Request): Promise<Wish> {
  const bad = (message: string) => new Refusal(400, "bad_request", message);
  const text = await request.text();
  if (text.length > BODY_BYTES_MAX) throw new Refusal(413, "too_large", "the body is too long");
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw bad("the body must be JSON");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw bad("the body must be a JSON object");
  }
  const { session, label = "OBS", days = 90 } = body as Record<string, unknown>;
  if (typeof session !== "string" || !UUID.test(session)) throw bad("session must be a uuid");
  if (typeof label !== "string" || label.length < 1 || label.length > LABEL_LENGTH_MAX) {
    throw bad(`label must be a text of 1 to ${LABEL_LENGTH_MAX} characters`);
  }
  if (typeof days !== "number" || !Number.isInteger(days) || days < 1 || days > DAYS_MAX) {
    throw bad(`days must be a whole number from 1 to ${DAYS_MAX}`);
  }
  return { session, label, days };
}
