-- Chat: who may write, edit, delete and read, and what the log then says.
begin;
create extension if not exists pgtap;
select plan(36);

insert into auth.users (id, email, raw_user_meta_data)
select
  ('d0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'tap' || n || '@usher.example',
  jsonb_build_object('username', 'tap_' || n, 'role', 'admin')
from generate_series(1, 6) as n;
update public.profiles set role = 'streamer' where id = 'd0000000-0000-4000-8000-000000000001';
insert into public.movie_sessions (id, streamer_id, title, status, visibility)
values
  ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000001', 'public', 'live', 'public'),
  ('d5000000-0000-4000-8000-000000000002', 'd0000000-0000-4000-8000-000000000001', 'private', 'live', 'private');
insert into public.session_members (session_id, user_id, role)
values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000002', 'moderator');

create function pg_temp.be(n integer) returns void
language sql
as $$
  select set_config('role', 'authenticated', true), set_config(
    'request.jwt.claims',
    json_build_object('sub', 'd0000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'role', 'authenticated')::text, true
  );
$$;

select is((select count(*)::integer from public.profiles where id::text like 'd0000000%' and role = 'admin'), 0, 'metadata promotes nobody');

-- The log is written at the commit. Where a test asks for it before, it settles.
create function pg_temp.settle() returns void
language plpgsql
security definer
as $$
begin
  perform usher.settle();
end
$$;

select pg_temp.be(3);
select lives_ok($$insert into public.chat_messages (id, session_id, body) values ('dc000000-0000-4000-8000-000000000001', 'd5000000-0000-4000-8000-000000000001', 'one')$$, 'a viewer writes');
do $$ begin perform pg_temp.settle(); end $$;
select throws_ok($$insert into public.chat_messages (session_id, user_id, body) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000004', 'x')$$, '42501', null, 'not in another''s name');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000002', 'x')$$, 'US005', null, 'not in a private session');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', '')$$, 'US007', null, 'not empty');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', repeat('é', 2001))$$, 'US006', null, 'not too long');
select lives_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', repeat('é', 2000))$$, '2000 characters are fine');
select throws_ok($$update public.chat_messages set user_id = 'd0000000-0000-4000-8000-000000000004'$$, '42501', null, 'the author stays');
select lives_ok($$update public.chat_messages set body = 'two' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'its author edits it');
do $$ begin perform pg_temp.settle(); end $$;
select isnt((select edited_at from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), null, 'and it says so');

select pg_temp.be(4);
update public.chat_messages set body = 'mine now' where id = 'dc000000-0000-4000-8000-000000000001';
select is((select body from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'two', 'another viewer does not edit it');
update public.chat_messages set deleted_at = now() where id = 'dc000000-0000-4000-8000-000000000001';
select is((select deleted_at from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), null, 'nor delete it');
delete from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001';
select isnt_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'nor remove it');

select pg_temp.be(2);
select throws_ok($$update public.chat_messages set body = 'x' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'US004', null, 'a moderator does not edit it');
select lives_ok($$update public.chat_messages set deleted_at = '2000-01-01' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'but deletes it');
select is((select deleted_by from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'd0000000-0000-4000-8000-000000000002', 'and it says who');
select ok((select deleted_at > '2020-01-01' from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'and when, whatever was claimed');

select pg_temp.be(4);
select is_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'others do not see a deleted message');
set local role anon;
select is_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'nor does anon');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'anon does not write');
reset role;
do $$ begin perform usher.settle(); end $$;

select is(
  (
    select array_agg(type || coalesce(':' || (data ->> 'body'), '') order by seq)
    from usher.session_events
    where message_id = 'dc000000-0000-4000-8000-000000000001'
  ),
  array['chat.created', 'chat.updated', 'chat.deleted'],
  'the log has the history without the text'
);

-- Bans.
select pg_temp.be(4);
select throws_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003')$$, '42501', null, 'a viewer bans nobody');
select pg_temp.be(2);
select throws_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000001')$$, '42501', null, 'a moderator does not ban the streamer');
select lives_ok($$insert into public.session_bans (session_id, user_id, until, reason) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003', now() + interval '1 hour', 'spoilers')$$, 'a moderator times out');
select lives_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000004')$$, 'and bans');
select pg_temp.be(3);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, 'US002', null, 'timed out: does not write');
select isnt_empty($$select 1 from public.chat_messages where session_id = 'd5000000-0000-4000-8000-000000000001'$$, 'but reads');
select is(usher.admit('d5000000-0000-4000-8000-000000000001') - 'ask_again_ms', '{"send": false, "vote": false, "moderate": false, "mine": {}}', 'and is admitted as such');
select ok((usher.admit('d5000000-0000-4000-8000-000000000001') ->> 'ask_again_ms')::bigint > 0, 'and is told when that may change');
select pg_temp.be(4);
select is_empty($$select 1 from public.chat_messages where session_id = 'd5000000-0000-4000-8000-000000000001'$$, 'banned: does not read');
select is(usher.admit('d5000000-0000-4000-8000-000000000001'), '{"refused": "banned"}', 'and is not admitted');
select is(usher.admit('d5000000-0000-4000-8000-000000000002'), null, 'a private session is not there for others');
reset role;
do $$ begin perform usher.settle(); end $$;
select is_empty($$select 1 from usher.session_events where data::text like '%spoilers%'$$, 'the reason of a ban is not in the log');

-- Slow mode and the end.
update public.movie_sessions set slow_mode_seconds = 60 where id = 'd5000000-0000-4000-8000-000000000001';
select pg_temp.be(5);
insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'first');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'second')$$, 'US001', null, 'slow mode holds');
reset role;
update public.movie_sessions set status = 'ended' where id = 'd5000000-0000-4000-8000-000000000001';
select pg_temp.be(6);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'late')$$, 'US003', null, 'an ended session is closed');
reset role;
do $$ begin perform usher.settle(); end $$;

select is(
  (select array_agg(seq order by seq) from usher.session_events where session_id = 'd5000000-0000-4000-8000-000000000001'),
  (select array_agg(n order by n) from generate_series(1, (select seq from usher.session_heads where session_id = 'd5000000-0000-4000-8000-000000000001')) as n),
  'the numbers have no hole'
);

select * from finish();
rollback;
