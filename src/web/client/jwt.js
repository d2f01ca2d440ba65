// Made by `npm run pages` from client/src. Change it there.
/** Reads what a token says of itself. The gateway judges it; here it only tells one case from another. */
import { normalId } from "./ids.js";
/** Whose token it is; null where that cannot be read. */
export function subjectOf(token) {
    const { sub } = claimsOf(token);
    return typeof sub === "string" ? normalId(sub) : null;
}
/** Whether the token's own date has passed, by the device's clock. */
export function hasExpired(token) {
    const { exp } = claimsOf(token ?? "");
    return typeof exp === "number" && exp * 1000 <= Date.now();
}
function claimsOf(token) {
    try {
        const [, claims = ""] = token.split(".");
        const bytes = Uint8Array.from(atob(claims.replaceAll("-", "+").replaceAll("_", "/")), (text) => text.charCodeAt(0));
        return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
    }
    catch {
        return {};
    }
}
