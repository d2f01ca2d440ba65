// Made by `npm run pages` from client/src. Change it there.
/**
 * Combines tallies, poll events and the viewer's own vote into the polls of one session.
 *
 * Pure. Counts are absolute and a tally's version only grows, so this module ignores an older frame. A tally never
 * reopens a poll that its event has closed. The state shows a vote immediately, and reverts it if the gateway refuses
 * it.
 */
/** The most polls that the state keeps: the open ones first, then the latest closed ones. */
export const VOTINGS_MAX = 16;
/** Applies the polls of a `subscribed` or `reset` frame. Keeps an unconfirmed vote. */
export function foldSnapshot(votings, frames) {
    return arrange(frames.map((frame) => {
        const before = votings.find((voting) => voting.id === frame.voting);
        // A resume from the gateway's memory has no `mine`. The known vote stays.
        const said = frame.mine === undefined ? (before?.wish?.before ?? before?.mine ?? null) : frame.mine;
        const wish = before?.wish ? { movie: before.wish.movie, before: said } : null;
        const mine = wish ? wish.movie : said;
        return { ...described({ ...(before ?? blank(frame.voting)), ...counted(frame) }, frame), mine, wish };
    }));
}
/** Applies one `tally` frame. */
export function foldTally(votings, frame) {
    const known = votings.find((voting) => voting.id === frame.voting);
    if (known && (frame.version < known.version || (known.status === "closed" && frame.status === "open")))
        return votings;
    return upsert(votings, frame.voting, (voting) => ({ ...voting, ...counted(frame) }));
}
/** Applies one `voting.*` event of the log. */
export function foldVotingEvent(votings, event) {
    switch (event.type) {
        case "voting.deleted":
            return votings.filter((voting) => voting.id !== event.data.id);
        case "voting.opened":
        case "voting.updated":
        case "voting.closed": {
            const { data } = event;
            if (data.state === "draft")
                return votings.filter((voting) => voting.id !== data.id);
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
export function wishVote(votings, id, movie) {
    return change(votings, id, (voting) => ({
        ...voting,
        wish: { movie, before: voting.wish ? voting.wish.before : voting.mine },
        mine: movie,
    }));
}
/** Confirms a vote. A later unconfirmed vote stays on screen. */
export function confirmVote(votings, id, movie) {
    return change(votings, id, (voting) => voting.wish && voting.wish.movie !== movie
        ? { ...voting, wish: { ...voting.wish, before: movie } }
        : { ...voting, wish: null, mine: movie });
}
/** Reverts a refused vote to the one before it. */
export function refuseVote(votings, id, movie) {
    return change(votings, id, (voting) => voting.wish && voting.wish.movie === movie ? { ...voting, wish: null, mine: voting.wish.before } : voting);
}
/** Applies the viewer's own vote from a `mine` frame. An unconfirmed vote stays on screen. */
export function foldMine(votings, id, movie) {
    return change(votings, id, (voting) => voting.wish ? { ...voting, wish: { ...voting.wish, before: movie } } : { ...voting, mine: movie });
}
/** Removes the viewer's own votes from all polls. */
export function forgetVotes(votings) {
    return votings.map((voting) => ({ ...voting, mine: null, wish: null }));
}
/** Returns the results of a poll in ballot order: votes, share, and which option leads. */
export function standing(voting) {
    const votes = voting.counts && new Map(voting.counts.map((count) => [count.movie, count.votes]));
    const most = Math.max(1, ...(votes?.values() ?? []));
    return voting.options.map((option) => {
        const own = votes ? (votes.get(option.movie) ?? 0) : null;
        const share = own === null || voting.total === 0 ? 0 : own / voting.total;
        return { ...option, votes: own, share, leads: own === most, mine: voting.mine === option.movie };
    });
}
function blank(id) {
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
function described(voting, source) {
    return {
        ...voting,
        question: source.question ?? voting.question,
        options: source.options ?? voting.options,
        closes_at: source.closes_at === undefined ? voting.closes_at : source.closes_at,
        results_visibility: source.results_visibility ?? voting.results_visibility,
        allow_change: source.allow_change ?? voting.allow_change,
    };
}
function counted({ status, version, total, counts, closes_at }) {
    return { status, version, total, counts, closes_at };
}
function upsert(votings, id, act) {
    const known = votings.some((voting) => voting.id === id);
    return arrange(known ? change(votings, id, act) : [act(blank(id)), ...votings]);
}
function change(votings, id, act) {
    return votings.map((voting) => (voting.id === id ? act(voting) : voting));
}
/** Puts open polls first and limits the number. Otherwise keeps the order, which has the latest closed poll first. */
function arrange(votings) {
    const open = votings.filter((voting) => voting.status === "open");
    return [...open, ...votings.filter((voting) => voting.status !== "open")].slice(0, VOTINGS_MAX);
}
