-- Deletions take their locks in the order of the rows again, and the log keeps the names of people who are gone.

drop trigger profiles_deleting on public.profiles;
drop trigger movie_sessions_deleting on public.movie_sessions;
drop function usher.on_profile_deleting();
drop function usher.on_session_deleting();
drop function usher.lock_for_deletion(uuid[], uuid);
drop function usher.forget_people(uuid[]);
drop function usher.forget_in(json, uuid);
drop function usher.logs_naming(uuid[]);
drop index usher.session_events_person_idx;
