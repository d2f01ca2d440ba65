/**
 * Decides whether and when to reconnect after a socket closes.
 *
 * Pure. The range of a close code decides, so this client also understands codes of a newer gateway: it reconnects
 * below 4500, and stops from 4500 to 4999. There are two exceptions: a new token solves 4501, and a new socket solves
 * 4509. The delay has full jitter, so that clients do not all reconnect at the same moment after a gateway restart.
 */

const BASE_MS = 500;
const CAP_MS = 20_000;
/** The least wait after a close code that means "later" (4029, 1013) and comes without a time. */
const PATIENCE_MS = 5000;
/** The longest wait that the client accepts from a gateway. A longer one comes from a wrong clock or header. */
const ADVICE_MS_MAX = 5 * 60_000;

/** The reaction to a close code. */
export type Verdict = "retry" | "retry_later" | "renew_token" | "stop";

/** Returns the reaction to a close code. */
export function verdict(code: number): Verdict {
  if (code === 4001 || code === 4501) return "renew_token";
  // The client sent another user's token on this socket. A new socket accepts it.
  if (code === 4509) return "retry";
  if (code >= 4500 && code <= 4999) return "stop";
  return code === 4029 || code === 1013 ? "retry_later" : "retry";
}

/** The close code of a socket after the gateway has ended its last subscription. */
export const ACCESS_WITHDRAWN = 4503;

/** Returns the error code for a final close code. `withdrawal` is the reason in the last `unsubscribed` frame. */
export function stopCode(code: number, withdrawal: string | null): string {
  if (code === ACCESS_WITHDRAWN) return withdrawal ?? "forbidden";
  return code === 4500 ? "protocol" : "refused";
}

/**
 * Returns the wait before the next attempt: a random time below a bound that doubles with each failure, from 0.5 s to
 * 20 s. `random` is in [0, 1). Adds 5 s for a close code that means "later".
 */
export function delayMs(failures: number, code: number, random: number): number {
  const bound = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 10));
  return Math.round((verdict(code) === "retry_later" ? PATIENCE_MS : 0) + random * bound);
}

/**
 * Limits a time from the gateway to the range from `least` to five minutes. Uses `otherwise` if the gateway gives none.
 *
 * Every timer with a time from the gateway uses this function: a browser runs a timer of more than 2^31 ms immediately.
 */
export function advisedMs(given: unknown, least: number, otherwise: number = least): number {
  const ms = typeof given === "number" && given >= 0 ? given : otherwise;
  return Math.min(Math.max(least, ms), ADVICE_MS_MAX);
}
