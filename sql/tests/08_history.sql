-- Chat history: reading backwards through the log and the messages that have left it.
begin;
create extension if not exists pgtap;
select plan(18);

insert into auth.users (id, email, raw_user_meta_data)
select
  ('d0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'tap' || n || '@usher.example',
  jsonb_build_object('username', 'tap_' || n)
from generate_series(1, 3) as n;
update public.profiles set role = 'streamer' where id = 'd0000000-0000-4000-8000-000000000001';
insert into public.movie_sessions (id, streamer_id, title, status, visibility)
values
  ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000001', 'public', 'live', 'public'),
  ('d5000000-0000-4000-8000-000000000002', 'd0000000-0000-4000-8000-000000000001', 'private', 'live', 'private');

create function pg_temp.be(n integer) returns void
language sql
as $$
  select set_config('role', 'authenticated', true), set_config(
    'request.jwt.claims',
    json_build_object('sub', 'd0000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'role', 'authenticated')::text, true
  );
$$;

-- Returns the bodies of a page, and the place of the next page.
create function pg_temp.page(before_seq bigint, at_us bigint, id uuid, size integer) returns text
language sql
as $$
  select string_agg(m::json ->> 'body', ' ' order by n) || ' > ' || coalesce(max(p.next), '-')
  from usher.messages_before('d5000000-0000-4000-8000-000000000001', before_seq, at_us, id, size) as p
  cross join unnest(p.messages) with ordinality as u (m, n);
$$;

insert into public.chat_messages (id, session_id, user_id, body, created_at)
select
  ('dc000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'd5000000-0000-4000-8000-000000000001',
  'd0000000-0000-4000-8000-000000000002', 'm' || n, '2026-01-01 00:00:00+00'::timestamptz + n / 2 * interval '1 second'
from generate_series(1, 9) as n;
insert into public.chat_messages (session_id, user_id, body)
values ('d5000000-0000-4000-8000-000000000002', 'd0000000-0000-4000-8000-000000000001', 'secret');
do $$ begin perform usher.settle(); end $$;
update public.chat_messages set deleted_at = now() where body = 'm2' or body = 'm7';
do $$ begin perform usher.settle(); end $$;

select pg_temp.be(3);
select is(pg_temp.page(null, null, null, 100), 'm9 m8 m6 m5 m4 m3 m1 > -', 'messages come newest first, without deleted ones');
select is(pg_temp.page(null, null, null, 3), 'm9 m8 m6 > 6', 'a full page has the place of the next page');
select is(pg_temp.page(6, null, null, 3), 'm5 m4 m3 > 3', 'the next page begins before that number');
select is(pg_temp.page(3, null, null, 3), 'm1 > -', 'the last page has no place');
select is(
  (select messages[1]::json ->> 'seq' from usher.messages_before('d5000000-0000-4000-8000-000000000001', 6, null, null, 1)),
  '5', 'a message has its number'
);
select is(
  (
    select messages[1]::json -> 'author' ->> 'username'
    from usher.messages_before('d5000000-0000-4000-8000-000000000001', null, null, null, 1)
  ),
  'tap_2', 'a message has its author'
);
select is(
  (select messages[1]::json ->> 'created_at' from usher.messages_before('d5000000-0000-4000-8000-000000000001', null, null, null, 1)),
  '2026-01-01T00:00:04+00:00', 'times are in UTC'
);

-- Messages that have left the log come after those in it, ordered by time and id.
reset role;
delete from usher.session_events where session_id = 'd5000000-0000-4000-8000-000000000001' and seq <= 4;
update usher.session_heads set floor = 4 where session_id = 'd5000000-0000-4000-8000-000000000001';
select pg_temp.be(3);
select is(pg_temp.page(null, null, null, 100), 'm9 m8 m6 m5 m4 m3 m1 > -', 'the history continues behind the log without a gap');
select is(
  pg_temp.page(8, null, null, 3),
  'm6 m5 m4 > 1767225602000000_dc000000-0000-4000-8000-000000000004', 'one page can span the end of the log'
);
select is(
  pg_temp.page(null, 1767225602000000, 'dc000000-0000-4000-8000-000000000005', 1),
  'm4 > 1767225602000000_dc000000-0000-4000-8000-000000000004', 'messages of the same time are ordered by id'
);
select is(
  pg_temp.page(null, 1767225602000000, 'dc000000-0000-4000-8000-000000000004', 3), 'm3 m1 > -',
  'a page from behind the log has older messages'
);
select is(
  (select messages[1]::json ->> 'seq' from usher.messages_before('d5000000-0000-4000-8000-000000000001', 5, null, null, 1)),
  null, 'a message that has left the log has no number'
);

-- A user from whom a session is hidden gets nothing about it, not even positions.
select is_empty($$select 1 from usher.message_positions('d5000000-0000-4000-8000-000000000002', null, null, null, 9)$$, 'a private session returns no positions');
reset role;
insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003');
select pg_temp.be(3);
select is_empty($$select 1 from usher.message_positions('d5000000-0000-4000-8000-000000000001', null, null, null, 9)$$, 'a banned user gets no positions');
select pg_temp.be(2);
select is(
  (select cardinality(messages) from usher.messages_before('d5000000-0000-4000-8000-000000000001', null, null, null, 9)),
  7, 'other users still get the history'
);

-- A message that a project's own policy hides does not end the history.
reset role;
create policy no_fives on public.chat_messages as restrictive for select to authenticated using (body <> 'm5');
select pg_temp.be(2);
select is(pg_temp.page(null, null, null, 4), 'm9 m8 m6 > 5', 'a page omits hidden messages and has the place of the next page');

-- A page reads at most 2,000 rows that it must skip, and returns the place to continue from.
reset role;
drop policy no_fives on public.chat_messages;
set local session_replication_role = replica;
insert into usher.session_events (session_id, seq, type, at, data)
select 'd5000000-0000-4000-8000-000000000001', n, 'session.updated', now(), '{}' from generate_series(100, 3000) as n;
insert into public.chat_messages (session_id, user_id, body, created_at, deleted_at)
select
  'd5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000002', 'gone',
  '2025-12-01 00:00:00+00'::timestamptz + n * interval '1 second', now()
from generate_series(1, 2500) as n;
set local session_replication_role = origin;
select pg_temp.be(2);
select is(
  (select (cardinality(messages), next)::text from usher.messages_before('d5000000-0000-4000-8000-000000000001', null, null, null, 9)),
  '(0,1001)', 'a page stops after 2,000 rows of the log'
);
select is(
  (
    select (cardinality(messages), next like '1764%\_%')::text
    from usher.messages_before('d5000000-0000-4000-8000-000000000001', 7, null, null, 9)
  ),
  '(5,t)', 'a page stops after 2,000 rows behind the log'
);

select * from finish();
rollback;
