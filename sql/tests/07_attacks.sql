-- Attacks that a user with a token and a REST client could try. Each test shows that one of them fails.
--
-- The simple ones (another user's row, another role, a table of Usher) are cells of 04_matrix.sql. This file has those
-- that need a trick, and the batch functions, where the gateway names the author.
begin;
create extension if not exists pgtap;
-- The tests act as the gateway. A superuser may do that already; Supabase's `postgres` first needs the role.
do $$
begin
  -- Since Postgres 16, the creator of a role is a member that cannot become the role.
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
-- 1 is the streamer, 2 a moderator, 3 a viewer, 4 a member of the private session, 5 is banned, 6 moderates the
-- platform.
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

-- Tokens also contain metadata that users write themselves.
select pg_temp.be(3, more := '{"user_metadata": {"role": "admin"}, "app_metadata": {"role": "admin"}, "is_admin": true}');
select is(usher.is_admin(), false, 'metadata in a token does not make an admin');
select is(usher.is_staff(), false, 'metadata in a token does not make a moderator');
select pg_temp.be(3, more := jsonb_build_object('usher_overlay', pg_temp.id('5e', 2)));
select is(usher.admit(pg_temp.id('5e', 2)) ->> 'refused', 'forbidden', 'an overlay claim without a token row is refused');
select pg_temp.be(3);
select throws_ok($$alter table public.chat_messages disable row level security$$, '42501', null, 'a user cannot disable row level security');
select throws_ok($$alter policy votes_select on public.votes using (true)$$, '42501', null, 'a user cannot change a policy');
select throws_ok($$create function usher.is_admin() returns boolean language sql as 'select true'$$, '42501', null, 'a user cannot replace a function');
select throws_ok($$create table usher.profiles (id uuid)$$, '42501', null, 'a user cannot create a table in usher');

-- The caller's own table comes before Usher's in the search path. Functions that run as their owner must not see it.
create temp table profiles as select pg_temp.id('aa', 3) as id, 'admin'::text as role;
-- Appends the caller's own path, because pgTAP may be in another schema.
select set_config('search_path', 'pg_temp, ' || current_setting('search_path'), true);
select is(usher.is_admin(), false, 'a temporary table does not replace the profiles');
reset search_path;

-- Writing ----------------------------------------------------------------------------------------------------

select throws_ok($$update public.chat_messages set session_id = '5e000000-0000-4000-8000-000000000002'$$, '42501', null, 'a message cannot move to another session');
select throws_ok($$insert into public.chat_messages (session_id, body, deleted_by) values ('5e000000-0000-4000-8000-000000000001', 'x', 'aa000000-0000-4000-8000-000000000001')$$, '42501', null, 'a message cannot name a user as its deleter');
select throws_ok($$insert into public.chat_messages (session_id, body) values (null, 'x')$$, 'US005', null, 'a message needs a session');
select throws_ok($$insert into public.chat_messages (session_id, body) select id, 'x' from unnest(array['5e000000-0000-4000-8000-000000000001', '5e000000-0000-4000-8000-000000000002']::uuid[]) as id$$, 'US005', null, 'one forbidden row makes the whole statement fail');
select lives_ok($$update public.chat_messages set deleted_at = 'infinity'$$, 'a viewer can run a delete of all messages');
select results_eq($$select id from public.chat_messages where deleted_at is not null$$, $$values ('cc000000-0000-4000-8000-000000000001'::uuid)$$, 'a delete of all messages affects only own messages');
select ok((select deleted_at < now() + interval '1 minute' from public.chat_messages where id = pg_temp.id('cc', 1)), 'the database sets the time of a deletion');
select throws_ok($$update public.chat_messages set deleted_at = null$$, 'US009', null, 'a deletion cannot be undone');

-- Users choose the ids of their messages. The id of a removed message belongs to the session whose log contains it.
set local role none;
insert into public.chat_messages (id, session_id, user_id, body, nonce)
values (pg_temp.id('cc', 7), pg_temp.id('5e', 1), pg_temp.id('aa', 3), 'removed', pg_temp.id('00', 7));
do $$ begin perform usher.settle(); end $$;
delete from public.chat_messages where id = pg_temp.id('cc', 7);
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(3);
select throws_ok(
  $$insert into public.chat_messages (id, session_id, body) values ('cc000000-0000-4000-8000-000000000007', '5e000000-0000-4000-8000-000000000001', 'x')$$,
  'US009', null, 'a new message cannot use the id of a removed one'
);
select lives_ok(
  $$insert into public.chat_messages (id, session_id, body) values ('cc000000-0000-4000-8000-000000000008', '5e000000-0000-4000-8000-000000000001', 'x')$$,
  'a new message can use a new id'
);
-- A table owner can reuse it. Readers then see the new message in its own session only.
set local role none;
insert into public.movie_sessions (id, streamer_id, title, status)
values (pg_temp.id('5e', 9), pg_temp.id('aa', 1), 'elsewhere', 'live');
insert into public.chat_messages (id, session_id, user_id, body) values (pg_temp.id('cc', 7), pg_temp.id('5e', 9), pg_temp.id('aa', 3), 'moved here');
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(3);
select is_empty(
  $$select 1 from usher.messages_before('5e000000-0000-4000-8000-000000000001', null, null, null, 50) as p cross join unnest(p.messages) as m where m like '%moved here%'$$,
  'the history of a session has no message of another session'
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
  'a message is acknowledged once, with its newest number'
);
delete from public.movie_sessions where id = pg_temp.id('5e', 9);
delete from public.chat_messages where id = pg_temp.id('cc', 8);
do $$ begin perform usher.settle(); end $$;

-- A project's own policy that hides a session also prevents writes to it.
set local role none;
create policy project_hides on public.movie_sessions as restrictive for select to authenticated using (title <> 'public');
select pg_temp.be(3);
select throws_ok($$insert into public.chat_messages (session_id, body) values ('5e000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'a viewer cannot write in a hidden session');
select throws_ok($$insert into public.votes (voting_session_id, movie_id) values ('bb000000-0000-4000-8000-000000000001', 'ff000000-0000-4000-8000-000000000001')$$, '42501', null, 'a viewer cannot vote in a hidden session');
select is(usher.admit(pg_temp.id('5e', 1)), null, 'a viewer is not admitted to a hidden session');
set local role none;
drop policy project_hides on public.movie_sessions;

-- Reading ----------------------------------------------------------------------------------------------------

select pg_temp.be(3);
select is_empty($$select 1 from public.chat_messages m join public.movie_sessions s on s.id = m.session_id where s.visibility = 'private'$$, 'a join does not reveal messages of private sessions');
select throws_ok($$select usher.count_votes('bb000000-0000-4000-8000-000000000001')$$, '42501', null, 'a user cannot count secret votes');
select is((select vote_total from public.movies where id = pg_temp.id('ff', 1)), 0::bigint, 'the totals of movies do not include secret counts');
select is_empty($$select 1 from public.votes$$, 'a user cannot read votes of others');
select throws_ok($$select p from public.profiles p$$, '42501', null, 'a user cannot read whole rows of profiles, which contain preferences');
select pg_temp.be(5);
select is_empty($$select 1 from public.chat_messages where session_id = '5e000000-0000-4000-8000-000000000001'$$, 'a banned user cannot read chat');
select is(usher.admit(pg_temp.id('5e', 1)) ->> 'refused', 'banned', 'a banned user is not admitted');

-- Overlays ---------------------------------------------------------------------------------------------------

create temp table admissions (token integer, session integer, answer jsonb);
grant insert on admissions to anon;
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
    insert into pg_temp.admissions values (try.token, try.session, usher.admit(
      case try.session when 1 then '5e000000-0000-4000-8000-000000000001'::uuid else '5e000000-0000-4000-8000-000000000002' end
    ));
  end loop;
  perform set_config('role', 'none', true);
end
$$;
select is((select answer ->> 'send' from admissions where token = 1 and session = 2), 'false', 'a valid overlay token can watch its session and cannot write');
select is((select answer ->> 'refused' from admissions where token = 1 and session = 1), 'forbidden', 'a valid overlay token cannot watch another session');
select is((select answer ->> 'refused' from admissions where token = 2 and session = 2), 'forbidden', 'a revoked overlay token is refused');
select is((select answer ->> 'refused' from admissions where token = 3 and session = 2), 'forbidden', 'an expired overlay token is refused');
select is((select answer ->> 'refused' from admissions where token = 4 and session = 2), 'forbidden', 'an overlay token that was never issued is refused');

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
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 'x'), 'posted', 'a viewer can post');
-- auth.uid() prefers the legacy settings to the claims. A batch clears them first.
do $$
begin
  perform set_config('request.jwt.claim.sub', pg_temp.id('aa', 1)::text, true);
end
$$;
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 'whose?'), 'posted', 'a leftover legacy setting does not stop a batch');
select is((select user_id from public.chat_messages where body = 'whose?'), pg_temp.id('aa', 3), 'a leftover legacy setting does not change the author');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'service_role', 1, 'x'), 'forbidden', 'a batch refuses the role service_role');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'postgres', 1, 'x'), 'forbidden', 'a batch refuses the role postgres');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('dd', 1), 'anon'), 'anon', 2, 'x'), 'forbidden', 'an overlay cannot post');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 5)), 'authenticated', 1, 'x'), 'banned', 'a banned user gets banned');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 2, 'x'), 'not_found', 'a private session gets not_found');
select is(pg_temp.post(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 3, 'x'), 'session_ended', 'an ended session gets session_ended');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 1), 'counted', 'a viewer can vote');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 1, 3), 'bad_request', 'a movie that is not on the ballot gets bad_request');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 3)), 'authenticated', 2, 1), 'not_found', 'a poll of a private session gets not_found');
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('dd', 1), 'anon'), 'anon', 2, 1), 'forbidden', 'an overlay cannot vote');
-- Often enough that Postgres caches the plans of the queries that a refusal runs.
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
  'many refused votes do not affect another vote'
);
update public.voting_sessions set closes_at = clock_timestamp() where id = pg_temp.id('bb', 1);
select is(pg_temp.vote(pg_temp.claims(pg_temp.id('aa', 4)), 'authenticated', 1, 1), 'voting_closed', 'a poll past its closing time gets voting_closed, even before it is closed');

select * from finish();
rollback;
