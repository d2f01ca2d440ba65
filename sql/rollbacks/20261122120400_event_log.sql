-- Takes the log away.

drop trigger movie_sessions_deleted on public.movie_sessions;
drop trigger movie_sessions_created on public.movie_sessions;
drop function usher.on_sessions_deleted();
drop function usher.on_sessions_created();
drop function usher.append_event(uuid, text, json);
drop function usher.append_events(uuid, text, uuid[], json[]);
drop function usher.channel_names();
drop table usher.channels;
drop function usher.wire_event(bigint, text, timestamptz, json);
drop table usher.session_events;
drop table usher.session_heads;
