/** Reads what a token says of itself. The gateway judges it; here it only tells one case from another. */

import { normalId } from "./ids.ts";

/** Whose token it is; null where that cannot be read. */
export function subjectOf(token: string): string | null {
  const { sub } = claimsOf(token);
  return typeof sub === "string" ? normalId(sub) : null;
}

/** Whether the token's own date has passed, by the device's clock. */
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
