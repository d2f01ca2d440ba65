// Shows the result of the page's check that no event is missing.

import { byId, el, setAttribute, setText } from "./dom.js";
import { count, plural } from "./format.js";

/** Creates the footer. */
export function proofView() {
  let shown = null;
  return { render };

  function render(state) {
    const position = state.session.continuity;
    if (shown === position) return;
    shown = position;
    const whole = position.gaps === 0 && position.duplicates === 0;
    setAttribute(byId("proof-mark"), "data-whole", whole ? "yes" : "no");
    setText(byId("proof-mark"), whole ? "✓" : "!");
    const since = position.resets > 0 ? " since the last fresh start" : "";
    const verdict = whole
      ? `Nothing missing${since}`
      : `${plural(position.gaps, "event")} missing, ${plural(position.duplicates, "duplicate")}`;
    setText(
      byId("proof-line"),
      position.seq === null ? "No events yet" : `${verdict} · at #${count(position.seq)}`,
    );
    const facts = [
      ["Last number", position.seq === null ? "none" : count(position.seq)],
      ["Gaps", count(position.gaps)],
      ["Duplicates", count(position.duplicates)],
      ["Resumes", count(position.resumes)],
      ["Events received", count(position.received)],
      ["Events recovered", count(state.recovered)],
      ["Fresh starts", count(position.resets)],
      ["Epoch", position.epoch ?? "none"],
      ["Server", state.connection.server ?? "unknown"],
      ["Transport", state.connection.transport],
    ];
    byId("proof-list").replaceChildren(
      ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }
}
