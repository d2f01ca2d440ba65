-- Attacks: what somebody with a token and a REST client would try, and what stops each.
--
-- The plain ones (another's row, another's role, a table of ours) are cells of 04_matrix.sql; here are those that take
-- a trick, and the matrix of the batch functions, where the gateway names the author.
begin;
create extension if not exists pgtap;
-- Whoever runs this plays the gateway. A superuser may already; Supabase's `postgres` has to join it first.
do $$
begin
  -- From Postgres 16 on, whoever made a role is a member that may not become it.
  if not pg_has_role(
    session_user, 'usher_gateway', case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end
  ) then
    execute format('grant usher_gateway to %I', session_user);
  end if;
end
$$;
select plan(50);

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
-- 1 streams, 2 moderates, 3 is a viewer, 4 a member of the private session, 5 is banned, 6 moderates the platform.
insert into auth.users (id, raw_user_meta_data)
select pg_temp.id('aa', n), jsonb_build_object('username', 'tap_' || n) from generate_series(1, 6) as n;
update public.profiles set role = 'streamer' where id = pg_temp.id('aa', 1);
update public.profiles set role = 'moderator' where id = pg_temp.id('aa', 6);
insert into public.movies (id, title) select pg_temp.id('ff', n), 'Movie ' || n from generate_series(1, 3) as n;
insert into public.movie_sessions (id, streamer_id, title, status, visibility)
values
  (pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'public', 'live', 'public'),
  (pg_temp.id('5e', 2), pg_temp.id('aa', 1), 'private', 'live', 'private'),
  (pg_temp.id('5e', 3), pg_temp.id('aa', 1), 'over', 'ended', 'public');
insert into public.session_members (session_id, user_id, role)
values (pg_temp.id('5e', 1), pg_temp.id('aa', 2), 'moderator'), (pg_temp.id('5e', 2), pg_temp.id('aa', 4), 'viewer');
insert into public.session_bans (session_id, user_id) values (pg_temp.id('5e', 1), pg_temp.id('aa', 5));
insert into public.voting_sessions (id, session_id, question, results_visibility)
values (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'which?', 'after_close'), (pg_temp.id('bb', 2), pg_temp.id('5e', 2), 'which?', 'live');
insert into public.voting_options (voting_session_id, movie_id)
select pg_temp.id('bb', v), pg_temp.id('ff', m) from generate_series(1, 2) as v cross join generate_series(1, 2) as m;
update public.voting_sessions set state = 'open' where id in (pg_temp.id('bb', 1), pg_temp.id('bb', 2));
insert into public.chat_messages (id, session_id, user_id, body)
values (pg_temp.id('cc', 1), pg_temp.id('5e', 1), pg_temp.id('aa', 3), 'mine'), (pg_temp.id('cc', 2), pg_temp.id('5e', 2), pg_temp.id('aa', 4), 'inside');
insert into public.overlay_tokens (id, session_id, label, expires_at, revoked_at, created_at)
values
  (pg_temp.id('dd', 1), pg_temp.id('5e', 2), 'live', now() + interval '1 day', null, now()),
  (pg_temp.id('dd', 2), pg_temp.id('5e', 2), 'revoked', now() + interval '1 day', now(), now()),
  (pg_temp.id('dd', 3), pg_temp.id('5e', 2), 'expired', now() - interval '1 s', null, now() - interval '1 day');

create function pg_temp.claims(who uuid, role text default 'authenticated', more jsonb default '{}') returns jsonb
language sql
as $$
  select jsonb_build_object('sub', who, 'role', role) || more
$$;
create function pg_temp.be(who integer, role text default 'authenticated', more jsonb default '{}') returns void
language plpgsql
as $$
begin
  perform set_config('role', 'none', true);
  perform set_config('request.jwt.claims', pg_temp.claims(pg_temp.id('aa', who), role, more)::text, true),
    set_config('role', role, true);
end
$$;

-- Claims -----------------------------------------------------------------------------------------------------

-- What users write about themselves is in the token, too.
select pg_temp.be(3, more := '{"user_metadata": {"role": "admin"}, "app_metadata": {"role": "admin"}, "is_admin": true}');
select is(usher.is_admin(), false, 'metadata makes no admin');
select is(usher.is_staff(), false, 'nor staff');
select pg_temp.be(3, more := jsonb_build_object('usher_overlay', pg_temp.id('5e', 2)));
select is(usher.admit(pg_temp.id('5e', 2)) ->> 'refused', 'forbidden', 'a claim without a token behind it opens nothing');
select pg_temp.be(3);
select throws_ok($$alter table public.chat_messages disable row level security$$, '42501', null, 'row level security stays on');
select throws_ok($$alter policy votes_select on public.votes using (true)$$, '42501', null, 'policies stay as they are');
select throws_ok($$create function usher.is_admin() returns boolean language sql as 'select true'$$, '42501', null, 'no function is put in place of ours');
select throws_ok($$create table usher.profiles (id uuid)$$, '42501', null, 'nor a table');

-- A table of one's own before ours on the path: functions that run as their owner must not see it.
create temp table profiles as select pg_temp.id('aa', 3) as id, 'admin'::text as role;
-- With the caller's own path behind it: pgTAP may be in another schema.
select set_config('search_path', 'pg_temp, ' || current_setting('search_path'), true);
select is(usher.is_admin(), false, 'a profile of one''s own making is not asked');
reset search_path;

-- Writing ----------------------------------------------------------------------------------------------------

select throws_ok($$update public.chat_messages set session_id = '5e000000-0000-4000-8000-000000000002'$$, '42501', null, 'a message does not move to another session');
select throws_ok($$insert into public.chat_messages (session_id, body, deleted_by) values ('5e000000-0000-4000-8000-000000000001', 'x', 'aa000000-0000-4000-8000-000000000001')$$, '42501', null, 'nobody is blamed for a deletion');
select throws_ok($$insert into public.chat_messages (session_id, body) values (null, 'x')$$, 'US005', null, 'no session, no message');
select throws_ok($$insert into public.chat_messages (session_id, body) select id, 'x' from unnest(array['5e000000-0000-4000-8000-000000000001', '5e000000-0000-4000-8000-000000000002']::uuid[]) as id$$, 'US005', null, 'one forbidden row takes the whole statement down');
select lives_ok($$update public.chat_messages set deleted_at = 'infinity'$$, 'deleting everything');
select results_eq($$select id from public.chat_messages where deleted_at is not null$$, $$values ('cc000000-0000-4000-8000-000000000001'::uuid)$$, 'deletes one''s own');
select ok((select deleted_at < now() + interval '1 minute' from public.chat_messages where id = pg_temp.id('cc', 1)), 'at a time that the database says');
select throws_ok($$update public.chat_messages set deleted_at = null$$, 'US009', null, 'and for good');

-- Users choose the ids of their messages. One that was removed for good belongs to the session whose log has it.
set local role none;
insert into public.chat_messages (id, session_id, user_id, body, nonce)
values (pg_temp.id('cc', 7), pg_temp.id('5e', 1), pg_temp.id('aa', 3), 'removed', pg_temp.id('00', 7));
do $$ begin perform usher.settle(); end $$;
delete from public.chat_messages where id = pg_temp.id('cc', 7);
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(3);
select throws_ok(
  $$insert into public.chat_messages (id, session_id, body) values ('cc000000-0000-4000-8000-000000000007', '5e000000-0000-4000-8000-000000000001', 'x')$$,
  'US009', null, 'nobody writes under the id of a message that was removed'
);
select lives_ok(
  $$insert into public.chat_messages (id, session_id, body) values ('cc000000-0000-4000-8000-000000000008', '5e000000-0000-4000-8000-000000000001', 'x')$$,
  'a new id is fine'
);
-- An owner may. What is read then is the new message in its own place.
set local role none;
insert into public.movie_sessions (id, streamer_id, title, status)
values (pg_temp.id('5e', 9), pg_temp.id('aa', 1), 'elsewhere', 'live');
insert into public.chat_messages (id, session_id, user_id, body) values (pg_temp.id('cc', 7), pg_temp.id('5e', 9), pg_temp.id('aa', 3), 'moved here');
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(3);
select is_empty(
  $$select 1 from usher.messages_before('5e000000-0000-4000-8000-000000000001', null, null, null, 50) as p cross join unnest(p.messages) as m where m like '%moved here%'$$,
  'the history of a session has no message of another'
);
set local role none;
delete from public.chat_messages where id = pg_temp.id('cc', 7);
insert into public.chat_messages (id, session_id, user_id, body, nonce)
values (pg_temp.id('cc', 7), pg_temp.id('5e', 9), pg_temp.id('aa', 3), 'once more', pg_temp.id('00', 7));
do $$ begin perform usher.settle(); end $$;
select results_eq(
  $$
    select item, seq, message from usher.post_messages(jsonb_build_array(jsonb_build_object(
      'role', 'authenticated', 'claims', pg_temp.claims(pg_temp.id('aa', 3)), 'session', pg_temp.id('5e', 9),
      'nonce', pg_temp.id('00', 7), 'body', 'once more'
    )))
  $$,
  $$values (0, 3::bigint, 'cc000000-0000-4000-8000-000000000007'::uuid)$$,
  'a message is acknowledged once, by its last number'
);
delete from public.movie_sessions where id = pg_temp.id('5e', 9);
delete from public.chat_messages where id = pg_temp.id('cc', 8);
do $$ begin perform usher.settle(); end $$;

-- A policy of the project's own that hides a session keeps writers out as well.
set local role none;
create policy project_hides on public.movie_sessions as restrictive for select to authenticated using (title <> 'public');
select pg_temp.be(3);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('5e000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'who may not see a session does not write there');
select throws_ok($$insert into public.votes (voting_session_id, movie_id) values ('bb000000-0000-4000-8000-000000000001', 'ff000000-0000-4000-8000-000000000001')$$, '42501', null, 'nor vote');
select is(usher.admit(pg_temp.id('5e', 1)), null, 'nor watch');
set local role none;
drop policy project_hides on public.movie_sessions;

-- Reading ----------------------------------------------------------------------------------------------------

select pg_temp.be(3);
select is_empty($$select 1 from public.chat_messages m join public.movie_sessions s on s.id = m.session_id where s.visibility = 'private'$$, 'a join opens no door');
select throws_ok($$select usher.count_votes('bb000000-0000-4000-8000-000000000001')$$, '42501', null, 'secret counts stay secret');
select is((select vote_total from public.movies where id = pg_temp.id('ff', 1)), 0::bigint, 'also in the movies'' totals');
select is_empty($$select 1 from public.votes$$, 'nobody reads another''s vote');
select throws_ok($$select p from public.profiles p$$, '42501', null, 'whole rows hold preferences');
select pg_temp.be(5);
select is_empty($$select 1 from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001'$$, 'who is banned reads no chat');
select is(usher.admit(pg_temp.id('5e', 1)) ->> 'refused', 'banned', 'and is told so at the door');

-- Overlays ---------------------------------------------------------------------------------------------------

create temp table doors (token integer, session integer, answer jsonb);
grant insert on doors to anon;
do $$
declare
  try record;
begin
  for try in select t.n as token, s.n as session from generate_series(1, 4) as t (n) cross join generate_series(1, 2) as s (n) loop
    perform set_config('role', 'none', true);
    perform set_config(
      'request.jwt.claims',
      pg_temp.claims(pg_temp.id('dd', try.token), 'anon', jsonb_build_object('usher_overlay', pg_temp.id('5e', 2)))::text, true
    );
    perform set_config('role', 'anon', true);
    insert into pg_temp.doors values (try.token, try.session, usher.admit(
      case try.session when 1 then '5e000000-0000-4000-8000-000000000001'::uuid else '5e000000-0000-4000-8000-000000000002' end
    ));
  end loop;
  perform set_config('role', 'none', true);
end
$$;
select is((select answer ->> 'send' from doors where token = 1 and session = 2), 'false', 'a live overlay watches its session and does not write');
select is((select answer ->> 'refused' from doors where token = 1 and session = 1), 'forbidden', 'it watches no other');
select is((select answer ->> 'refused' from doors where token = 2 and session = 2), 'forbidden', 'a revoked one watches nothing');
select is((select answer ->> 'refused' from doors where token = 3 and session = 2), 'forbidden', 'nor does an expired one');
select is((select answer ->> 'refused' from doors where token = 4 and session = 2), 'forbidden', 'nor one that was never issued');

-- The batch functions ----------------------------------------------------------------------------------------

create function pg_temp.post(who jsonb, role text, session integer, body text) returns text
language sql
as $$
  select coalesce(p.refusal, 'posted')
  from usher.post_messages(jsonb_build_array(jsonb_build_object(
    'role', role, 'claims', who, 'session', pg_temp.id('5e', session), 'nonce', gen_random_uuid(), 'body', body
  ))) as p
$$;
create function pg_temp.vote(who jsonb, role text, voting integer, movie integer) returns text
language sql
as $$
  select coalesce(v.refusal, 'counted')
  from usher.cast_votes(jsonb_build_array(jsonb_build_object(
    'role', role, 'claims', who, 'voting', pg_temp.id('bb', voting), 'movie', pg_temp.id('ff', movie)
  ))) as v
$$;
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 'x'), 'posted', 'a viewer posts');
-- The legacy settings win over the claims where they are set. A batch begins without them.
do $$
begin
  perform set_config('request.jwt.claim.sub', pg_temp.id('aa', 1)::text, true);
end
$$;
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 'whose?'), 'posted', 'a setting that was left behind');
select is((select user_id from public.chat_messages where body = 'whose?'), pg_temp.id('aa', 3), 'makes nobody else of the author');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'service_role', 1, 'x'), 'forbidden', 'no role but those of users is taken');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'postgres', 1, 'x'), 'forbidden', 'whatever it is called');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('dd', 1), 'anon'), 'anon', 2, 'x'), 'forbidden', 'an overlay posts nothing');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 5)), 'authenticated', 1, 'x'), 'banned', 'who is banned hears so');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 2, 'x'), 'not_found', 'a private session is not there');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 3, 'x'), 'session_ended', 'an ended one is over');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 1), 'counted', 'a viewer votes');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 3), 'bad_request', 'not off the ballot');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 2, 1), 'not_found', 'not behind the door');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('dd', 1), 'anon'), 'anon', 2, 1), 'forbidden', 'an overlay never');
-- Often enough for Postgres to keep the plans of what a refusal asks.
select is(
  (
    select string_agg(coalesce(v.refusal, 'counted'), ' ' order by v.item)
    from usher.cast_votes((
      select jsonb_agg(jsonb_build_object(
        'role', case when n > 12 then 'authenticated' else 'anon' end, 'again', n % 2 = 0,
        'claims', pg_temp.claims(pg_temp.id('aa', 3)), 'voting', pg_temp.id('bb', 1), 'movie', pg_temp.id('ff', 2)
      ))
      from generate_series(1, 13) as n
    )) as v
  ),
  repeat('forbidden ', 12) || 'counted',
  'many votes that are refused take no other down'
);
update public.voting_sessions set closes_at = clock_timestamp() where id = pg_temp.id('bb', 1);
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 4)), 'authenticated', 1, 1), 'voting_closed', 'not after the time, though nobody has closed it yet');

select * from finish();
rollback;
