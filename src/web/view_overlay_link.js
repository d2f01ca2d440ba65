// Puts the address of the overlay together, to be pasted into OBS.

import { byId, setText } from "./dom.js";
import { addressOf } from "./identity.js";

/** The panel; what it makes never bears the token of who looks. */
export function overlayLinkView(session) {
  const [url, note] = [byId("overlay-url"), byId("overlay-note")];
  byId("overlay-form").addEventListener("change", draw);
  byId("overlay-copy").addEventListener("click", copy);
  url.addEventListener("focus", () => url.select());
  draw();
  return {};

  function draw() {
    const settings = Object.fromEntries(["show", "side", "size"].map((name) => [name, byId(`overlay-${name}`).value]));
    url.value = `${location.origin}/overlay${addressOf(session, null, settings)}`;
  }

  async function copy() {
    url.select();
    // The clipboard is for secure origins alone.
    const copied = await navigator.clipboard?.writeText(url.value).then(() => true, () => false);
    setText(note, copied ? "Copied. In OBS: add a browser source with this address." : "Selected: copy it with the keyboard.");
  }
}
