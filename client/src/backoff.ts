/**
 * Decides whether and when to come back after a closed socket.
 *
 * Pure. The range of a close code is what counts, so that a code from a newer gateway is understood: below 4500 come
 * back, from 4500 stay away without a change. Full jitter, so that a restart does not bring everybody at once.
 */

const BASE_MS = 500;
const CAP_MS = 20_000;
/** A gateway that asks for patience without saying how long is left alone at least this long. */
const PATIENCE_MS = 5000;
/** No gateway asks for more patience than this; a wrong clock or header might. */
const ADVICE_MS_MAX = 5 * 60_000;

/** What a close code asks for. */
export type Verdict = "retry" | "retry_later" | "renew_token" | "stop";

/** Judges a close code. */
export function verdict(code: number): Verdict {
  if (code === 4001 || code === 4501) return "renew_token";
  // Another user's token: on a socket of its own it is welcome.
  if (code === 4509) return "retry";
  if (code >= 4500 && code <= 4999) return "stop";
  return code === 4029 || code === 1013 ? "retry_later" : "retry";
}

/** The close code of a socket whose last subscription was taken away. */
export const ACCESS_WITHDRAWN = 4503;

/** The name of the reason for staying away; `withdrawal` is the reason of the last `unsubscribed` frame. */
export function stopCode(code: number, withdrawal: string | null): string {
  if (code === ACCESS_WITHDRAWN) return withdrawal ?? "forbidden";
  return code === 4500 ? "protocol" : "refused";
}

/** The wait before the next attempt: anywhere up to a bound that doubles with `failures`. `random` is in [0, 1). */
export function delayMs(failures: number, code: number, random: number): number {
  const bound = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 10));
  return Math.round((verdict(code) === "retry_later" ? PATIENCE_MS : 0) + random * bound);
}

/**
 * A time that the gateway gives, from `least` up to five minutes; `otherwise` if it gives none. Every timer that the gateway
 * has a say in takes its time from here: browsers run a timer of more than 2^31 ms at once.
 */
export function advisedMs(given: unknown, least: number, otherwise: number = least): number {
  const ms = typeof given === "number" && given >= 0 ? given : otherwise;
  return Math.min(Math.max(least, ms), ADVICE_MS_MAX);
}
