// Made by `npm run pages` from client/src. Change it there.
/** Writes ids in the gateway's form, so that an id of the app equals the same id in a frame. */
/** The forms of a uuid that the gateway accepts, with its five groups. */
const UUID = /^(?:urn:uuid:|\{)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?$/i;
/** Returns a uuid in lower case with hyphens, from any form (Swift prints upper case). Other ids stay unchanged. */
export function normalId(id) {
    const groups = UUID.exec(id)?.slice(1);
    return groups ? groups.join("-").toLowerCase() : id;
}
/** Returns the same for an id that may be null. */
export function normalIdOrNull(id) {
    return id === null ? null : normalId(id);
}
