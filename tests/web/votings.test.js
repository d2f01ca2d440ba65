import assert from "node:assert/strict";
import { test } from "node:test";
import {
  confirmVote,
  currentVoting,
  foldTally,
  foldVotingEvent,
  fromSnapshot,
  refuseVote,
  standing,
  wishVote,
} from "../../src/web/votings.js";
import { VOTING } from "./fakes.js";

const options = [
  { movie: "a", title: "A", poster: null },
  { movie: "b", title: "B", poster: null },
];
const tally = (more = {}) => ({
  voting: VOTING,
  status: "open",
  version: 5,
  total: 4,
  counts: [
    { movie: "a", votes: 3 },
    { movie: "b", votes: 1 },
  ],
  closes_at: null,
  ...more,
});
const open = (more) => fromSnapshot([{ ...tally(more), question: "Q?", options, mine: "a" }], []);

test("a tally is taken whole, an older version is ignored", () => {
  const votings = foldTally(open(), tally({ version: 7, total: 6 }));
  assert.equal(votings[0].total, 6);
  assert.equal(foldTally(votings, tally({ version: 6, total: 5 }))[0].total, 6);
});

test("a late open tally does not reopen a closed voting", () => {
  const closed = foldVotingEvent(open(), {
    seq: 9,
    type: "voting.closed",
    data: { id: VOTING, state: "closed" },
  });
  assert.equal(foldTally(closed, tally({ version: 9 }))[0].status, "closed");
});

test("closing shows the final results, hidden until then", () => {
  const hidden = open({ counts: null });
  assert.equal(standing(hidden[0]).hidden, true);
  const results = {
    total: 4,
    counts: [
      { movie: "a", votes: 1 },
      { movie: "b", votes: 3 },
    ],
  };
  const [voting] = foldVotingEvent(hidden, {
    seq: 9,
    type: "voting.closed",
    data: { id: VOTING, state: "closed", results },
  });
  assert.deepEqual(
    standing(voting).winners.map((row) => row.movie),
    ["b"],
  );
});

test("a choice is shown at once, and taken back when it is refused", () => {
  const wished = wishVote(open(), VOTING, "b");
  assert.equal(wished[0].mine, "b");
  assert.equal(refuseVote(wished, VOTING, "b")[0].mine, "a");
  assert.deepEqual(
    [confirmVote(wished, VOTING, "b")[0].mine, confirmVote(wished, VOTING, "b")[0].wish],
    ["b", null],
  );
});

test("the answer to an earlier choice does not undo a later one", () => {
  const twice = wishVote(wishVote(open(), VOTING, "b"), VOTING, null);
  const answered = confirmVote(twice, VOTING, "b");
  assert.equal(answered[0].mine, null);
  assert.equal(refuseVote(answered, VOTING, null)[0].mine, "b");
});

test("a choice that is on its way survives a reconnect", () => {
  const again = fromSnapshot(
    [{ ...tally(), question: "Q?", options, mine: null }],
    wishVote(open(), VOTING, "b"),
  );
  assert.deepEqual([again[0].mine, again[0].wish], ["b", { movie: "b", before: null }]);
});

test("the open voting is the current one, drafts are never shown", () => {
  const opened = foldVotingEvent(open({ status: "closed" }), {
    seq: 9,
    type: "voting.opened",
    data: { id: "v2", state: "open", question: "Next?", options },
  });
  assert.equal(currentVoting(opened).id, "v2");
  assert.equal(
    foldVotingEvent(opened, { seq: 10, type: "voting.updated", data: { id: "v2", state: "draft" } }).length,
    1,
  );
});

test("nobody leads where nobody has voted", () => {
  const { rows, winners } = standing(open({ total: 0, counts: [] })[0]);
  assert.deepEqual([rows.map((row) => row.share), winners.length], [[0, 0], 0]);
});

test("a resume that does not say whom one voted for leaves the vote as it was known", () => {
  const resumed = fromSnapshot([{ ...tally(), question: "Q?", options }], open());
  assert.equal(resumed[0].mine, "a");
  const withdrawn = fromSnapshot([{ ...tally(), question: "Q?", options, mine: null }], open());
  assert.equal(withdrawn[0].mine, null);
});
