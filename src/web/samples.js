// Remembers the last minutes of viewers and votes for the streamer's small plots.
//
// Pure and bounded. A sample is taken at a steady pace by the caller; votes are counted by how far the total rose.

/** 60 samples at one in 5 s are the last five minutes. */
export const SAMPLES_MAX = 60;
export const SAMPLE_MS = 5000;

const SLOTS_MIN = 12;

/** No samples yet. */
export function noSamples() {
  return [];
}

/** Appends one sample. A change of the voting starts its count anew. */
export function sample(samples, { now, viewers, voting, total }) {
  const last = samples.at(-1);
  const rose = last && last.voting === voting ? Math.max(0, total - last.total) : 0;
  return [...samples, { at: now, viewers, voting, total, rose }].slice(-SAMPLES_MAX);
}

/** Votes in the last minute. */
export function votesPerMinute(samples, now) {
  return samples.reduce((sum, item) => (now - item.at < 60_000 ? sum + item.rose : sum), 0);
}

/** The points of a line through `values` in a box, newest at the right edge, for an SVG polyline. */
export function sparkline(values, width, height, { fromZero = true } = {}) {
  if (values.length === 0) return "";
  const top = Math.max(...values, 1);
  const bottom = fromZero ? 0 : Math.min(...values);
  const span = Math.max(top - bottom, 1);
  // A young line fills the box too, else the first minutes would show a speck at the edge.
  const step = width / (Math.max(values.length, SLOTS_MIN) - 1);
  const left = width - step * (values.length - 1);
  const y = (value) => (height - 1 - ((value - bottom) / span) * (height - 2)).toFixed(1);
  return values.map((value, at) => `${(left + at * step).toFixed(1)},${y(value)}`).join(" ");
}
