/** Reads the claims of a token without checking it. Only the gateway verifies tokens. */

import { normalId } from "./ids.ts";

/** Returns the subject of a token; null if it is not readable. */
export function subjectOf(token: string): string | null {
  const { sub } = claimsOf(token);
  return typeof sub === "string" ? normalId(sub) : null;
}

/** Returns whether the token has expired, by its `exp` claim and the device clock. */
export function hasExpired(token: string | null): boolean {
  const { exp } = claimsOf(token ?? "");
  return typeof exp === "number" && exp * 1000 <= Date.now();
}

function claimsOf(token: string): { readonly sub?: unknown; readonly exp?: unknown } {
  try {
    const [, claims = ""] = token.split(".");
    const bytes = Uint8Array.from(atob(claims.replaceAll("-", "+").replaceAll("_", "/")), (text) => text.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}
