// Shows those who moderate what moves behind the session: votes a minute, viewers over time, the counts.

import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { count } from "./format.js";
import { noSamples, sample, SAMPLE_MS, sparkline, votesPerMinute } from "./samples.js";
import { currentVoting, standing } from "./votings.js";

const [WIDTH, HEIGHT] = [240, 48];

/** The panel for streamers and moderators. */
export function insightsView() {
  let samples = noSamples();
  let list = "";
  return { render, tick };

  function render(state) {
    setShown(byId("insights"), state.can.moderate);
    if (state.can.moderate) renderCounts(currentVoting(state.votings));
  }

  function tick(state, now) {
    if (!state.ready) return;
    const last = samples.at(-1);
    if (last && now - last.at < SAMPLE_MS) return;
    const voting = currentVoting(state.votings);
    samples = sample(samples, {
      now,
      viewers: state.viewers ?? 0,
      voting: voting?.id ?? null,
      total: voting?.total ?? 0,
    });
    if (!state.can.moderate) return;
    setText(byId("rate-now"), count(votesPerMinute(samples, now)));
    setText(byId("audience-now"), count(state.viewers ?? 0));
    draw(
      "rate",
      samples.map((item) => item.rose),
    );
    draw(
      "audience",
      samples.map((item) => item.viewers),
    );
  }

  function renderCounts(voting) {
    const rows = voting ? [...standing(voting).rows].sort((a, b) => (b.votes ?? 0) - (a.votes ?? 0)) : [];
    setText(byId("live-counts-none"), rows.length ? "" : "Nothing to count yet.");
    const key = JSON.stringify(rows.map((row) => [row.movie, row.votes]));
    if (key === list) return;
    list = key;
    byId("live-counts").replaceChildren(
      ...rows.map((row) =>
        el(
          "li",
          {},
          el("span", { class: "counts-title", dir: "auto" }, row.title),
          el("span", { class: "counts-votes" }, row.votes === null ? "–" : count(row.votes)),
        ),
      ),
    );
  }
}

function draw(name, values) {
  const points = sparkline(values, WIDTH, HEIGHT);
  setAttribute(byId(`${name}-line`), "points", points);
  const first = points.split(" ")[0]?.split(",")[0] ?? "0";
  setAttribute(byId(`${name}-area`), "points", points && `${first},${HEIGHT} ${points} ${WIDTH},${HEIGHT}`);
}
