/** Writes ids as the gateway writes them, so that an id of the app and an id in a frame are equal. */

/** The forms of a uuid that the gateway reads, with its five groups. */
const UUID = /^(?:urn:uuid:|\{)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?$/i;

/** Puts a uuid in lower case with hyphens, whichever form it has; Swift prints uuids in upper case. Other ids stay. */
export function normalId(id: string): string {
  const groups = UUID.exec(id)?.slice(1);
  return groups ? groups.join("-").toLowerCase() : id;
}

/** The same for an id that may be missing. */
export function normalIdOrNull(id: string | null): string | null {
  return id === null ? null : normalId(id);
}
