-- Removes the gateway's reads, and the database's epoch with them. The migration then begins a new epoch.

drop function usher.trim_events(interval, integer, integer);
drop function usher.trim_logs(interval, integer, integer);
drop function usher.close_due_voting(uuid);
drop function usher.due_votings(integer);
drop function usher.close_due_votings();
drop function usher.session_snapshot(uuid);
drop function usher.epoch();
drop table usher.identity;
drop function usher.heads(uuid[]);
drop function usher.events_after(uuid, bigint, integer, integer);
drop function usher.tallies(uuid[]);
drop function usher.voting_states(uuid[]);
drop function usher.my_votes(uuid);
drop function usher.admit(uuid);
