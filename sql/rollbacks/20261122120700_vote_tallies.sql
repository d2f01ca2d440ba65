-- Takes the live counts away. The movies' totals stay as they are and are recounted by the way up.

drop trigger voting_sessions_tallied_updated on public.voting_sessions;
drop trigger voting_sessions_tallied_created on public.voting_sessions;
drop trigger voting_sessions_uncounted on public.voting_sessions;
drop trigger votes_withdrawn on public.votes;
drop trigger votes_changed on public.votes;
drop trigger votes_cast on public.votes;
drop function usher.on_voting_deleted();
drop function usher.on_votings_tallied();
drop function usher.bump_votings(uuid[]);
drop function usher.on_votes_withdrawn();
drop function usher.on_votes_changed();
drop function usher.on_votes_cast();
drop function usher.record_votes(uuid[], uuid[], bigint[]);
drop function usher.apply_votes(uuid[], uuid[], bigint[]);
drop function usher.add_to_totals(uuid[], bigint[]);
drop function usher.tally_slot();
drop table usher.vote_tallies;
