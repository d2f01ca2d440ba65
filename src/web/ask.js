// Shows a confirmation dialog with choices. Uses the browser's <dialog>.

import { byId, el, setText } from "./dom.js";

/** Shows the dialog. Resolves to the `value` of the chosen entry of `choices` ({value, label, danger}), or to null. */
export function ask({ title, text, choices }) {
  const dialog = byId("ask");
  setText(byId("ask-title"), title);
  setText(byId("ask-text"), text);
  const buttons = choices.map(({ value, label, danger }) =>
    el("button", { type: "submit", class: danger ? "ghost danger" : "ghost", value }, label),
  );
  const cancel = el("button", { type: "submit", class: "ghost", value: "" }, "Cancel");
  byId("ask-actions").replaceChildren(...buttons, cancel);
  dialog.returnValue = "";
  dialog.showModal();
  cancel.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
  });
}
