// Shows short notices that disappear after seven seconds.

import { byId, el } from "./dom.js";

const SHOWN_MS = 7000;
const TOASTS_MAX = 3;

/** Creates the corner for notices. */
export function toastsView() {
  let last = 0;
  return { render };

  function render({ toast }) {
    if (!toast || toast.id === last) return;
    last = toast.id;
    const box = byId("toasts");
    const element = el(
      "div",
      { class: "toast", "data-tone": toast.tone },
      el("p", {}, toast.text),
      el(
        "button",
        { type: "button", class: "icon", "aria-label": "Dismiss", onclick: () => element.remove() },
        "✕",
      ),
    );
    box.append(element);
    while (box.children.length > TOASTS_MAX) box.firstElementChild.remove();
    setTimeout(() => element.remove(), SHOWN_MS);
  }
}
