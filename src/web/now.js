// The page's clock. It starts at the device time and never runs backwards, so countdowns and waits always end.

import { steadyClock } from "./client/clock.js";

/** Returns milliseconds since 1970. */
export const now = steadyClock();

/** The longest timer. A browser runs a longer one immediately. */
export const TIMER_MS_MAX = 2 ** 31 - 1;
