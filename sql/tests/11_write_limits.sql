-- Write limits for writers that bypass the gateway: rows per statement, and rows per window for each author and
-- session.
begin;
create extension if not exists pgtap;
select plan(59);

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
-- 1 is the streamer, 2 and 3 are viewers, 4 moderates the first session.
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
-- In production a moderator may delete thousands of rows. Here hundreds suffice.
update usher.write_limits set moderator_rows_per_statement = 200 where kind = 'message_changes';

create function pg_temp.be(who integer, role text default 'authenticated') returns void
language plpgsql
as $$
begin
  perform set_config('role', 'none', true);
  -- Simulates the next request, because this whole file is one request.
  update usher.write_counts set request_at = '-infinity' where true;
  perform set_config('usher.messages_written', '', true);
  perform set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.id('aa', who), 'role', role)::text, true),
    set_config('role', role, true);
end
$$;
-- Runs a statement. Returns the number of rows that it wrote, or the SQLSTATE and the detail without the time to wait.
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
select is(pg_temp.say(21), 'US010 rows_max=20', 'a request cannot write 21 messages');
select is(pg_temp.say(20000), 'US010 rows_max=20', 'a request cannot write 20,000 messages');
select is(pg_temp.say(20), '20', 'a request can write 20 messages');
select is(pg_temp.say(1), 'US010 rows_max=20', 'another statement of the same request cannot write more');
select pg_temp.be(2);
select is(pg_temp.say(20), '20', 'the next request can write 20 messages');
select pg_temp.be(2);
select is(pg_temp.say(20), '20', 'a third request can fill the window');
select pg_temp.be(2);
select is(pg_temp.say(1), 'US010 retry_after_ms', 'beyond the window an author must wait');
select is(pg_temp.say(20, 2), '20', 'another session has a separate window');
select pg_temp.be(3);
select is(pg_temp.say(20), '20', 'another author has a separate window');
select set_config('usher.messages_written', statement_timestamp() || ' -9999', true);
select is(pg_temp.say(21), 'US010 rows_max=20', 'a caller who changes the setting cannot write more');
select set_config('usher.messages_written', '', true);
select is(pg_temp.say(21), 'US010 rows_max=20', 'a caller who clears the setting cannot write more');
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select s, auth.uid(), 'text' from unnest('{5e000000-0000-4000-8000-000000000001,5e000000-0000-4000-8000-000000000002}'::uuid[]) as s, generate_series(1, 11)$$),
  'US010 rows_max=20', 'a request over two sessions has the same limit'
);
-- Expressions in a statement can change settings while it runs. The count at its end must not depend on them.
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
  'US010 rows_max=20', 'a statement that clears its claims cannot write more'
);
select pg_temp.be(3);
set local role none;
select usher.count_writes('votes', gen_random_uuid(), 1, false) from generate_series(1, 100);
select is(
  (select count(*) from usher.write_counts c where not exists (select from public.movie_sessions s where s.id = c.session_id)),
  0::bigint, 'writes in sessions that do not exist are not counted'
);
select pg_temp.be(4);
select is(pg_temp.say(100), '100', 'a moderator can write 100 messages');
select is(pg_temp.say(101), 'US010 rows_max=100', 'a moderator cannot write 101 messages');
select pg_temp.be(4);
select is(pg_temp.say(21, 2), 'US010 rows_max=20', 'a moderator has the usual limit in other sessions');
select pg_temp.be(2, 'service_role');
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 150)$$),
  '150', 'service_role has no limit'
);
set local role none;
select is(
  pg_temp.run($$insert into public.chat_messages (session_id, user_id, body) select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'text' from generate_series(1, 300)$$),
  '300', 'the table owner has no limit'
);

-- Edits and deletions ----------------------------------------------------------------------------------------

select pg_temp.be(2);
select is(pg_temp.run($$update public.chat_messages set body = 'edited'$$), 'US010 rows_max=100', 'a request cannot edit more than 100 messages');
select is(pg_temp.run($$update public.chat_messages set deleted_at = now()$$), 'US010 rows_max=100', 'a request cannot delete more than 100 messages');
select pg_temp.be(4);
select is(pg_temp.run($$update public.chat_messages set deleted_at = now() where session_id = '5e000000-0000-4000-8000-000000000001'$$), 'US010 rows_max=200', 'a moderator cannot delete more than 200 messages');
select is(
  pg_temp.run($$update public.chat_messages set deleted_at = now() where id in (select id from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001' and deleted_at is null limit 200)$$),
  '200', 'a moderator can delete 200 messages'
);
select is(
  pg_temp.run($$delete from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001'$$),
  'US010 rows_max=200', 'a moderator cannot remove more than 200 rows'
);

-- The row triggers count rows during the statement, over all sessions together, and end it at the limit.
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
select is(pg_temp.run('update public.chat_messages set deleted_at = now() where id ' || pg_temp.of_both(11)), 'US010 rows_max=20', 'changes in two sessions count together');
select is(pg_temp.run('delete from public.chat_messages where id ' || pg_temp.of_both(11)), 'US010 rows_max=20', 'deletions in two sessions count together');
set local role none;
update usher.write_limits set rows_per_window = 1, moderator_rows_per_window = 1 where kind = 'message_changes';
select pg_temp.be(1);
select is(pg_temp.run('update public.chat_messages set deleted_at = now() where id = (select id from public.chat_messages where session_id = ''5e000000-0000-4000-8000-000000000002'' and deleted_at is null limit 1)'), '1', 'a first change fits the window');
select is(pg_temp.run('delete from public.chat_messages where id = (select id from public.chat_messages where session_id = ''5e000000-0000-4000-8000-000000000002'' limit 1)'), 'US010 retry_after_ms', 'a deletion counts against the same window');

-- Other writes -----------------------------------------------------------------------------------------------

set local role none;
update usher.write_limits set rows_per_window = 3, moderator_rows_per_window = 3 where kind in ('votes', 'moderation');
select pg_temp.be(2);
create function pg_temp.vote() returns text
language sql
as $$
  select pg_temp.run($v$insert into public.votes (voting_session_id, user_id, movie_id) values ('bb000000-0000-4000-8000-000000000001', auth.uid(), 'ff000000-0000-4000-8000-000000000001')$v$)
$$;
select is(pg_temp.vote(), '1', 'a vote fits the window');
select is(pg_temp.run('delete from public.votes'), '1', 'a withdrawal fits the window');
select is(pg_temp.vote(), '1', 'a second vote fits the window');
select is(pg_temp.run('delete from public.votes'), 'US010 retry_after_ms', 'beyond the window a voter must wait');
select pg_temp.be(1);
select is(pg_temp.run($$update public.movie_sessions set title = 'b' where id = '5e000000-0000-4000-8000-000000000001'$$), '1', 'a new title fits the window');
select is(pg_temp.run($$insert into public.session_bans (session_id, user_id, banned_by) values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000003', auth.uid())$$), '1', 'a ban fits the same window');
select is(pg_temp.run($$update public.session_bans set until = now() + interval '1 h', banned_by = auth.uid()$$), '1', 'a time-out fits the same window');
select is(pg_temp.run($$delete from public.session_bans$$), 'US010 retry_after_ms', 'beyond the window a moderator must wait');
select is(pg_temp.run($$insert into public.session_members (session_id, user_id) values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000003')$$), 'US010 retry_after_ms', 'new members count against the same window');
select is(pg_temp.run($$insert into public.voting_sessions (session_id, question) values ('5e000000-0000-4000-8000-000000000001', 'why?')$$), 'US010 retry_after_ms', 'polls count against the same window');
select is(pg_temp.run($$update public.voting_options set position = 2$$), 'US010 retry_after_ms', 'ballots count against the same window');
select is(pg_temp.run($$insert into public.movie_sessions (streamer_id, title) select auth.uid(), 'new' from generate_series(1, 4)$$), 'US010 rows_max=3', 'all new sessions of a user count together');

-- Every trigger, with all limits at 0 rows.
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

-- The erasure of an account counts against no limit, and deletes the account's counts.
set local role none;
select is(pg_temp.run($$delete from auth.users where id = 'aa000000-0000-4000-8000-000000000002'$$), '1', 'an account with hundreds of messages can be erased');
select is_empty($$select 1 from usher.write_counts where author = 'aa000000-0000-4000-8000-000000000002'$$, 'the counts of an erased account are deleted');

select * from finish();
rollback;
