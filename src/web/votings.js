// Folds tallies, voting events and the viewer's own choice into the votings of one session.
//
// Pure. Counts are absolute and a tally's version only grows, so an older frame is ignored; an open tally never
// reopens a voting that its event has closed. A choice is shown at once and taken back if it is refused.

/** Votings kept: the open one and the latest closed ones. */
const VOTINGS_MAX = 6;

/** The votings of a `subscribed` frame, keeping a choice that is still on its way. */
export function fromSnapshot(frames, earlier) {
  const votings = (frames ?? []).filter((frame) => frame?.voting);
  return arrange(
    votings.map((frame) => {
      const before = earlier.find((voting) => voting.id === frame.voting);
      const base = withTally(blank(frame.voting), frame);
      // A resume that was answered from memory does not say: what was known stands.
      const said = frame.mine === undefined ? (before?.wish?.before ?? before?.mine ?? null) : frame.mine;
      return {
        ...described(base, frame),
        // A choice that is on its way goes out again, and is shown until it is answered.
        mine: before?.wish ? before.wish.movie : said,
        wish: before?.wish ? { movie: before.wish.movie, before: said } : null,
        opened: before?.opened ?? 0,
      };
    }),
  );
}

/** Folds one `tally` frame. */
export function foldTally(votings, frame) {
  return arrange(
    upsert(votings, frame.voting, (voting) => {
      if ((frame.version ?? 0) < voting.version) return voting;
      if (voting.status === "closed" && frame.status === "open") return voting;
      return withTally(voting, frame);
    }),
  );
}

/** Folds one `voting.*` event of the log. */
export function foldVotingEvent(votings, event) {
  const data = event.data ?? {};
  if (!data.id) return votings;
  if (data.state === "draft") return votings.filter((voting) => voting.id !== data.id);
  return arrange(
    upsert(votings, data.id, (voting) => {
      const next = described({ ...voting, status: data.state ?? voting.status, opened: event.seq }, data);
      return event.type === "voting.closed" ? withResults({ ...next, status: "closed" }, data.results) : next;
    }),
  );
}

/** Shows a choice before the database has confirmed it. `movie` null withdraws. */
export function wishVote(votings, voting, movie) {
  return change(votings, voting, (item) => ({
    ...item,
    wish: { movie, before: item.wish?.before ?? item.mine },
    mine: movie,
  }));
}

/** Confirms a choice, unless a later one is on its way. */
export function confirmVote(votings, voting, movie) {
  return change(votings, voting, (item) => {
    if (item.wish && item.wish.movie !== movie) return { ...item, wish: { ...item.wish, before: movie } };
    return { ...item, wish: null, mine: movie };
  });
}

/** Takes a refused choice back. */
export function refuseVote(votings, voting, movie) {
  return change(votings, voting, (item) => {
    if (!item.wish || item.wish.movie !== movie) return item;
    return { ...item, wish: null, mine: item.wish.before };
  });
}

/** What the panel shows: the open voting, else the one that closed last. */
export function currentVoting(votings) {
  return votings[0] ?? null;
}

/** The standing of one voting: rows in ballot order with share and place, and who leads. */
export function standing(voting) {
  const votes = voting.counts ? new Map(voting.counts.map((count) => [count.movie, count.votes])) : null;
  const most = votes ? Math.max(0, ...votes.values()) : 0;
  const rows = voting.options.map((option) => {
    const count = votes ? (votes.get(option.movie) ?? 0) : null;
    return {
      ...option,
      votes: count,
      share: count === null || voting.total === 0 ? 0 : count / voting.total,
      leads: most > 0 && count === most,
      mine: voting.mine === option.movie,
    };
  });
  return { rows, hidden: votes === null, winners: rows.filter((row) => row.leads) };
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
    closesAt: null,
    visibility: "live",
    allowChange: true,
    mine: null,
    wish: null,
    opened: 0,
  };
}

function described(voting, source) {
  const options = Array.isArray(source.options) ? source.options : null;
  return {
    ...voting,
    question: source.question ?? voting.question,
    options: options
      ? options.map((option) => ({
          movie: option.movie,
          title: option.title ?? "Untitled",
          poster: option.poster ?? null,
        }))
      : voting.options,
    closesAt: "closes_at" in source ? parseTime(source.closes_at) : voting.closesAt,
    visibility: source.results_visibility ?? voting.visibility,
    allowChange: source.allow_change ?? voting.allowChange,
  };
}

function withTally(voting, frame) {
  return {
    ...voting,
    status: frame.status ?? voting.status,
    version: frame.version ?? voting.version,
    total: frame.total ?? voting.total,
    counts: Array.isArray(frame.counts) ? frame.counts : null,
    closesAt: "closes_at" in frame ? parseTime(frame.closes_at) : voting.closesAt,
  };
}

function withResults(voting, results) {
  const counts = Array.isArray(results) ? results : results?.counts;
  if (!Array.isArray(counts)) return voting;
  const total = results.total ?? counts.reduce((sum, count) => sum + (count.votes ?? 0), 0);
  return { ...voting, counts, total };
}

function parseTime(text) {
  const time = Date.parse(text ?? "");
  return Number.isNaN(time) ? null : time;
}

function upsert(votings, id, fold) {
  if (!id) return votings;
  if (votings.some((voting) => voting.id === id)) return change(votings, id, fold);
  return [fold(blank(id)), ...votings];
}

function change(votings, id, fold) {
  return votings.map((voting) => (voting.id === id ? fold(voting) : voting));
}

// Open first, then as given: the server sends the latest closed one first, and a new one is put in front.
function arrange(votings) {
  const open = votings.filter((voting) => voting.status === "open");
  const rest = votings.filter((voting) => voting.status !== "open");
  return [...open, ...rest].slice(0, VOTINGS_MAX);
}
