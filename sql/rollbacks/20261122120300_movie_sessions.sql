-- Removes the sessions, their members and their bans.

drop table public.session_bans;
drop table public.session_members;
drop table public.movie_sessions;
drop function usher.guard_session_ban();
drop function usher.guard_movie_session();
drop function usher.require_writer(uuid);
drop function usher.standing(uuid);
drop function usher.outranks(uuid, uuid);
drop function usher.owns_session(uuid);
drop function usher.banned_sessions();
drop function usher.moderated_sessions();
drop function usher.joined_sessions();
