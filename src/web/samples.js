// Remembers the last minutes of viewers and votes for the plots of those who moderate.
//
// Pure and bounded. A sample is taken at a steady pace by the caller; votes are counted by how far the total rose.

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
  const recent = samples.filter((item) => now - item.at < RATE_MS);
  const since = recent.length > 0 ? Math.max(now - recent[0].at, SAMPLE_MS) : SAMPLE_MS;
  const votes = recent.reduce((sum, item) => sum + item.rose, rose);
  // The first of the time has risen before it.
  const rate = ((votes - (recent[0]?.rose ?? 0)) * 60_000) / since;
  return [...samples, { at: now, viewers, voting, total, rose, rate }].slice(-SAMPLES_MAX);
}

/** Votes a minute, as the latest sample has it. */
export function votesPerMinute(samples) {
  return Math.round(samples.at(-1)?.rate ?? 0);
}
