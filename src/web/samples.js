// Remembers the last minutes of viewers and votes for the plots of those who moderate.
//
// Pure and bounded. The caller takes a sample at a steady pace, which a browser slows down in a tab that is hidden; votes are
// counted by how far the total rose.

export const SAMPLE_MS = 2000;
/** What the plots show. */
export const SPAN_MS = 10 * 60_000;
/** The last ten minutes, and one that reaches beyond the edge. */
export const SAMPLES_MAX = SPAN_MS / SAMPLE_MS + 1;
/** The rate of a moment is that of this time before it: shorter is all jitter. */
const RATE_MS = 20_000;

/** No samples yet. */
export function noSamples() {
  return [];
}

/** Appends one sample. A change of the voting starts its count anew. */
export function sample(samples, { now, viewers, voting, total }) {
  const last = samples.at(-1);
  const rose = last && last.voting === voting ? Math.max(0, total - last.total) : 0;
  const first = samples.find((item) => now - item.at < RATE_MS) ?? last;
  const votes = samples.slice(samples.indexOf(first) + 1).reduce((sum, item) => sum + item.rose, rose);
  const rate = first ? (votes * 60_000) / Math.max(now - first.at, SAMPLE_MS) : 0;
  return [...samples, { at: now, viewers, voting, total, rose, rate }].slice(-SAMPLES_MAX);
}

/** Votes a minute, as the latest sample has it. */
export function votesPerMinute(samples) {
  return Math.round(samples.at(-1)?.rate ?? 0);
}
