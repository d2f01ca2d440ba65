// Puts numbers and times into words for people.

const COUNT = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** 12,345 */
export function count(value) {
  return COUNT.format(value);
}

/** 12.3K */
export function shortCount(value) {
  return value < 10_000 ? COUNT.format(value) : SHORT.format(value);
}

/** `1 vote`, `2 votes` */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A share in whole percent; what is not nothing is never shown as 0, what is not all never as 100. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "<1%";
  if (share < 1 && share > 0.99) return "99%";
  return `${Math.round(share * 100)}%`;
}

/** The local time of day. */
export function timeOfDay(ms) {
  return CLOCK.format(ms);
}

/** What is left: 2:03:09, 4:59, 0:07. */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (value) => String(value).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** What is left, in words for a screen reader or a sentence: `3 s`, `4 min`, `2 h 5 min`. */
export function spokenDuration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** The characters of a message as the database counts them. */
export function characters(text) {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}
