/**
 * Checks for itself that the numbers of one session's log are consecutive.
 *
 * The gateway promises 1, 2, 3, … each once. This module believes nothing: it sorts each arriving number into fresh,
 * duplicate or gap, and remembers where the client stands, which is all that a resume needs.
 */

import type { LogEvent, ResetFrame, ResumePoint, SubscribedFrame } from "./wire.ts";

/** Where a client stands, and what it has counted on the way. */
export interface Continuity {
  /** The newest number seen; null before the first subscription. */
  readonly seq: number | null;
  readonly epoch: string | null;
  /** Events received, each counted once. */
  readonly received: number;
  /** Numbers that never came, not the number of holes. Zero, unless a promise was broken. */
  readonly gaps: number;
  /** Events that came again. Zero, unless a promise was broken. */
  readonly duplicates: number;
  /** Reconnects after which everything missed was delivered. */
  readonly resumes: number;
  /** Fresh starts that the gateway declared: the log no longer reached back, or the database went back in time. */
  readonly resets: number;
  /** Frames of an earlier subscription that arrived after it was left. The client drops them. */
  readonly stale: number;
}

/** Where a client stands before it has subscribed. */
export const UNPLACED: Continuity = {
  seq: null,
  epoch: null,
  received: 0,
  gaps: 0,
  duplicates: 0,
  resumes: 0,
  resets: 0,
  stale: 0,
};

/** Takes the starting point from a `subscribed` or `reset` frame. */
export function place(position: Continuity, frame: SubscribedFrame | ResetFrame): Continuity {
  if (position.seq === null) return { ...position, seq: frame.seq, epoch: frame.epoch };
  if (frame.type === "reset" || !frame.recovered)
    return { ...position, seq: frame.seq, epoch: frame.epoch, resets: position.resets + 1 };
  return {
    ...position,
    epoch: frame.epoch,
    resumes: position.resumes + 1,
    // A gateway that says `recovered` and starts elsewhere has left a hole, whatever it calls it.
    gaps: position.gaps + Math.max(0, frame.seq - position.seq),
    seq: Math.max(position.seq, frame.seq),
  };
}

/**
 * Whether what was seen until `position` is to be forgotten: a hole lies behind it, or it may not be in this log. `ahead`
 * also says the latter within an epoch, where the gateway has shown an event that the log does not have.
 */
export function isForgotten(position: Continuity, frame: SubscribedFrame | ResetFrame): boolean {
  const isOfThisLog = frame.epoch === position.epoch && frame.reason !== "ahead";
  return position.seq !== null && !(isOfThisLog && frame.seq <= position.seq);
}

/** Advances over `events`; `fresh` are those that were not seen yet, in the order in which they came. */
export function advance(
  position: Continuity,
  events: readonly LogEvent[],
): { readonly position: Continuity; readonly fresh: readonly LogEvent[] } {
  let { seq, gaps, duplicates } = position;
  const fresh: LogEvent[] = [];
  for (const event of events) {
    if (!Number.isSafeInteger(event?.seq)) continue;
    if (seq !== null && event.seq <= seq) {
      duplicates += 1;
      continue;
    }
    if (seq !== null) gaps += event.seq - seq - 1;
    seq = event.seq;
    fresh.push(event);
  }
  return { position: { ...position, seq, gaps, duplicates, received: position.received + fresh.length }, fresh };
}

/** What a `subscribe` frame says about where to go on; null when there is nothing to go on from. */
export function resumePoint({ seq, epoch }: Continuity, token: string | null): ResumePoint | null {
  return seq === null ? null : { seq, ...(epoch === null ? {} : { epoch }), ...(token === null ? {} : { token }) };
}
