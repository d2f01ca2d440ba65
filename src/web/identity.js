// Reads the session and the viewer's identity from the page's address.
//
// The token is in the fragment, which browsers do not send to servers. This page reads only its claims. The gateway
// verifies it.

import { normalId } from "./client/ids.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Returns whether `text` is a session id. */
export function isSessionId(text) {
  return UUID.test(normalId(text));
}

/** Returns {session, token} of a page address; null for a missing part. */
export function placeOf(search, hash) {
  const session = new URLSearchParams(search).get("session")?.trim() || null;
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token")?.trim() || null;
  return { session: session === null ? null : normalId(session), token };
}

/** Returns the query and fragment of a page address for a session, with settings and an optional token. */
export function addressOf(session, token, settings = {}) {
  const query = `?${new URLSearchParams({ session, ...settings })}`;
  return token ? `${query}#${new URLSearchParams({ token })}` : query;
}

/** Returns the identity in a token's claims: {sub, name, anonymous, expiresAt}. */
export function identityOf(token) {
  const claims = token === null ? null : claimsOf(token);
  const expiresAt = Number.isFinite(claims?.exp) ? claims.exp * 1000 : null;
  const anonymous = { sub: null, name: "Guest", anonymous: true, expiresAt };
  if (!claims || claims.role === "anon" || !claims.sub) return anonymous;
  const meta = claims.user_metadata ?? {};
  const name =
    meta.display_name || meta.full_name || meta.username || claims.username || claims.email?.split("@")[0];
  return { sub: normalId(claims.sub), name: name || "You", anonymous: false, expiresAt };
}

function claimsOf(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}
