// Parses the gateway's /metrics.
//
// Pure. Supports the part of OpenMetrics that the gateway writes: names, at most one label, numbers.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Parses a text into a map from name to a list of {labels, value}. Returns null for a text of another server. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (match === null) continue;
    const [, name, labels = "", value] = match;
    if (!samples.has(name)) samples.set(name, []);
    const pairs = [...labels.matchAll(LABEL)].map(([, key, text]) => [key, text]);
    samples.get(name).push({ labels: Object.fromEntries(pairs), value: Number(value) });
  }
  return samples.has("usher_connections") ? samples : null;
}

/** Returns the value of a metric, summed over its labels; 0 for an unknown one. */
export function valueOf(samples, name) {
  return (samples.get(name) ?? []).reduce((sum, { value }) => sum + value, 0);
}

/** Returns the growth of a counter per second between two readings; NaN after a restart of the gateway. */
export function rateOf(before, after, seconds, name) {
  const grown = valueOf(after, name) - valueOf(before, name);
  return grown < 0 || seconds <= 0 ? Number.NaN : grown / seconds;
}

/** Returns the growth of a counter per label value, largest first. Leaves out values that did not grow. */
export function grownBy(before, after, name) {
  const labelOf = ({ labels }) => Object.values(labels)[0] ?? "";
  const old = new Map((before.get(name) ?? []).map((sample) => [labelOf(sample), sample.value]));
  return (after.get(name) ?? [])
    .map((sample) => ({ name: labelOf(sample), value: sample.value - (old.get(labelOf(sample)) ?? 0) }))
    .filter(({ value }) => value > 0)
    .sort((one, other) => other.value - one.value);
}

/**
 * Returns a quantile of the values that a histogram recorded between two readings, as the upper bound of its bucket.
 * Values above the last finite bound count as that bound. Returns NaN if it recorded no value.
 */
export function quantileOf(before, after, name, share) {
  const old = new Map(bucketsOf(before, name));
  const buckets = bucketsOf(after, name).map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)]);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return Number.NaN;
  const at = buckets.findIndex(([, count]) => count >= share * all);
  const [bound] = buckets[at];
  return Number.isFinite(bound) ? bound : (buckets[at - 1]?.[0] ?? Number.NaN);
}

function bucketsOf(samples, name) {
  const buckets = (samples.get(`${name}_bucket`) ?? []).map(({ labels, value }) => [
    labels.le === "+Inf" ? Number.POSITIVE_INFINITY : Number(labels.le),
    value,
  ]);
  return buckets.sort(([one], [other]) => one - other);
}
