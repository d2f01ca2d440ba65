-- Removes the event log.

drop trigger "00_usher_deleted" on public.movie_sessions;
drop trigger movie_sessions_created on public.movie_sessions;
drop table usher.pending_votes;
drop table usher.pending_events;
drop table usher.pending_transactions;
drop function usher.on_session_deleted();
drop function usher.on_sessions_created();
drop function usher.on_commit();
drop function usher.settle();
drop function usher.settle_events(xid8, boolean);
drop function usher.prepare_settlement(xid8);
drop function usher.fold_events(xid8);
drop function usher.event_data(text, uuid);
drop function usher.append_event(uuid, text, json);
drop function usher.append_to_logs(uuid[], text[], uuid[], json[], integer);
drop function usher.append_to_log(uuid, text, uuid, json);
drop function usher.record_vote(uuid, uuid, bigint);
drop function usher.gather_events();
drop function usher.expect_events();
drop function usher.record_event(uuid, text, uuid, json);
drop function usher.channel_names();
drop table usher.channels;
drop function usher.event_payload(uuid, bigint, text);
drop function usher.wire_event(bigint, text, timestamptz, json);
drop table usher.session_events;
drop table usher.session_heads;
