// Made by `npm run pages` from client/src. Change it there.
/**
 * Checks for itself that the numbers of one session's log are consecutive.
 *
 * The gateway promises 1, 2, 3, … each once. This module believes nothing: it sorts each arriving number into fresh,
 * duplicate or gap, and remembers where the client stands, which is all that a resume needs.
 */
/** Where a client stands before it has subscribed. */
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
/** Takes the starting point from a `subscribed` or `reset` frame. */
export function place(position, frame) {
    if (position.seq === null)
        return { ...position, seq: frame.seq, epoch: frame.epoch };
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
export function isForgotten(position, frame) {
    const isOfThisLog = frame.epoch === position.epoch && frame.reason !== "ahead";
    return position.seq !== null && !(isOfThisLog && frame.seq <= position.seq);
}
/** Advances over `events`; `fresh` are those that were not seen yet, in the order in which they came. */
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
/** What a `subscribe` frame says about where to go on; null when there is nothing to go on from. */
export function resumePoint({ seq, epoch }, token) {
    return seq === null ? null : { seq, ...(epoch === null ? {} : { epoch }), ...(token === null ? {} : { token }) };
}
