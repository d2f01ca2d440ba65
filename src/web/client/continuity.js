// Made by `npm run pages` from client/src. Change it there.
/**
 * Checks that the event numbers of one session are consecutive.
 *
 * The gateway promises 1, 2, 3, … each once. This module verifies the promise: it classifies each number as new,
 * duplicate or after a gap. It also keeps the newest number and the epoch, which a resume needs.
 */
/** The position before the first subscription. */
export const UNPLACED = {
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
export function place(position, frame) {
    if (position.seq === null)
        return { ...position, seq: frame.seq, epoch: frame.epoch };
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
export function isForgotten(position, frame) {
    const isOfThisLog = frame.epoch === position.epoch && frame.reason !== "ahead";
    return position.seq !== null && !(isOfThisLog && frame.seq <= position.seq);
}
/** Advances the position over `events`. `fresh` contains the new ones, in the order of arrival. */
export function advance(position, events) {
    let { seq, gaps, duplicates } = position;
    const fresh = [];
    for (const event of events) {
        if (!Number.isSafeInteger(event?.seq))
            continue;
        if (seq !== null && event.seq <= seq) {
            duplicates += 1;
            continue;
        }
        if (seq !== null)
            gaps += event.seq - seq - 1;
        seq = event.seq;
        fresh.push(event);
    }
    return { position: { ...position, seq, gaps, duplicates, received: position.received + fresh.length }, fresh };
}
/** Returns the `resume` field of a `subscribe` frame; null before the first subscription. */
export function resumePoint({ seq, epoch }, token) {
    return seq === null ? null : { seq, ...(epoch === null ? {} : { epoch }), ...(token === null ? {} : { token }) };
}
