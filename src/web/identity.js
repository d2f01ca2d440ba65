// Reads who the viewer is and which session is wanted from the page's address.
//
// The token sits in the fragment, which no browser sends to a server. It is read here for its name only; what it is
// worth, the gateway decides.

import { normalId } from "./client/ids.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether `text` is a session id. */
export function isSessionId(text) {
  return UUID.test(normalId(text));
}

/** {session, token} of a page address; null where absent. */
export function placeOf(search, hash) {
  const session = new URLSearchParams(search).get("session")?.trim() || null;
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token")?.trim() || null;
  return { session: session === null ? null : normalId(session), token };
}

/** The address of a page for a session, with further settings, and maybe a token. */
export function addressOf(session, token, settings = {}) {
  const query = `?${new URLSearchParams({ session, ...settings })}`;
  return token ? `${query}#${new URLSearchParams({ token })}` : query;
}

/** Who a token says that its bearer is, and until when: {sub, name, anonymous, expiresAt}. */
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
