// Made by `npm run pages` from client/src. Change it there.
/**
 * Types of the `usher.v1` frames.
 *
 * Rows and frames keep the names of their columns and keys, so components written for supabase-js work unchanged.
 */
/** Parses one text frame. Returns null for anything else. Checks only that `type` exists and trusts the gateway. */
export function parseFrame(text) {
    if (typeof text !== "string")
        return null;
    try {
        const frame = JSON.parse(text);
        return typeof frame === "object" && frame !== null && "type" in frame ? frame : null;
    }
    catch {
        return null;
    }
}
/** Returns whether a text has more than `bytes` bytes in UTF-8. */
export function isLonger(text, bytes) {
    // A UTF-16 unit takes at most three bytes, so most texts need no encoding.
    return text.length * 3 > bytes && new TextEncoder().encode(text).length > bytes;
}
