-- The constraints hold for table owners too, so no writer can make the tables inconsistent.
--
-- Each line is a statement that breaks one constraint and no other. Every statement is undone.
begin;
create extension if not exists pgtap;

-- The statements run as the owner, without claims.
insert into auth.users (id, raw_user_meta_data)
values
  ('aa000000-0000-4000-8000-000000000001', '{"username": "tap_one"}'),
  ('aa000000-0000-4000-8000-000000000002', '{"username": "tap_two"}');
insert into public.movies (id, title)
values ('ff000000-0000-4000-8000-000000000001', 'On'), ('ff000000-0000-4000-8000-000000000002', 'Off');
insert into public.movie_sessions (id, streamer_id, title, status)
values
  ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'one', 'live'),
  ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000001', 'two', 'live');
insert into public.session_members (session_id, user_id)
values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002');
insert into public.session_bans (session_id, user_id)
values ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000002');
insert into public.voting_sessions (id, session_id, question)
values
  ('bb000000-0000-4000-8000-000000000001', '5e000000-0000-4000-8000-000000000001', 'open?'),
  ('bb000000-0000-4000-8000-000000000002', '5e000000-0000-4000-8000-000000000001', 'draft?');
insert into public.voting_options (voting_session_id, movie_id)
values ('bb000000-0000-4000-8000-000000000001', 'ff000000-0000-4000-8000-000000000001');
update public.voting_sessions set state = 'open' where id = 'bb000000-0000-4000-8000-000000000001';
insert into public.votes (voting_session_id, user_id, movie_id)
values (
  'bb000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'ff000000-0000-4000-8000-000000000001'
);
insert into public.chat_messages (id, session_id, user_id, body, nonce)
values (
  'cc000000-0000-4000-8000-000000000001', '5e000000-0000-4000-8000-000000000001',
  'aa000000-0000-4000-8000-000000000001', 'hello', '00000000-0000-4000-8000-000000000001'
);
insert into public.overlay_tokens (id, session_id, label, expires_at)
values ('dd000000-0000-4000-8000-000000000001', '5e000000-0000-4000-8000-000000000001', 'obs', now() + interval '1 day');

-- $user, $movie and so on stand for the rows above; $none is an id that does not exist.
create temp table breaches (n serial, constraint_name text, statement text);
insert into breaches (constraint_name, statement)
values
  ('profiles_pkey', 'insert into public.profiles (id, username, display_name) values ($user, ''fresh'', ''x'')'),
  ('profiles_id_fkey', 'insert into public.profiles (id, username, display_name) values ($none, ''fresh'', ''x'')'),
  ('profiles_username_key', 'update public.profiles set username = ''tap_two'' where id = $user'),
  ('profiles_username_check', 'update public.profiles set username = ''No Spaces'' where id = $user'),
  ('profiles_display_name_check', 'update public.profiles set display_name = repeat(''x'', 65) where id = $user'),
  ('profiles_avatar_path_check', 'update public.profiles set avatar_path = '''' where id = $user'),
  ('profiles_role_check', 'update public.profiles set role = ''root'' where id = $user'),
  ('profiles_preferences_check', 'update public.profiles set preferences = ''[]'' where id = $user'),
  ('profiles_preferences_check', 'update public.profiles set preferences = jsonb_build_object(''x'', repeat(''x'', 16384)) where id = $user'),
  ('movies_pkey', 'insert into public.movies (id, title) values ($movie, ''x'')'),
  ('movies_created_by_fkey', 'update public.movies set created_by = $none'),
  ('movies_title_check', 'update public.movies set title = repeat(''x'', 201)'),
  ('movies_description_check', 'update public.movies set description = repeat(''x'', 4001)'),
  ('movies_release_year_check', 'update public.movies set release_year = 1869'),
  ('movies_poster_path_check', 'update public.movies set poster_path = '''''),
  ('movies_metadata_check', 'update public.movies set metadata = ''7'''),
  ('movies_vote_total_check', 'update public.movies set vote_total = -1'),
  ('movie_sessions_pkey', 'insert into public.movie_sessions (id, streamer_id, title) values ($session, $user, ''x'')'),
  ('movie_sessions_streamer_id_fkey', 'update public.movie_sessions set streamer_id = $none'),
  ('movie_sessions_movie_id_fkey', 'update public.movie_sessions set movie_id = $none'),
  ('movie_sessions_title_check', 'update public.movie_sessions set title = repeat(''x'', 201)'),
  ('movie_sessions_status_check', 'update public.movie_sessions set status = ''paused'''),
  ('movie_sessions_visibility_check', 'update public.movie_sessions set visibility = ''hidden'''),
  ('movie_sessions_slow_mode_seconds_check', 'update public.movie_sessions set slow_mode_seconds = -1'),
  ('movie_sessions_ended_at_check', 'update public.movie_sessions set status = ''ended'', ended_at = ''2000-01-01'''),
  ('session_members_pkey', 'insert into public.session_members (session_id, user_id) values ($session, $other)'),
  ('session_members_session_id_fkey', 'insert into public.session_members (session_id, user_id) values ($none, $user)'),
  ('session_members_user_id_fkey', 'insert into public.session_members (session_id, user_id) values ($session, $none)'),
  ('session_members_role_check', 'update public.session_members set role = ''owner'''),
  ('session_bans_pkey', 'insert into public.session_bans (session_id, user_id) values ($elsewhere, $other)'),
  ('session_bans_session_id_fkey', 'insert into public.session_bans (session_id, user_id) values ($none, $user)'),
  ('session_bans_user_id_fkey', 'insert into public.session_bans (session_id, user_id) values ($session, $none)'),
  ('session_bans_banned_by_fkey', 'insert into public.session_bans (session_id, user_id, banned_by) values ($session, $other, $none)'),
  ('session_bans_reason_check', 'update public.session_bans set reason = repeat(''x'', 501)'),
  ('voting_sessions_pkey', 'insert into public.voting_sessions (id, session_id, question) values ($voting, $session, ''x'')'),
  ('voting_sessions_session_id_fkey', 'insert into public.voting_sessions (session_id, question) values ($none, ''x'')'),
  ('voting_sessions_question_check', 'update public.voting_sessions set question = repeat(''x'', 301)'),
  ('voting_sessions_state_check', 'insert into public.voting_sessions (session_id, question, state) values ($session, ''x'', ''paused'')'),
  ('voting_sessions_closes_at_check', 'update public.voting_sessions set opens_at = now(), closes_at = now() - interval ''1 s'''),
  ('voting_sessions_results_visibility_check', 'update public.voting_sessions set results_visibility = ''never'' where id = $draft'),
  ('voting_sessions_one_open_key', 'update public.voting_sessions set state = ''open'' where id = $draft'),
  -- The guard sets the results itself, so this case turns it off.
  ('voting_sessions_results_check', 'alter table public.voting_sessions disable trigger user; update public.voting_sessions set state = ''closed'' where id = $voting'),
  ('voting_options_pkey', 'insert into public.voting_options (voting_session_id, movie_id) values ($voting, $movie)'),
  ('voting_options_voting_session_id_fkey', 'insert into public.voting_options (voting_session_id, movie_id) values ($none, $movie)'),
  ('voting_options_movie_id_fkey', 'insert into public.voting_options (voting_session_id, movie_id) values ($voting, $none)'),
  ('votes_pkey', 'insert into public.votes (voting_session_id, user_id, movie_id) values ($voting, $user, $movie)'),
  ('votes_option_fkey', 'insert into public.votes (voting_session_id, user_id, movie_id) values ($voting, $other, $off)'),
  ('votes_user_id_fkey', 'insert into public.votes (voting_session_id, user_id, movie_id) values ($voting, $none, $movie)'),
  ('chat_messages_pkey', 'insert into public.chat_messages (id, session_id, user_id, body) values ($message, $elsewhere, $user, ''x'')'),
  ('chat_messages_nonce_key', 'insert into public.chat_messages (session_id, user_id, body, nonce) values ($session, $user, ''x'', ''00000000-0000-4000-8000-000000000001'')'),
  ('chat_messages_session_id_fkey', 'insert into public.chat_messages (session_id, user_id, body) values ($none, $user, ''x'')'),
  ('chat_messages_user_id_fkey', 'insert into public.chat_messages (session_id, user_id, body) values ($session, $none, ''x'')'),
  ('chat_messages_reply_to_fkey', 'insert into public.chat_messages (session_id, user_id, body, reply_to) values ($elsewhere, $user, ''x'', $message)'),
  ('chat_messages_deleted_by_fkey', 'update public.chat_messages set deleted_at = now(), deleted_by = $none'),
  ('chat_messages_deleted_by_check', 'insert into public.chat_messages (session_id, user_id, body, deleted_by) values ($session, $user, ''x'', $user)'),
  ('chat_messages_body_check', 'insert into public.chat_messages (session_id, user_id, body) values ($session, $user, repeat(''x'', 2001))'),
  ('overlay_tokens_pkey', 'insert into public.overlay_tokens (id, session_id, label, expires_at) values ($overlay, $session, ''x'', now() + interval ''1 h'')'),
  ('overlay_tokens_session_id_fkey', 'insert into public.overlay_tokens (session_id, label, expires_at) values ($none, ''x'', now() + interval ''1 h'')'),
  ('overlay_tokens_created_by_fkey', 'insert into public.overlay_tokens (session_id, label, expires_at, created_by) values ($session, ''x'', now() + interval ''1 h'', $none)'),
  ('overlay_tokens_label_check', 'update public.overlay_tokens set label = repeat(''x'', 65)'),
  ('overlay_tokens_expires_at_check', 'update public.overlay_tokens set expires_at = created_at'),
  ('session_heads_pkey', 'insert into usher.session_heads (session_id) values ($session)'),
  ('session_heads_floor_check', 'update usher.session_heads set floor = seq + 1'),
  ('session_events_pkey', 'insert into usher.session_events (session_id, seq, type, at, data) values ($session, 1, ''x'', now(), ''{}'')'),
  ('session_events_seq_check', 'insert into usher.session_events (session_id, seq, type, at, data) values ($session, 0, ''x'', now(), ''{}'')'),
  ('session_events_type_check', 'insert into usher.session_events (session_id, seq, type, at, data) values ($session, 99, '''', now(), ''{}'')'),
  ('vote_tallies_pkey', 'insert into usher.vote_tallies select * from usher.vote_tallies limit 1'),
  ('pending_transactions_pkey', 'insert into usher.pending_transactions default values; insert into usher.pending_transactions default values'),
  ('pending_events_pkey', 'insert into usher.pending_events (n, type) values (1, ''x''), (1, ''x'')'),
  ('vote_total_changes_pkey', 'insert into usher.vote_total_changes overriding system value values (1, $voting), (1, $voting)'),
  ('movie_votes_pkey', 'insert into usher.movie_votes values ($voting, $movie, 1), ($voting, $movie, 1)'),
  ('movie_votes_movie_id_fkey', 'insert into usher.movie_votes values ($voting, $none, 1)'),
  ('vote_tallies_slot_check', 'update usher.vote_tallies set slot = 16'),
  ('channels_pkey', 'insert into usher.channels default values'),
  ('channels_only_row_check', 'insert into usher.channels (only_row) values (false)'),
  ('write_limits_pkey', 'insert into usher.write_limits select * from usher.write_limits limit 1'),
  ('write_limits_window_seconds_check', 'update usher.write_limits set window_seconds = 0'),
  ('write_counts_pkey', 'insert into usher.write_counts select $user, $session, ''votes'', now(), 1, 0 from generate_series(1, 2)'),
  ('write_counts_author_fkey', 'insert into usher.write_counts values ($none, $session, ''votes'', now(), 1, 0)'),
  ('identity_pkey', 'insert into usher.identity default values'),
  ('identity_only_row_check', 'insert into usher.identity (only_row) values (false)');

-- Returns the constraint that refused a statement, or another outcome.
create function pg_temp.stopped_by(statement text) returns text
language plpgsql
as $$
declare
  names constant text[] := array[
    '$user', 'aa000000-0000-4000-8000-000000000001', '$other', 'aa000000-0000-4000-8000-000000000002',
    '$movie', 'ff000000-0000-4000-8000-000000000001', '$off', 'ff000000-0000-4000-8000-000000000002',
    '$session', '5e000000-0000-4000-8000-000000000001', '$elsewhere', '5e000000-0000-4000-8000-000000000002',
    '$voting', 'bb000000-0000-4000-8000-000000000001', '$draft', 'bb000000-0000-4000-8000-000000000002',
    '$message', 'cc000000-0000-4000-8000-000000000001', '$overlay', 'dd000000-0000-4000-8000-000000000001',
    '$none', '00000000-0000-4000-8000-00000000dead'
  ];
  sql text := statement;
  violated text;
begin
  for n in 1 .. cardinality(names) by 2 loop
    sql := replace(sql, names[n], quote_literal(names[n + 1]) || '::uuid');
  end loop;
  begin
    execute sql;
    raise exception using errcode = 'MX000', message = 'no constraint refused it';
  exception
    when others then
      get stacked diagnostics violated = constraint_name;
      return coalesce(nullif(violated, ''), sqlerrm);
  end;
end
$$;

do $$ begin perform usher.settle(); end $$;

select plan(1 + (select count(*)::integer from breaches));

select is(
  (
    select array_agg(k.name order by k.name)
    from (
      select c.conname::text as name
      from pg_constraint c
      where c.connamespace in ('public'::regnamespace, 'usher'::regnamespace) and c.contype not in ('n', 't')
      union
      select i.indexrelid::regclass::text
      from pg_index i
      join pg_class t on t.oid = i.indrelid
      where i.indisunique and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid)
        and t.relnamespace in ('public'::regnamespace, 'usher'::regnamespace)
    ) as k
    -- Left out: it exists only as the target of a foreign key, and its second column is already a primary key.
    where k.name <> 'chat_messages_session_id_key'
  ),
  (select array_agg(distinct b.constraint_name order by b.constraint_name) from breaches b),
  'each constraint has a statement'
);

select is(pg_temp.stopped_by(b.statement), b.constraint_name, b.constraint_name || ' refuses its statement')
from breaches b
order by b.n;

select * from finish();
rollback;
