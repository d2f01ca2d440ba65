// Keeps the viewers and votes of the last ten minutes for the plots of moderators.
//
// Pure and bounded. The caller takes samples at regular intervals, which a browser stretches in a hidden tab. So votes
// are counted by the growth of the total.

export const SAMPLE_MS = 2000;
/** The time that the plots show. */
export const SPAN_MS = 10 * 60_000;
/** The samples of ten minutes, and one more beyond the left edge. */
export const SAMPLES_MAX = SPAN_MS / SAMPLE_MS + 1;
/** The time over which a rate is averaged. A shorter one gives only jitter. */
const RATE_MS = 20_000;

/** Returns an empty list of samples. */
export function noSamples() {
  return [];
}

/** Appends one sample. Another poll starts a new count. */
export function sample(samples, { now, viewers, voting, total }) {
  const last = samples.at(-1);
  const rose = last && last.voting === voting ? Math.max(0, total - last.total) : 0;
  const first = samples.find((item) => now - item.at < RATE_MS) ?? last;
  const votes = samples.slice(samples.indexOf(first) + 1).reduce((sum, item) => sum + item.rose, rose);
  const rate = first ? (votes * 60_000) / Math.max(now - first.at, SAMPLE_MS) : 0;
  return [...samples, { at: now, viewers, voting, total, rose, rate }].slice(-SAMPLES_MAX);
}

/** Returns the votes per minute at the latest sample. */
export function votesPerMinute(samples) {
  return Math.round(samples.at(-1)?.rate ?? 0);
}
