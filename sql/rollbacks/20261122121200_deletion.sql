-- Removes the handling of deletions: they take locks in the order of rows, and the log keeps names of deleted people.

drop trigger profiles_deleting on public.profiles;
drop trigger movie_sessions_deleting on public.movie_sessions;
drop function usher.on_profile_deleting();
drop function usher.on_session_deleting();
drop function usher.lock_for_deletion(uuid[], uuid);
drop function usher.forget_people(uuid[]);
drop function usher.forget_in(json, uuid);
drop function usher.logs_naming(uuid[]);
drop index usher.session_events_person_idx;
