// The pure modules, with example and property tests.

import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { addPending, type Chat, emptyChat, foldEvents, foldOlder, MESSAGES_MAX, PENDING_MAX } from "../src/chat.ts";
import { advance, isForgotten, place, resumePoint, UNPLACED } from "../src/continuity.ts";
import { type Action, INITIAL_STATE, reduce, type SessionState } from "../src/state.ts";
import { foldTally, foldVotingEvent, standing, VOTINGS_MAX, type Voting } from "../src/votings.ts";
import type { LogEvent } from "../src/wire.ts";
import { chat, events, FIRST, SECOND, SESSION, subscribed, VOTING, voting } from "./fakes.ts";

describe("continuity", () => {
  const numbers = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 });

  test("new numbers only grow, and every number is new, a duplicate or missing", () => {
    fc.assert(
      fc.property(numbers, fc.nat(20), (seqs, start) => {
        const from = place(UNPLACED, subscribed({ seq: start }));
        const { position, fresh } = advance(
          from,
          seqs.map((seq) => chat(seq)),
        );
        const seen = fresh.map((event) => event.seq);
        expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
        expect(position.received + position.duplicates).toBe(seqs.length);
        expect((position.seq ?? 0) - start).toBe(position.received + position.gaps);
      }),
    );
  });

  test("the split of events into frames does not matter", () => {
    fc.assert(
      fc.property(numbers, fc.nat(60), (seqs, cut) => {
        const from = place(UNPLACED, subscribed({ seq: 3 }));
        const all = seqs.map((seq) => chat(seq));
        const first = advance(from, all.slice(0, cut));
        const second = advance(first.position, all.slice(cut));
        const whole = advance(from, all);
        expect(second.position).toEqual(whole.position);
        expect([...first.fresh, ...second.fresh]).toEqual(whole.fresh);
      }),
    );
  });

  test("a resume that starts at a later number counts as a gap", () => {
    const position = { ...UNPLACED, seq: 5, epoch: "e1" };
    expect(place(position, subscribed({ seq: 8, recovered: true }))).toMatchObject({ gaps: 3, resumes: 1, seq: 8 });
    expect(place(position, subscribed({ seq: 5, recovered: true }))).toMatchObject({ gaps: 0, resumes: 1, seq: 5 });
  });

  test("a fresh start forgets earlier events if it starts later, in another epoch, or with ahead", () => {
    const position = { ...UNPLACED, seq: 5, epoch: "e1" };
    expect(isForgotten(position, subscribed({ seq: 5 }))).toBe(false);
    expect(isForgotten(position, subscribed({ seq: 6 }))).toBe(true);
    expect(isForgotten(position, subscribed({ seq: 2, epoch: "e2" }))).toBe(true);
    expect(isForgotten(position, subscribed({ seq: 2, reason: "ahead" }))).toBe(true);
    expect(isForgotten(position, subscribed({ seq: 2, reason: "too_old" }))).toBe(false);
    expect(isForgotten(UNPLACED, subscribed({ seq: 6 }))).toBe(false);
  });

  test("resumePoint is null before the first subscription", () => {
    expect(resumePoint(UNPLACED, "t")).toBe(null);
    expect(resumePoint({ ...UNPLACED, seq: 0 }, null)).toEqual({ seq: 0 });
    expect(resumePoint({ ...UNPLACED, seq: 7, epoch: "e" }, "t")).toEqual({ seq: 7, epoch: "e", token: "t" });
  });
});

describe("chat", () => {
  test("edits and deletions change their message, and an edit does not restore a deleted one", () => {
    const before = foldEvents(emptyChat(), [chat(1), chat(2)]);
    const row = { ...chat(1).data, body: "edited", edited_at: "now" };
    const edited = foldEvents(before, [{ seq: 3, type: "chat.updated", at: "", data: row } as LogEvent]);
    expect(edited.messages[0]).toMatchObject({ body: "edited", seq: 1, author: { username: "nora" } });
    expect(edited.messages[1]).toBe(before.messages[1]);
    const gone = { id: "m1", session_id: SESSION, deleted_at: "now", deleted_by: "mod" };
    const deleted = foldEvents(edited, [
      { seq: 4, type: "chat.deleted", at: "", data: gone },
      { seq: 5, type: "chat.updated", at: "", data: row } as LogEvent,
    ]);
    expect(deleted.messages[0]).toMatchObject({ body: null, deleted_by: "mod" });
  });

  test("an event about a message outside the window changes nothing", () => {
    const before = foldEvents(emptyChat(), [chat(1)]);
    const gone = { id: "m0", session_id: SESSION, deleted_at: "now", deleted_by: null };
    expect(foldEvents(before, [{ seq: 2, type: "chat.deleted", at: "", data: gone }]).messages).toEqual(
      before.messages,
    );
    expect(foldEvents(before, [{ seq: 2, type: "member.banned", at: "", data: { user_id: "u" } }])).toBe(before);
  });

  test("the window is bounded and in order, has each message once, and `before` is its start", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("live" as const), count: fc.integer({ min: 1, max: 400 }) }),
      fc.record({ kind: fc.constant("older" as const), count: fc.integer({ min: 0, max: 100 }) }),
      fc.record({ kind: fc.constant("newest" as const), count: fc.constant(0) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        let window: Chat = emptyChat(1000);
        let head = 1000;
        for (const { kind, count } of steps) {
          if (kind === "live") {
            const fresh = Array.from({ length: count }, (_, index) => chat(head + 1 + index));
            head += count;
            window = foldEvents(window, fresh);
          } else if (kind === "older") {
            const before = Number(window.before ?? 1);
            const length = Math.min(count, before - 1);
            const messages = Array.from({ length }, (_, index) => ({
              ...(chat(before - 1 - index) as Extract<LogEvent, { type: "chat.created" }>).data,
              seq: before - 1 - index,
            }));
            window = foldOlder(window, { messages, next: length === before - 1 ? null : String(before - length) });
          } else {
            window = reduce({ ...INITIAL_STATE, chat: window }, { type: "newest" }).chat;
          }
          const seqs = window.messages.map((message) => message.seq);
          expect(seqs.length).toBeLessThanOrEqual(window.readsBack ? 2000 : MESSAGES_MAX);
          expect(seqs).toEqual(seqs.map((_, index) => head - seqs.length + 1 + index));
          if (seqs.length > 0) expect(Number(window.before ?? 1)).toBe(seqs[0]);
        }
      }),
      { numRuns: 50 },
    );
  });

  test("the window does not take a page that does not fit", () => {
    const messages = Array.from({ length: 100 }, (_, index) => ({
      ...(chat(index + 1) as Extract<LogEvent, { type: "chat.created" }>).data,
      seq: null,
    }));
    let window = emptyChat(5000);
    for (let count = 0; count < 30; count += 1) window = foldOlder(window, { messages, next: `${count}` });
    expect([window.messages.length, window.before]).toEqual([2000, "19"]);
  });

  test("a new pending message removes the oldest failed one, never an unanswered one", () => {
    let state = { ...INITIAL_STATE };
    const code = "slow_mode";
    for (let count = 0; count < 50; count += 1) {
      const message = { nonce: `n${count}`, body: "x", reply_to: null, created_at: "" };
      state = { ...state, chat: addPending(state.chat, message) };
      if (count % 2 === 0)
        state = reduce(state, {
          type: "send_failed",
          nonce: message.nonce,
          error: Object.assign(new Error(), { code }),
        });
    }
    expect(state.chat.pending.length).toBe(PENDING_MAX);
    expect(state.chat.pending.filter((item) => item.status === "sending")).toHaveLength(25);
  });
});

describe("polls", () => {
  const open = foldTally([], voting({ version: 5, total: 3 }));

  test("an older tally is ignored, and an open tally does not reopen a closed poll", () => {
    expect(foldTally(open, voting({ version: 4, total: 2 }))).toBe(open);
    const closed = foldVotingEvent(open, votingEvent("voting.closed", { state: "closed" }));
    expect(closed[0]).toMatchObject({ status: "closed", total: 7, counts: [{ movie: FIRST, votes: 7 }] });
    expect(foldTally(closed, voting({ version: 6, total: 4 }))).toBe(closed);
  });

  test("the newest tally counts, in any order of arrival", () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([1, 2, 3, 4, 5, 6, 7, 8], { minLength: 1 }), (versions) => {
        const end = versions.reduce<readonly Voting[]>(
          (all, version) => foldTally(all, voting({ version, total: version })),
          [],
        );
        expect(end[0]?.total).toBe(Math.max(...versions));
      }),
    );
  });

  test("a draft or deleted poll disappears, and the number of polls is bounded", () => {
    expect(foldVotingEvent(open, votingEvent("voting.updated", { state: "draft" }))).toEqual([]);
    expect(foldVotingEvent(open, { seq: 2, type: "voting.deleted", at: "", data: { id: VOTING } })).toEqual([]);
    let many: readonly Voting[] = [];
    for (let count = 0; count < 40; count += 1)
      many = foldTally(many, voting({ voting: `v${count}`, status: "closed" }));
    expect([many.length, many[0]?.id]).toEqual([VOTINGS_MAX, "v39"]);
    expect(foldTally(many, voting({ voting: "v0" }))[0]?.id).toBe("v0");
  });

  test("results have shares and leaders, and hidden counts have neither", () => {
    const counts = [
      { movie: SECOND, votes: 3 },
      { movie: FIRST, votes: 1 },
    ];
    const [shown] = foldTally(described(), { ...voting({ version: 2, total: 4 }), counts });
    expect(shown && standing(shown)).toMatchObject([
      { movie: FIRST, votes: 1, share: 0.25, leads: false },
      { movie: SECOND, votes: 3, share: 0.75, leads: true },
    ]);
    const [hidden] = foldTally(described(), voting({ version: 2, total: 4, counts: null }));
    expect(hidden && standing(hidden)).toMatchObject([{ votes: null, share: 0, leads: false }, { votes: null }]);
    const [empty] = described();
    expect(empty && standing(empty).some((row) => row.leads)).toBe(false);
  });

  function described() {
    return reduce(INITIAL_STATE, { type: "frame", frame: subscribed({ votings: [voting()] }) }).votings;
  }

  function votingEvent(type: "voting.closed" | "voting.updated", more: object): LogEvent {
    const results = type === "voting.closed" ? { total: 7, counts: [{ movie: FIRST, votes: 7 }] } : null;
    return { seq: 1, type, at: "", data: { id: VOTING, results, ...more } } as LogEvent;
  }
});

describe("the whole reducer", () => {
  const seq = fc.integer({ min: 1, max: 30 });
  const movie = fc.constantFrom(FIRST, SECOND, null);
  const nonce = fc.constantFrom("n1", "n2", "n3");
  const action: fc.Arbitrary<Action> = fc.oneof(
    fc.record({ seq, recovered: fc.boolean() }).map((more) => frame(subscribed({ ...more, head: more.seq + 2 }))),
    fc
      .uniqueArray(seq, { maxLength: 5 })
      .map((seqs) => frame(events(...seqs.sort((a, b) => a - b).map((seq) => chat(seq))))),
    fc.record({ version: seq, total: seq }).map((more) => frame({ type: "tally", session: SESSION, ...voting(more) })),
    seq.map((count) => frame({ type: "viewers", session: SESSION, count })),
    seq.map((at) => frame({ ...subscribed({ seq: at }), type: "reset" })),
    fc.constantFrom<Action>({ type: "lost" }, { type: "connecting" }, { type: "newest" }),
    nonce.map((nonce) => ({ type: "send" as const, message: { nonce, body: "x", reply_to: null, created_at: "" } })),
    fc.record({ nonce, seq }).map(({ nonce, seq }) => ({ type: "sent" as const, nonce, seq, id: `m${seq}` })),
    fc
      .record({ type: fc.constantFrom("vote" as const, "voted" as const, "vote_failed" as const), movie })
      .map(({ type, movie }) => ({ type, voting: VOTING, movie })),
  );

  test("the state stays consistent after any sequence of actions", () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        let state: SessionState = INITIAL_STATE;
        for (const next of actions) {
          const before = state;
          state = Object.freeze(reduce(state, next));
          const seqs = state.chat.messages.map((message) => message.seq);
          expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => Number(a) - Number(b)));
          const nonces = state.chat.pending.map((item) => item.nonce);
          expect(nonces).toEqual([...new Set(nonces)]);
          for (const item of state.chat.pending)
            expect(item.seq === null || item.seq > (state.continuity.seq ?? 0) || next.type === "sent").toBe(true);
          for (const { mine, wish } of state.votings) expect(wish === null || wish.movie === mine).toBe(true);
          for (const count of ["received", "gaps", "duplicates", "resumes", "resets"] as const)
            expect(state.continuity[count]).toBeGreaterThanOrEqual(before.continuity[count]);
        }
      }),
      { numRuns: 500 },
    );
  });

  function frame(frame: Extract<Action, { type: "frame" }>["frame"]): Action {
    return { type: "frame", frame };
  }
});
