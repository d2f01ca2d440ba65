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
