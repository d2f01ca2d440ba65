// Formats numbers and times for people.

const COUNT = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** Formats a number: `12,345`. */
export function count(value) {
  return COUNT.format(value);
}

/** Formats a number, and from 10,000 in short form: `12.3K`. */
export function shortCount(value) {
  return value < 10_000 ? COUNT.format(value) : SHORT.format(value);
}

/** Formats a number with its noun: `1 vote`, `2 votes`. */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Formats a share in whole percent. Shows 0% only for exactly 0, and 100% only for exactly 1. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "<1%";
  if (share < 1 && share > 0.99) return "99%";
  return `${Math.round(share * 100)}%`;
}

/** Formats the local time of day. */
export function timeOfDay(ms) {
  return CLOCK.format(ms);
}

/** Formats the remaining time: `2:03:09`, `4:59`, `0:07`. */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (value) => String(value).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Formats the remaining time for a sentence or a screen reader: `3 s`, `4 min`, `2 h 5 min`. */
export function spokenDuration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** Counts the characters of a message as the database does. */
export function characters(text) {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}
