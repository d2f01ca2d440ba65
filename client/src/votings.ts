/**
 * Combines tallies, poll events and the viewer's own vote into the polls of one session.
 *
 * Pure. Counts are absolute and a tally's version only grows, so this module ignores an older frame. A tally never
 * reopens a poll that its event has closed. The state shows a vote immediately, and reverts it if the gateway refuses
 * it.
 */

import type { Count, LogEvent, TallyFrame, VotingFrame, VotingOption, VotingRow } from "./wire.ts";

/** The most polls that the state keeps: the open ones first, then the latest closed ones. */
export const VOTINGS_MAX = 16;

/** A poll, as this viewer may see it. */
export interface Voting {
  readonly id: string;
  /** `open` or `closed`. */
  readonly status: string;
  readonly question: string;
  /** The options, in ballot order. */
  readonly options: readonly VotingOption[];
  readonly total: number;
  /** Null while the counts are hidden from this viewer. */
  readonly counts: readonly Count[] | null;
  readonly version: number;
  readonly closes_at: string | null;
  readonly results_visibility: string;
  readonly allow_change: boolean;
  /** The viewer's own vote: a movie, or null. It includes a vote that the gateway has not confirmed yet. */
  readonly mine: string | null;
  /** The vote that the gateway has not confirmed yet, and the confirmed one `before` it; null if none waits. */
  readonly wish: { readonly movie: string | null; readonly before: string | null } | null;
}

/** One option of a poll with its result. */
export interface StandingRow extends VotingOption {
  /** Null while the counts are hidden. */
  readonly votes: number | null;
  /** The share of all votes, from 0 to 1. */
  readonly share: number;
  readonly leads: boolean;
  readonly mine: boolean;
}

/** Applies the polls of a `subscribed` or `reset` frame. Keeps an unconfirmed vote. */
export function foldSnapshot(votings: readonly Voting[], frames: readonly VotingFrame[]): readonly Voting[] {
  return arrange(
    frames.map((frame) => {
      const before = votings.find((voting) => voting.id === frame.voting);
      // A resume from the gateway's memory has no `mine`. The known vote stays.
      const said = frame.mine === undefined ? (before?.wish?.before ?? before?.mine ?? null) : frame.mine;
      const wish = before?.wish ? { movie: before.wish.movie, before: said } : null;
      const mine = wish ? wish.movie : said;
      return { ...described({ ...(before ?? blank(frame.voting)), ...counted(frame) }, frame), mine, wish };
    }),
  );
}

/** Applies one `tally` frame. */
export function foldTally(votings: readonly Voting[], frame: TallyFrame): readonly Voting[] {
  const known = votings.find((voting) => voting.id === frame.voting);
  if (known && (frame.version < known.version || (known.status === "closed" && frame.status === "open")))
    return votings;
  return upsert(votings, frame.voting, (voting) => ({ ...voting, ...counted(frame) }));
}

/** Applies one `voting.*` event of the log. */
export function foldVotingEvent(votings: readonly Voting[], event: LogEvent): readonly Voting[] {
  switch (event.type) {
    case "voting.deleted":
      return votings.filter((voting) => voting.id !== event.data.id);
    case "voting.opened":
    case "voting.updated":
    case "voting.closed": {
      const { data } = event;
      if (data.state === "draft") return votings.filter((voting) => voting.id !== data.id);
      return upsert(votings, data.id, (voting) => ({
        ...described(voting, data),
        status: data.state,
        ...(data.results && { total: data.results.total, counts: data.results.counts }),
      }));
    }
    default:
      return votings;
  }
}

/** Shows a vote before the gateway confirms it; null withdraws the vote. */
export function wishVote(votings: readonly Voting[], id: string, movie: string | null): readonly Voting[] {
  return change(votings, id, (voting) => ({
    ...voting,
    wish: { movie, before: voting.wish ? voting.wish.before : voting.mine },
    mine: movie,
  }));
}

/** Confirms a vote. A later unconfirmed vote stays on screen. */
export function confirmVote(votings: readonly Voting[], id: string, movie: string | null): readonly Voting[] {
  return change(votings, id, (voting) =>
    voting.wish && voting.wish.movie !== movie
      ? { ...voting, wish: { ...voting.wish, before: movie } }
      : { ...voting, wish: null, mine: movie },
  );
}

/** Reverts a refused vote to the one before it. */
export function refuseVote(votings: readonly Voting[], id: string, movie: string | null): readonly Voting[] {
  return change(votings, id, (voting) =>
    voting.wish && voting.wish.movie === movie ? { ...voting, wish: null, mine: voting.wish.before } : voting,
  );
}

/** Applies the viewer's own vote from a `mine` frame. An unconfirmed vote stays on screen. */
export function foldMine(votings: readonly Voting[], id: string, movie: string | null): readonly Voting[] {
  return change(votings, id, (voting) =>
    voting.wish ? { ...voting, wish: { ...voting.wish, before: movie } } : { ...voting, mine: movie },
  );
}

/** Removes the viewer's own votes from all polls. */
export function forgetVotes(votings: readonly Voting[]): readonly Voting[] {
  return votings.map((voting) => ({ ...voting, mine: null, wish: null }));
}

/** Returns the results of a poll in ballot order: votes, share, and which option leads. */
export function standing(voting: Voting): readonly StandingRow[] {
  const votes = voting.counts && new Map(voting.counts.map((count) => [count.movie, count.votes]));
  const most = Math.max(1, ...(votes?.values() ?? []));
  return voting.options.map((option) => {
    const own = votes ? (votes.get(option.movie) ?? 0) : null;
    const share = own === null || voting.total === 0 ? 0 : own / voting.total;
    return { ...option, votes: own, share, leads: own === most, mine: voting.mine === option.movie };
  });
}

function blank(id: string): Voting {
  return {
    id,
    status: "open",
    question: "",
    options: [],
    total: 0,
    counts: null,
    version: -1,
    closes_at: null,
    results_visibility: "live",
    allow_change: true,
    mine: null,
    wish: null,
  };
}

function described(voting: Voting, source: Partial<VotingFrame & VotingRow>): Voting {
  return {
    ...voting,
    question: source.question ?? voting.question,
    options: source.options ?? voting.options,
    closes_at: source.closes_at === undefined ? voting.closes_at : source.closes_at,
    results_visibility: source.results_visibility ?? voting.results_visibility,
    allow_change: source.allow_change ?? voting.allow_change,
  };
}

function counted({ status, version, total, counts, closes_at }: TallyFrame) {
  return { status, version, total, counts, closes_at };
}

function upsert(votings: readonly Voting[], id: string, act: (voting: Voting) => Voting): readonly Voting[] {
  const known = votings.some((voting) => voting.id === id);
  return arrange(known ? change(votings, id, act) : [act(blank(id)), ...votings]);
}

function change(votings: readonly Voting[], id: string, act: (voting: Voting) => Voting): readonly Voting[] {
  return votings.map((voting) => (voting.id === id ? act(voting) : voting));
}

/** Puts open polls first and limits the number. Otherwise keeps the order, which has the latest closed poll first. */
function arrange(votings: readonly Voting[]): readonly Voting[] {
  const open = votings.filter((voting) => voting.status === "open");
  return [...open, ...votings.filter((voting) => voting.status !== "open")].slice(0, VOTINGS_MAX);
}
