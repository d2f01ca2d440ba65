-- Chat: the rights to write, edit, delete and read messages, and the events in the log.
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

select is((select count(*)::integer from public.profiles where id::text like 'd0000000%' and role = 'admin'), 0, 'metadata cannot set the role');

-- The log is written at the commit. A test that reads it earlier settles first.
create function pg_temp.settle() returns void
language plpgsql
security definer
as $$
begin
  perform usher.settle();
end
$$;

select pg_temp.be(3);
select lives_ok($$insert into public.chat_messages (id, session_id, body) values ('dc000000-0000-4000-8000-000000000001', 'd5000000-0000-4000-8000-000000000001', 'one')$$, 'a viewer can write');
do $$ begin perform pg_temp.settle(); end $$;
select throws_ok($$insert into public.chat_messages (session_id, user_id, body) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000004', 'x')$$, '42501', null, 'a viewer cannot write as another user');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000002', 'x')$$, 'US005', null, 'a viewer cannot write in a private session');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', '')$$, 'US007', null, 'a message cannot be empty');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', repeat('é', 2001))$$, 'US006', null, 'a message cannot have 2001 characters');
select lives_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', repeat('é', 2000))$$, 'a message can have 2000 characters');
select throws_ok($$update public.chat_messages set user_id = 'd0000000-0000-4000-8000-000000000004'$$, '42501', null, 'the author of a message cannot change');
select lives_ok($$update public.chat_messages set body = 'two' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'the author can edit a message');
do $$ begin perform pg_temp.settle(); end $$;
select isnt((select edited_at from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), null, 'an edited message has the time of the edit');

select pg_temp.be(4);
update public.chat_messages set body = 'mine now' where id = 'dc000000-0000-4000-8000-000000000001';
select is((select body from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'two', 'another viewer cannot edit it');
update public.chat_messages set deleted_at = now() where id = 'dc000000-0000-4000-8000-000000000001';
select is((select deleted_at from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), null, 'another viewer cannot delete it');
delete from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001';
select isnt_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'another viewer cannot remove it');

select pg_temp.be(2);
select throws_ok($$update public.chat_messages set body = 'x' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'US004', null, 'a moderator cannot edit it');
select lives_ok($$update public.chat_messages set deleted_at = '2000-01-01' where id = 'dc000000-0000-4000-8000-000000000001'$$, 'a moderator can delete it');
select is((select deleted_by from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'd0000000-0000-4000-8000-000000000002', 'a deleted message names the moderator');
select ok((select deleted_at > '2020-01-01' from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'), 'a deleted message has the time of the database');

select pg_temp.be(4);
select is_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'other viewers cannot see a deleted message');
set local role anon;
select is_empty($$select 1 from public.chat_messages where id = 'dc000000-0000-4000-8000-000000000001'$$, 'anon cannot see a deleted message');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'anon cannot write');
reset role;
do $$ begin perform usher.settle(); end $$;

select is(
  (
    select array_agg(type || coalesce(':' || (data ->> 'body'), '') order by seq)
    from usher.session_events
    where message_id = 'dc000000-0000-4000-8000-000000000001'
  ),
  array['chat.created', 'chat.updated', 'chat.deleted'],
  'the log has the events of a deleted message without its text'
);

-- Bans.
select pg_temp.be(4);
select throws_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003')$$, '42501', null, 'a viewer cannot ban');
select pg_temp.be(2);
select throws_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000001')$$, '42501', null, 'a moderator cannot ban the streamer');
select lives_ok($$insert into public.session_bans (session_id, user_id, until, reason) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003', now() + interval '1 hour', 'spoilers')$$, 'a moderator can time out a viewer');
select lives_ok($$insert into public.session_bans (session_id, user_id) values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000004')$$, 'a moderator can ban a viewer');
select pg_temp.be(3);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, 'US002', null, 'a timed-out viewer cannot write');
select isnt_empty($$select 1 from public.chat_messages where session_id = 'd5000000-0000-4000-8000-000000000001'$$, 'a timed-out viewer can read');
select is(usher.admit('d5000000-0000-4000-8000-000000000001') - 'ask_again_ms', '{"send": false, "vote": false, "moderate": false, "mine": {}}', 'a timed-out viewer is admitted without rights to write');
select ok((usher.admit('d5000000-0000-4000-8000-000000000001') ->> 'ask_again_ms')::bigint > 0, 'admission says when a time-out ends');
select pg_temp.be(4);
select is_empty($$select 1 from public.chat_messages where session_id = 'd5000000-0000-4000-8000-000000000001'$$, 'a banned viewer cannot read');
select is(usher.admit('d5000000-0000-4000-8000-000000000001'), '{"refused": "banned"}', 'a banned viewer is not admitted');
select is(usher.admit('d5000000-0000-4000-8000-000000000002'), null, 'a private session is hidden from users who are not members');
reset role;
do $$ begin perform usher.settle(); end $$;
select is_empty($$select 1 from usher.session_events where data::text like '%spoilers%'$$, 'the reason of a ban is not in the log');

-- Slow mode and ended sessions.
update public.movie_sessions set slow_mode_seconds = 60 where id = 'd5000000-0000-4000-8000-000000000001';
select pg_temp.be(5);
insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'first');
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'second')$$, 'US001', null, 'slow mode refuses a second message');
reset role;
update public.movie_sessions set status = 'ended' where id = 'd5000000-0000-4000-8000-000000000001';
select pg_temp.be(6);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('d5000000-0000-4000-8000-000000000001', 'late')$$, 'US003', null, 'an ended session refuses messages');
reset role;
do $$ begin perform usher.settle(); end $$;

select is(
  (select array_agg(seq order by seq) from usher.session_events where session_id = 'd5000000-0000-4000-8000-000000000001'),
  (select array_agg(n order by n) from generate_series(1, (select seq from usher.session_heads where session_id = 'd5000000-0000-4000-8000-000000000001')) as n),
  'the numbers of the log have no gap'
);

select * from finish();
rollback;
