// Made by `npm run pages` from client/src. Change it there.
/**
 * The words on the wire, as `usher.v1` has them.
 *
 * What mirrors a row or a frame keeps its names, so that what a component was written for with supabase-js fits.
 */
/** Reads one text frame; null for what is not one. The shape behind `type` is the gateway's promise. */
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
/** Whether a text has more bytes than that. */
export function isLonger(text, bytes) {
    // A UTF-16 unit has at most three bytes, so that most texts need not be encoded.
    return text.length * 3 > bytes && new TextEncoder().encode(text).length > bytes;
}
