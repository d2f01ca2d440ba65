import assert from "node:assert/strict";
import { test } from "node:test";
import { advance, place, resumeOf, unplaced } from "../../src/web/continuity.js";

const seqs = (...numbers) => numbers.map((seq) => ({ seq }));

test("consecutive numbers leave no gap and no duplicate", () => {
  const { position, fresh } = advance({ ...unplaced(), seq: 4 }, seqs(5, 6, 7));
  assert.equal(fresh.length, 3);
  assert.deepEqual([position.seq, position.gaps, position.duplicates], [7, 0, 0]);
});

test("a repeated number is counted and not delivered again", () => {
  const { position, fresh } = advance({ ...unplaced(), seq: 4 }, seqs(5, 5, 4, 6));
  assert.deepEqual(
    fresh.map((event) => event.seq),
    [5, 6],
  );
  assert.equal(position.duplicates, 2);
});

test("missing numbers are counted one by one", () => {
  const { position } = advance({ ...unplaced(), seq: 4 }, seqs(8, 10));
  assert.equal(position.gaps, 4);
});

test("a resume that starts further on than where the client stood is a gap", () => {
  const position = place({ ...unplaced(), seq: 4, epoch: "e" }, { seq: 6, epoch: "e", recovered: true });
  assert.deepEqual([position.seq, position.gaps, position.resumes], [6, 2, 1]);
});

test("events without a number are passed over", () => {
  assert.equal(advance({ ...unplaced(), seq: 1 }, [{}, null, { seq: "2" }]).fresh.length, 0);
});

test("random deliveries: fresh numbers rise, and every number is seen, missing or repeated", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  const random = lehmer(seed);
  for (let round = 0; round < 500; round += 1) {
    let state = { ...unplaced(), seq: 0 };
    const seen = [];
    let sent = 0;
    for (let i = 0; i < 20; i += 1) {
      const batch = seqs(
        ...Array.from({ length: 1 + Math.floor(random() * 4) }, () => 1 + Math.floor(random() * 60)),
      );
      sent += batch.length;
      const { position, fresh } = advance(state, batch);
      state = position;
      seen.push(...fresh.map((event) => event.seq));
    }
    assert.deepEqual(
      seen,
      [...new Set(seen)].sort((a, b) => a - b),
      `seed ${seed}`,
    );
    assert.equal(seen.length + state.gaps, state.seq, `seed ${seed}`);
    assert.equal(seen.length + state.duplicates, sent, `seed ${seed}`);
  }
});

test("a resume names number, epoch and token, and nothing when there is nothing", () => {
  assert.equal(resumeOf(unplaced()), null);
  assert.deepEqual(resumeOf({ ...unplaced(), seq: 9, epoch: "e", token: "t" }), {
    seq: 9,
    epoch: "e",
    token: "t",
  });
});

function lehmer(seed) {
  let state = (seed % 2147483646) + 1;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}
