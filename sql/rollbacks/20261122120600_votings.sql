-- Removes the polls, their ballots and their votes.

drop table public.votes;
drop table public.voting_options;
drop table public.voting_sessions;
drop function usher.session_of(uuid);
drop function usher.moderates_voting(uuid, text[]);
drop function usher.guard_voting_request();
drop function usher.guard_voting_session();
drop function usher.count_votes(uuid);
drop function usher.guard_vote();
drop function usher.enter_ballot(uuid, boolean);
drop function usher.ballot_lock_key(uuid);
