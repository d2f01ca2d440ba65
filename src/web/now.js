// The time of a page: it starts as the device's and never goes back, so that no countdown and no wait gets stuck.

import { steadyClock } from "./client/clock.js";

/** Milliseconds since 1970. */
export const now = steadyClock();

/** Browsers run a timer of more than this at once. */
export const TIMER_MS_MAX = 2 ** 31 - 1;
