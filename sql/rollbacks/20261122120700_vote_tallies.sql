-- Removes the live vote counts. The vote totals of movies keep their values until the migration counts them again.

drop trigger "00_usher_tallied" on public.voting_sessions;
drop trigger voting_sessions_deleting on public.voting_sessions;
drop trigger "00_usher_withdrawn" on public.votes;
drop trigger "00_usher_changed" on public.votes;
drop trigger "00_usher_cast" on public.votes;
drop function usher.update_vote_totals();
drop function usher.vote_total_differences(uuid[]);
drop function usher.on_voting_deleting();
drop function usher.on_voting_tallied();
drop function usher.on_vote_withdrawn();
drop function usher.on_vote_changed();
drop function usher.on_vote_cast();
drop function usher.apply_votes(uuid[], uuid[], bigint[]);
drop function usher.tally_slot();
drop table usher.movie_votes;
drop table usher.vote_total_changes;
drop table usher.vote_tallies;
