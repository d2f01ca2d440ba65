// Checks for itself that the numbers of one session's log are consecutive.
//
// The server promises 1, 2, 3, … each once. This module believes nothing: it sorts each arriving number into
// fresh, duplicate or gap, and remembers where the client stands, which is all that a resume needs.

/** Where a client stands before it has subscribed. */
export function unplaced() {
  return {
    seq: null, // The newest number seen; null before the first subscription.
    epoch: null,
    token: null,
    received: 0,
    gaps: 0, // Numbers that never came, not the number of holes.
    duplicates: 0,
    resumes: 0,
    resets: 0,
    recovered: 0, // Events that followed a resume before the client was level again.
  };
}

/** Takes the starting point from a `subscribed` frame. */
export function place(position, frame) {
  const resumed = frame.recovered === true && position.seq !== null;
  const next = {
    ...position,
    epoch: frame.epoch ?? position.epoch,
    token: frame.resume_token ?? position.token,
  };
  if (resumed) {
    // A server that says `recovered` and starts elsewhere has left a hole, whatever it calls it.
    next.resumes += 1;
    next.gaps += Math.max(0, frame.seq - position.seq);
  } else if (position.seq !== null) {
    next.resets += 1;
  }
  next.seq = resumed ? Math.max(position.seq, frame.seq) : frame.seq;
  return next;
}

/** Takes a new starting point from a `reset` frame. */
export function displace(position, frame) {
  return { ...position, seq: frame.seq, epoch: frame.epoch ?? position.epoch, resets: position.resets + 1 };
}

/** Whether events after `frame.seq` leave a hole behind what was seen until `position`. */
export function leavesHole(position, frame) {
  if (position.seq === null) return false;
  return frame.epoch !== position.epoch || frame.seq > position.seq;
}

/** Advances over `events` and returns the fresh ones, in the order in which they came. */
export function advance(position, events) {
  let { seq, gaps, duplicates } = position;
  const fresh = [];
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
  const received = position.received + fresh.length;
  return { position: { ...position, seq, gaps, duplicates, received }, fresh };
}

/** The `resume` field of a `subscribe` frame, or null when there is nothing to resume. */
export function resumeOf(position) {
  if (position.seq === null) return null;
  const resume = { seq: position.seq };
  if (position.epoch) resume.epoch = position.epoch;
  if (position.token) resume.token = position.token;
  return resume;
}
