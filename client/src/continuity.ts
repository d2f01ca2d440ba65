/**
 * Checks that the event numbers of one session are consecutive.
 *
 * The gateway promises 1, 2, 3, … each once. This module verifies the promise: it classifies each number as new,
 * duplicate or after a gap. It also keeps the newest number and the epoch, which a resume needs.
 */

import type { LogEvent, ResetFrame, ResumePoint, SubscribedFrame } from "./wire.ts";

/** The client's position in the log, and its counters. */
export interface Continuity {
  /** The newest number seen; null before the first subscription. */
  readonly seq: number | null;
  readonly epoch: string | null;
  /** Events received, each counted once. */
  readonly received: number;
  /** Missing event numbers. Zero unless the gateway has broken its promise. */
  readonly gaps: number;
  /** Events that arrived twice. Zero unless the gateway has broken its promise. */
  readonly duplicates: number;
  /** Reconnects after which the gateway delivered every missed event. */
  readonly resumes: number;
  /** Fresh starts: the log no longer reached back to the client's position, or the database went back in time. */
  readonly resets: number;
  /** Frames of an earlier subscription that arrived after its end. The client drops them. */
  readonly stale: number;
}

/** The position before the first subscription. */
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

/** Sets the starting point from a `subscribed` or `reset` frame. */
export function place(position: Continuity, frame: SubscribedFrame | ResetFrame): Continuity {
  if (position.seq === null) return { ...position, seq: frame.seq, epoch: frame.epoch };
  if (frame.type === "reset" || !frame.recovered)
    return { ...position, seq: frame.seq, epoch: frame.epoch, resets: position.resets + 1 };
  return {
    ...position,
    epoch: frame.epoch,
    resumes: position.resumes + 1,
    // A gateway that reports `recovered` but starts at a later number has skipped events.
    gaps: position.gaps + Math.max(0, frame.seq - position.seq),
    seq: Math.max(position.seq, frame.seq),
  };
}

/**
 * Returns whether the client must forget the events up to `position`: events after it are missing, or this log may not
 * contain them. `ahead` means the latter even within one epoch: the client has an event that the log does not contain.
 */
export function isForgotten(position: Continuity, frame: SubscribedFrame | ResetFrame): boolean {
  const isOfThisLog = frame.epoch === position.epoch && frame.reason !== "ahead";
  return position.seq !== null && !(isOfThisLog && frame.seq <= position.seq);
}

/** Advances the position over `events`. `fresh` contains the new ones, in the order of arrival. */
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

/** Returns the `resume` field of a `subscribe` frame; null before the first subscription. */
export function resumePoint({ seq, epoch }: Continuity, token: string | null): ResumePoint | null {
  return seq === null ? null : { seq, ...(epoch === null ? {} : { epoch }), ...(token === null ? {} : { token }) };
}
