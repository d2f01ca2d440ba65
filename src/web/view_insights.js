// Shows moderators the activity of the session: votes per minute and viewers over time.

import { byId, setShown } from "./dom.js";
import { count } from "./format.js";
import { plotView } from "./plot.js";
import { currentVoting } from "./room.js";
import { noSamples, sample, SAMPLE_MS, SPAN_MS } from "./samples.js";

/** Creates the plots in the element `plots`. */
export function insightsView() {
  let samples = noSamples();
  const rate = plotView({ label: "Votes per minute", spanMs: SPAN_MS, series: [{ name: "votes", tone: "amber" }], format });
  const audience = plotView({ label: "Viewers", spanMs: SPAN_MS, series: [{ name: "viewers", tone: "blue" }] });
  byId("plots").append(rate.figure, audience.figure);
  let drawn = samples;
  return { render, pass, tick };

  function render(room) {
    setShown(byId("insights"), room.session.can.moderate);
  }

  function pass(room, now) {
    const last = samples.at(-1);
    if (!room.ready || (last && now - last.at < SAMPLE_MS)) return;
    const voting = currentVoting(room);
    const { viewers } = room.session;
    samples = sample(samples, { now, viewers: viewers ?? 0, voting: voting?.id ?? null, total: voting?.total ?? 0 });
  }

  function tick(room, now) {
    if (drawn === samples || !room.session.can.moderate) return;
    drawn = samples;
    rate.draw(samples.map(({ at, rate }) => ({ at, values: [rate] })), now);
    audience.draw(samples.map(({ at, viewers }) => ({ at, values: [viewers] })), now);
  }

  function format(value) {
    return count(Math.round(value));
  }
}
