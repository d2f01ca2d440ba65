// Shows the results of a poll as bars without buttons, for the studio and the overlay.

import { standing } from "./client/votings.js";
import { el, setAttribute, setText } from "./dom.js";
import { percent, plural } from "./format.js";

/** Renders bars into a list element. Keeps the elements between renders, so that bars move smoothly. */
export function barsView(list) {
  let shown = "";
  let rows = new Map();
  return { render };

  function render(voting) {
    const options = voting?.options ?? [];
    const key = `${voting?.id} ${options.map((option) => option.movie).join(" ")}`;
    if (key !== shown) {
      shown = key;
      rows = new Map(options.map((option) => [option.movie, rowOf(option)]));
      list.replaceChildren(...[...rows.values()].map(({ item }) => item));
    }
    if (voting === null) return;
    const isHidden = voting.counts === null;
    for (const row of standing(voting)) {
      const { item, fill, share, votes } = rows.get(row.movie);
      setAttribute(item, "data-leads", row.leads && !isHidden ? (voting.status === "closed" ? "won" : "yes") : null);
      fill.style.transform = `scaleX(${isHidden ? 0 : row.share.toFixed(4)})`;
      setText(share, isHidden ? "" : percent(row.share));
      setText(votes, isHidden ? "hidden" : plural(row.votes, "vote"));
    }
  }
}

function rowOf({ title }) {
  const fill = el("span", { class: "fill" });
  const share = el("span", { class: "bar-share" });
  const votes = el("span", { class: "bar-votes" });
  const item = el(
    "li",
    { class: "bar-row" },
    el("span", { class: "bar-title", dir: "auto" }, title),
    votes,
    share,
    el("span", { class: "track", "aria-hidden": "true" }, fill),
  );
  return { item, fill, share, votes };
}
