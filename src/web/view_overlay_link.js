// Creates the URL of the overlay, to paste into OBS.

import { byId, setText } from "./dom.js";
import { addressOf } from "./identity.js";

/** Creates the panel. Its URL never contains the viewer's token. */
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
    // The browser offers the clipboard only on secure origins.
    const copied = await navigator.clipboard?.writeText(url.value).then(() => true, () => false);
    setText(note, copied ? "Copied. In OBS, add a browser source with this URL." : "Selected. Copy it with the keyboard.");
  }
}
