// Decides whether and when to come back after a closed socket.
//
// Pure. The range of a close code is what counts, so that a code from a newer server is understood: below 4500 come
// back, from 4500 stay away without a change. Full jitter, so that a restart does not bring everybody at once.

const BASE_MS = 500;
const CAP_MS = 20_000;
/** A server that asks for patience (too many, exceeded limits) is left alone at least this long. */
const PATIENCE_MS = 5000;

/** What a close code asks for: `retry`, `retry_later`, `renew_token` or `stop`. */
export function verdict(code) {
  if (code >= 4500 && code <= 4999) return "stop";
  if (code === 4001) return "renew_token";
  if (code === 4029 || code === 1013) return "retry_later";
  return "retry";
}

/** The name of the reason for staying away. */
export function stopReason(code) {
  return { 4500: "protocol", 4501: "unauthorized", 4503: "banned", 4509: "other_subject" }[code] ?? "refused";
}

/** The wait before attempt `failures` + 1: anywhere up to a bound that doubles. `random` is in [0, 1). */
export function delayMs(failures, code, random) {
  const bound = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 10));
  const floor = verdict(code) === "retry_later" ? PATIENCE_MS : 0;
  return Math.round(floor + random * bound);
}
