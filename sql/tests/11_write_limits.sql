-- Limits of writers that do not come through the gateway: rows of a statement, and a window for author and session.
begin;
create extension if not exists pgtap;
select plan(59);

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
-- 1 streams, 2 and 3 are viewers, 4 moderates the first session.
insert into auth.users (id, raw_user_meta_data)
select pg_temp.id('aa', n), jsonb_build_object('username', 'tap_' || n) from generate_series(1, 4) as n;
update public.profiles set role = 'streamer' where id = pg_temp.id('aa', 1);
insert into public.movies (id, title) values (pg_temp.id('ff', 1), 'Movie');
insert into public.movie_sessions (id, streamer_id, title, status)
select pg_temp.id('5e', n), pg_temp.id('aa', 1), 'one', 'live' from generate_series(1, 2) as n;
insert into public.session_members (session_id, user_id, role) values (pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'moderator');
insert into public.voting_sessions (id, session_id, question) values (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'which?');
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 1), pg_temp.id('ff', 1));
update public.voting_sessions set state = 'open' where id = pg_temp.id('bb', 1);
update usher.write_limits set window_seconds = 3600 where true;
-- Purging is for thousands; here hundreds do.
update usher.write_limits set moderator_rows_per_statement = 200 where kind = 'message_changes';

create function pg_temp.be(who integer, role text default 'authenticated') returns void
language plpgsql
as $$
begin
  perform set_config('role', 'none', true);
  -- The next request: this file is a single one.
  update usher.write_counts set request_at = '-infinity' where true;
  perform set_config('usher.messages_written', '', true);
  perform set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.id('aa', who), 'role', role)::text, true),
    set_config('role', role, true);
end
$$;
-- Runs a statement and says how many rows it wrote, or the refusal and its detail without the number.
create function pg_temp.run(statement text) returns text
language plpgsql
as $$
declare
  count integer;
  detail text;
begin
  execute statement;
  get diagnostics count = row_count;
  return count;
exception
  when others then
    get stacked diagnostics detail = pg_exception_detail;
    return concat_ws(' ', sqlstate, regexp_replace(detail, '^(retry_after_ms)=\d+$', '\1'));
end
$$;
create function pg_temp.say(count integer, session integer default 1) returns text
language sql
as $$
  select pg_temp.run(format(
    'insert into public.chat_messages (session_id, user_id, body) select %L, auth.uid(), ''text'' from generate_series(1, %s)',
    '5e000000-0000-4000-8000-00000000000' || session, count
  ))
$$;

-- Messages ---------------------------------------------------------------------------------------------------

select pg_temp.be(2);
select is(pg_temp.say(21), 'US010 rows_max=20', 'a request writes so many messages at most');
select is(pg_temp.say(20000), 'US010 rows_max=20', 'however many it has');
select is(pg_temp.say(20), '20', 'so many it may');
select is(pg_temp.say(1), 'US010 rows_max=20', 'and not one more with another statement of the request');
select pg_temp.be(2);
select is(pg_temp.say(20), '20', 'and again');
select pg_temp.be(2);
select is(pg_temp.say(20), '20', 'up to those of a window');
select pg_temp.be(2);
select is(pg_temp.say(1), 'US010 retry_after_ms', 'then it is to wait');
select is(pg_temp.say(20, 2), '20', 'another session has a window of its own');
select pg_temp.be(3);
select is(pg_temp.say(20), '20', 'and so has another author');
select set_config('usher.messages_written', statement_timestamp() || ' -9999', true);
select is(pg_temp.say(21), 'US010 rows_max=20', 'a setting that the caller writes lets nothing more pass');
select set_config('usher.messages_written', '', true);
select is(pg_temp.say(21), 'US010 rows_max=20', 'nor does one that is emptied');
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select s, auth.uid(), 'text' from unnest('{5e000000-0000-4000-8000-000000000001,5e000000-0000-4000-8000-000000000002}'::uuid[]) as s, generate_series(1, 11)$$),
  'US010 rows_max=20', 'two sessions in a request do not double its rows'
);
-- What a statement calls may write settings while it runs: the count at its end must not depend on them.
select is(
  pg_temp.run($$
    with written as (
      insert into public.chat_messages (session_id, user_id, body)
      select '5e000000-0000-4000-8000-000000000001', auth.uid(), 'text'
      from generate_series(1, 40) as n
      where set_config('usher.messages_written', '', true) = ''
      returning 1
    )
    select count(*), set_config('request.jwt.claims', '', true) from written
  $$),
  'US010 rows_max=20', 'nor do claims that a statement empties before it ends'
);
select pg_temp.be(3);
set local role none;
select usher.count_writes('votes', gen_random_uuid(), 1, false) from generate_series(1, 100);
select is(
  (select count(*) from usher.write_counts c where not exists (select from public.movie_sessions s where s.id = c.session_id)),
  0::bigint, 'sessions that do not exist are not counted'
);
select pg_temp.be(4);
select is(pg_temp.say(100), '100', 'a moderator writes more');
select is(pg_temp.say(101), 'US010 rows_max=100', 'but not everything');
select pg_temp.be(4);
select is(pg_temp.say(21, 2), 'US010 rows_max=20', 'and only where they moderate');
select pg_temp.be(2, 'service_role');
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 150)$$),
  '150', 'service_role has no limit'
);
set local role none;
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 300)$$),
  '300', 'nor has the owner'
);

-- Edits and deletions ----------------------------------------------------------------------------------------

select pg_temp.be(2);
select is(pg_temp.run($$update public.chat_messages set body = 'edited'$$), 'US010 rows_max=100', 'a request edits so many');
select is(pg_temp.run($$update public.chat_messages set deleted_at = now()$$), 'US010 rows_max=100', 'or deletes so many');
select pg_temp.be(4);
select is(pg_temp.run($$update public.chat_messages set deleted_at = now() where session_id = '5e000000-0000-4000-8000-000000000001'$$), 'US010 rows_max=200', 'a moderator more');
select is(
  pg_temp.run($$update public.chat_messages set deleted_at = now() where id in (select id from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001' and deleted_at is null limit 200)$$),
  '200', 'which is enough to purge a chat'
);
select is(
  pg_temp.run($$delete from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001'$$),
  'US010 rows_max=200', 'for good as well'
);

-- Rows are counted while the statement runs, over all sessions together: one that has too many ends there.
set local role none;
update usher.write_limits set rows_per_statement = 20, moderator_rows_per_statement = 20 where kind = 'message_changes';
insert into public.chat_messages (session_id, user_id, body)
select '5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 30);
create function pg_temp.of_both(count integer) returns text
language sql
as $$
  select format(
    'in (select m.id from (select id, row_number() over (partition by session_id) as n from public.chat_messages where deleted_at is null) as m where m.n <= %s)',
    count
  )
$$;
insert into public.chat_messages (session_id, user_id, body)
select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 30);
select pg_temp.be(1);
select is(pg_temp.run('update public.chat_messages set deleted_at = now() where id ' || pg_temp.of_both(11)), 'US010 rows_max=20', 'changes of two sessions');
select is(pg_temp.run('delete from public.chat_messages where id ' || pg_temp.of_both(11)), 'US010 rows_max=20', 'deletions of two sessions');
set local role none;
update usher.write_limits set rows_per_window = 1, moderator_rows_per_window = 1 where kind = 'message_changes';
select pg_temp.be(1);
select is(pg_temp.run('update public.chat_messages set deleted_at = now() where id = (select id from public.chat_messages where session_id = ''5e000000-0000-4000-8000-000000000002'' and deleted_at is null limit 1)'), '1', 'a window counts a change');
select is(pg_temp.run('delete from public.chat_messages where id = (select id from public.chat_messages where session_id = ''5e000000-0000-4000-8000-000000000002'' limit 1)'), 'US010 retry_after_ms', 'and a deletion with it');

-- The others -------------------------------------------------------------------------------------------------

set local role none;
update usher.write_limits set rows_per_window = 3, moderator_rows_per_window = 3 where kind in ('votes', 'moderation');
select pg_temp.be(2);
create function pg_temp.vote() returns text
language sql
as $$
  select pg_temp.run($v$insert into public.votes (voting_session_id, user_id, movie_id) values ('bb000000-0000-4000-8000-000000000001', auth.uid(), 'ff000000-0000-4000-8000-000000000001')$v$)
$$;
select is(pg_temp.vote(), '1', 'a vote');
select is(pg_temp.run('delete from public.votes'), '1', 'is withdrawn');
select is(pg_temp.vote(), '1', 'cast again');
select is(pg_temp.run('delete from public.votes'), 'US010 retry_after_ms', 'and then it is to wait');
select pg_temp.be(1);
select is(pg_temp.run($$update public.movie_sessions set title = 'b' where id = '5e000000-0000-4000-8000-000000000001'$$), '1', 'a title changes');
select is(pg_temp.run($$insert into public.session_bans (session_id, user_id, banned_by) values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000003', auth.uid())$$), '1', 'a ban counts with it');
select is(pg_temp.run($$update public.session_bans set until = now() + interval '1 h', banned_by = auth.uid()$$), '1', 'and a time-out');
select is(pg_temp.run($$delete from public.session_bans$$), 'US010 retry_after_ms', 'and then it is to wait');
select is(pg_temp.run($$insert into public.session_members (session_id, user_id) values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000003')$$), 'US010 retry_after_ms', 'with members');
select is(pg_temp.run($$insert into public.voting_sessions (session_id, question) values ('5e000000-0000-4000-8000-000000000001', 'why?')$$), 'US010 retry_after_ms', 'polls');
select is(pg_temp.run($$update public.voting_options set position = 2$$), 'US010 retry_after_ms', 'and ballots');
select is(pg_temp.run($$insert into public.movie_sessions (streamer_id, title) select auth.uid(), 'new' from generate_series(1, 4)$$), 'US010 rows_max=3', 'new sessions count together');

-- Every trigger: nobody may write a row.
set local role none;
insert into public.session_bans (session_id, user_id)
values ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000003') on conflict do nothing;
insert into public.voting_sessions (id, session_id, question) values (pg_temp.id('bb', 2), pg_temp.id('5e', 2), 'draft?');
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 2), pg_temp.id('ff', 1));
insert into public.movies (id, title) values (pg_temp.id('ff', 2), 'Movie');
insert into public.votes (voting_session_id, user_id, movie_id)
values (pg_temp.id('bb', 1), pg_temp.id('aa', 1), pg_temp.id('ff', 1)) on conflict do nothing;
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 1), pg_temp.id('ff', 2));
insert into public.overlay_tokens (session_id, label, expires_at) values (pg_temp.id('5e', 1), 'obs', now() + interval '1 day');
update usher.write_limits set rows_per_statement = 0, moderator_rows_per_statement = 0 where true;
select pg_temp.be(1);
select is(pg_temp.run(t.statement), 'US010 rows_max=0', t.statement)
from (values
  ($$update public.votes set movie_id = 'ff000000-0000-4000-8000-000000000002'$$),
  ($$delete from public.votes$$),
  ($$insert into public.voting_sessions (session_id, question) values ('5e000000-0000-4000-8000-000000000002', 'why?')$$),
  ($$update public.voting_sessions set question = 'why?'$$),
  ($$delete from public.voting_sessions where state = 'draft'$$),
  ($$insert into public.voting_options (voting_session_id, movie_id) values ('bb000000-0000-4000-8000-000000000002', 'ff000000-0000-4000-8000-000000000002')$$),
  ($$update public.voting_options set position = 3$$),
  ($$delete from public.voting_options where voting_session_id = 'bb000000-0000-4000-8000-000000000002'$$),
  ($$insert into public.session_bans (session_id, user_id, banned_by) values ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000002', auth.uid())$$),
  ($$update public.session_bans set reason = 'why', banned_by = auth.uid()$$),
  ($$delete from public.session_bans$$),
  ($$insert into public.session_members (session_id, user_id) values ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000002')$$),
  ($$update public.session_members set role = 'viewer'$$),
  ($$delete from public.session_members$$),
  ($$update public.overlay_tokens set revoked_at = now()$$),
  ($$update public.movie_sessions set slow_mode_seconds = 3$$),
  ($$delete from public.movie_sessions$$)
) as t (statement);

-- What is erased with an account counts for nobody, and takes its counts along.
set local role none;
select is(pg_temp.run($$delete from auth.users where id = 'aa000000-0000-4000-8000-000000000002'$$), '1', 'an account with thousands of messages is erased');
select is_empty($$select 1 from usher.write_counts where author = 'aa000000-0000-4000-8000-000000000002'$$, 'with its counts');

select * from finish();
rollback;
