import { useTally, useVote } from "@usher/client/react";

/** Shows the open poll, or else the one that closed last. */
export function Votes({ session }: { session: string }) {
  const tally = useTally(session);
  const { vote, canVote, isPending, error } = useVote(session);
  if (tally === undefined) return <section className="card">Loading the poll …</section>;
  if (tally === null) return <section className="card">No poll yet.</section>;
  return (
    <section className="card" aria-labelledby="question">
      <h2 id="question">{tally.question}</h2>
      <p>
        {tally.total} {tally.total === 1 ? "vote" : "votes"}
        {tally.status === "closed" && ", final result"}
      </p>
      <div className="ballot" aria-busy={isPending}>
        {tally.rows.map((row) => (
          <button
            key={row.movie}
            type="button"
            aria-pressed={row.mine}
            disabled={!canVote}
            onClick={() => vote(row.mine ? null : row.movie)}
          >
            <span className="bar" style={{ width: `${row.share * 100}%` }} />
            <span>{row.title}</span>
            <span className="votes">{row.votes ?? "hidden"}</span>
          </button>
        ))}
      </div>
      {error && <p role="alert">Your vote did not count: {error.message}</p>}
    </section>
  );
}
