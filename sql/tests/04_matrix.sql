-- The matrix of rights. Each row of the grid is a statement, and each column is an actor that tries it.
--
-- A cell is the number of rows that the statement read or wrote, or the SQLSTATE that refused it. `-` stands for 42501,
-- insufficient privilege. Every statement is undone.
--
-- The actors, and their rights in the sessions of this file:
--   anon      no account
--   overlay   a token for the private session
--   stranger  an account and nothing else
--   member    member of all sessions
--   writer    member who has written and voted
--   helper    moderator of all sessions
--   streamer  owner of all sessions
--   rival     streamer of other sessions
--   staff     moderator of the platform
--   admin     admin of the platform
--   banned    banned permanently from all sessions
--   muted     timed out in all sessions for an hour
--   gateway   usher_gateway without claims
--   server    service_role, which bypasses all policies
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
-- Supabase refuses direct deletes in storage without this setting, which its Storage API also uses.
select set_config('storage.allow_delete_query', 'true', true);

-- Test data --------------------------------------------------------------------------------------------------

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;

create temp table people (n integer, name text, role text);
insert into people
values
  (1, 'stranger', 'viewer'), (2, 'member', 'viewer'), (3, 'helper', 'viewer'), (4, 'streamer', 'streamer'),
  (5, 'rival', 'streamer'), (6, 'staff', 'moderator'), (7, 'admin', 'admin'), (8, 'banned', 'viewer'),
  (9, 'muted', 'viewer'), (10, 'writer', 'viewer');

insert into auth.users (id, email, raw_user_meta_data)
select pg_temp.id('aa', p.n), p.name || '@matrix.example', jsonb_build_object('username', 'mx_' || p.name)
from people p;
update public.profiles set role = p.role from people p where id = pg_temp.id('aa', p.n);

insert into public.movies (id, title, created_by)
select pg_temp.id('ff', n), 'Movie ' || n, pg_temp.id('aa', 4) from generate_series(1, 4) as n;

insert into public.movie_sessions (id, streamer_id, title, status, visibility)
values
  (pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'open to all', 'live', 'public'),
  (pg_temp.id('5e', 2), pg_temp.id('aa', 4), 'members write', 'live', 'members'),
  (pg_temp.id('5e', 3), pg_temp.id('aa', 4), 'members only', 'live', 'private'),
  (pg_temp.id('5e', 4), pg_temp.id('aa', 4), 'ended', 'ended', 'public');
insert into public.session_members (session_id, user_id, role)
select pg_temp.id('5e', s), pg_temp.id('aa', u), case u when 3 then 'moderator' else 'viewer' end
from generate_series(1, 4) as s
cross join unnest('{2,3,8,9,10}'::integer[]) as u;
insert into public.session_bans (session_id, user_id, until)
select pg_temp.id('5e', s), pg_temp.id('aa', u), case u when 9 then now() + interval '1 hour' end
from generate_series(1, 4) as s
cross join unnest('{8,9}'::integer[]) as u;

-- Polls: 1 open, 2 closed and 3 a draft in the public session; 4 open for members with final votes; 5 open in the
-- private session.
insert into public.voting_sessions (id, session_id, question, allow_change)
select pg_temp.id('bb', v.n), pg_temp.id('5e', v.session), 'which?', v.n <> 4
from (values (1, 1), (2, 1), (3, 1), (4, 2), (5, 3)) as v (n, session);
insert into public.voting_options (voting_session_id, movie_id, position)
select pg_temp.id('bb', v), pg_temp.id('ff', m), m from generate_series(1, 5) as v cross join generate_series(1, 3) as m;
update public.voting_sessions set state = 'open' where id = pg_temp.id('bb', 2);
update public.voting_sessions set state = 'closed' where id = pg_temp.id('bb', 2);
update public.voting_sessions set state = 'open' where id in (pg_temp.id('bb', 1), pg_temp.id('bb', 4), pg_temp.id('bb', 5));
insert into public.votes (voting_session_id, user_id, movie_id)
select pg_temp.id('bb', v), pg_temp.id('aa', u), pg_temp.id('ff', 1)
from unnest('{1,4,5}'::integer[]) as v
cross join unnest('{3,10}'::integer[]) as u;

insert into public.chat_messages (id, session_id, user_id, body)
select pg_temp.id('cc', s), pg_temp.id('5e', s), pg_temp.id('aa', 10), 'hello' from generate_series(1, 4) as s;
insert into public.chat_messages (id, session_id, user_id, body, deleted_at, deleted_by)
values (pg_temp.id('cc', 5), pg_temp.id('5e', 1), pg_temp.id('aa', 10), 'gone', now(), pg_temp.id('aa', 10));

insert into public.overlay_tokens (id, session_id, label, created_by, expires_at, revoked_at)
values
  (pg_temp.id('dd', 1), pg_temp.id('5e', 3), 'live', pg_temp.id('aa', 4), now() + interval '1 day', null),
  (pg_temp.id('dd', 2), pg_temp.id('5e', 3), 'revoked', pg_temp.id('aa', 4), now() + interval '1 day', now());

insert into storage.objects (bucket_id, name)
select b.name, pg_temp.id('aa', 4) || '/file.png' from (values ('avatars'), ('posters')) as b (name);
insert into storage.buckets (id, name) values ('elsewhere', 'elsewhere');

-- Writes the log now. Otherwise only the commit would.
do $$ begin perform usher.settle(); end $$;

-- The statements: $me is the actor, $id(kind,n) is one of the rows above ------------------------------------------

create temp table statements (name text primary key, statement text);
insert into statements
values
  ('profiles read', $$select id, username, display_name, avatar_path, role, created_at, updated_at from public.profiles where id = $id(aa,10)$$),
  ('profiles read preferences', $$select preferences from public.profiles where id = $me$$),
  ('profiles rename oneself', $$update public.profiles set username = 'mx_new', display_name = 'new', avatar_path = 'x', preferences = '{}' where id = $me$$),
  ('profiles rename another', $$update public.profiles set display_name = 'new' where id = $id(aa,10)$$),
  ('profiles promote oneself', $$update public.profiles set role = 'admin' where id = $me$$),
  ('profiles promote another', $$update public.profiles set role = 'streamer' where id = $id(aa,10)$$),
  ('profiles insert', $$insert into public.profiles (id, username, display_name) values (gen_random_uuid(), 'mx_new', 'x')$$),
  ('profiles delete oneself', $$delete from public.profiles where id = $me$$),
  ('profiles delete another', $$delete from public.profiles where id = $id(aa,10)$$),
  ('profiles my_profile()', $$select 1 from public.my_profile()$$),
  ('movies read', $$select 1 from public.movies where id = $id(ff,1)$$),
  ('movies insert', $$insert into public.movies (title) values ('new')$$),
  ('movies insert for another', $$insert into public.movies (title, created_by) values ('new', $id(aa,10))$$),
  ('movies insert all columns', $$insert into public.movies (title, description, release_year, poster_path, metadata, created_by) values ('new', '', 1999, 'x', '{}', $me)$$),
  ('movies update', $$update public.movies set title = 'new', description = '', release_year = 1999, poster_path = 'x', metadata = '{}' where id = $id(ff,4)$$),
  ('movies raise its votes', $$update public.movies set vote_total = 9 where id = $id(ff,4)$$),
  ('movies delete', $$delete from public.movies where id = $id(ff,4)$$),
  ('movie_sessions read public', $$select 1 from public.movie_sessions where id = $id(5e,1)$$),
  ('movie_sessions read members', $$select 1 from public.movie_sessions where id = $id(5e,2)$$),
  ('movie_sessions read private', $$select 1 from public.movie_sessions where id = $id(5e,3)$$),
  ('movie_sessions insert', $$insert into public.movie_sessions (streamer_id, title, movie_id, status, visibility, slow_mode_seconds, chat_enabled, starts_at) values ($me, 'new', $id(ff,1), 'scheduled', 'private', 0, true, now())$$),
  ('movie_sessions insert for another', $$insert into public.movie_sessions (title, streamer_id) values ('new', $id(aa,10))$$),
  ('movie_sessions slow mode', $$update public.movie_sessions set slow_mode_seconds = 5, chat_enabled = false where id = $id(5e,1)$$),
  ('movie_sessions slow mode, private', $$update public.movie_sessions set slow_mode_seconds = 5 where id = $id(5e,3)$$),
  ('movie_sessions rearrange', $$update public.movie_sessions set title = 'new', movie_id = $id(ff,1), visibility = 'private', starts_at = now() where id = $id(5e,1)$$),
  ('movie_sessions end', $$update public.movie_sessions set status = 'ended' where id = $id(5e,1)$$),
  ('movie_sessions revive an ended one', $$update public.movie_sessions set status = 'live' where id = $id(5e,4)$$),
  ('movie_sessions back to scheduled', $$update public.movie_sessions set status = 'scheduled' where id = $id(5e,1)$$),
  ('movie_sessions hand over', $$update public.movie_sessions set streamer_id = $me where id = $id(5e,1)$$),
  ('movie_sessions delete', $$delete from public.movie_sessions where id = $id(5e,1)$$),
  ('session_members read', $$select 1 from public.session_members where session_id = $id(5e,1)$$),
  ('session_members admit a viewer', $$insert into public.session_members (session_id, user_id) values ($id(5e,3), $id(aa,1))$$),
  ('session_members admit oneself', $$insert into public.session_members (session_id, user_id) values ($id(5e,3), $me) on conflict do nothing$$),
  ('session_members name a moderator', $$insert into public.session_members (session_id, user_id, role) values ($id(5e,3), $id(aa,1), 'moderator')$$),
  ('session_members promote', $$update public.session_members set role = 'moderator' where session_id = $id(5e,3) and user_id = $id(aa,10)$$),
  ('session_members promote oneself', $$update public.session_members set role = 'moderator' where session_id = $id(5e,3) and user_id = $me$$),
  ('session_members remove a viewer', $$delete from public.session_members where session_id = $id(5e,1) and user_id = $id(aa,10)$$),
  ('session_members remove a moderator', $$delete from public.session_members where session_id = $id(5e,1) and user_id = $id(aa,3)$$),
  ('session_members leave', $$delete from public.session_members where session_id = $id(5e,1) and user_id = $me$$),
  ('session_bans read', $$select 1 from public.session_bans where session_id = $id(5e,1)$$),
  ('session_bans ban a viewer', $$insert into public.session_bans (session_id, user_id) values ($id(5e,1), $id(aa,10))$$),
  ('session_bans ban as REST does', $$insert into public.session_bans (session_id, user_id, until, reason, banned_by) values ($id(5e,1), $id(aa,9), null, 'x', $me) on conflict (session_id, user_id) do update set session_id = excluded.session_id, user_id = excluded.user_id, until = excluded.until, reason = excluded.reason, banned_by = excluded.banned_by$$),
  ('session_bans ban a moderator', $$insert into public.session_bans (session_id, user_id) values ($id(5e,1), $id(aa,3))$$),
  ('session_bans ban the streamer', $$insert into public.session_bans (session_id, user_id) values ($id(5e,1), $id(aa,4))$$),
  ('session_bans ban an admin', $$insert into public.session_bans (session_id, user_id) values ($id(5e,1), $id(aa,7))$$),
  ('session_bans blame another', $$insert into public.session_bans (session_id, user_id, banned_by) values ($id(5e,1), $id(aa,10), $id(aa,4)) returning 1 / (banned_by = $me)::integer$$),
  ('session_bans shorten', $$update public.session_bans set until = now() + interval '1 minute' where session_id = $id(5e,1) and user_id = $id(aa,9)$$),
  ('session_bans shorten one''s own', $$update public.session_bans set until = now() where session_id = $id(5e,1) and user_id = $me$$),
  ('session_bans lift', $$delete from public.session_bans where session_id = $id(5e,1) and user_id = $id(aa,8)$$),
  ('session_bans lift one''s own', $$delete from public.session_bans where session_id = $id(5e,1) and user_id = $me$$),
  ('session_bans move', $$update public.session_bans set user_id = $id(aa,10) where session_id = $id(5e,1) and user_id = $id(aa,8)$$),
  ('voting_sessions read open', $$select 1 from public.voting_sessions where id = $id(bb,1)$$),
  ('voting_sessions read draft', $$select 1 from public.voting_sessions where id = $id(bb,3)$$),
  ('voting_sessions read private', $$select 1 from public.voting_sessions where id = $id(bb,5)$$),
  ('voting_sessions insert draft', $$insert into public.voting_sessions (session_id, question, state, opens_at, closes_at, results_visibility, allow_change) values ($id(5e,1), 'new?', 'draft', now(), now() + interval '1 h', 'after_close', false)$$),
  ('voting_sessions insert, ended', $$insert into public.voting_sessions (session_id, question) values ($id(5e,4), 'new?')$$),
  ('voting_sessions open a second', $$update public.voting_sessions set state = 'open' where id = $id(bb,3)$$),
  ('voting_sessions close', $$update public.voting_sessions set state = 'closed' where id = $id(bb,1)$$),
  ('voting_sessions change', $$update public.voting_sessions set question = 'new?', opens_at = now(), closes_at = now() + interval '1 h', results_visibility = 'after_close', allow_change = false where id = $id(bb,3)$$),
  ('voting_sessions reopen', $$update public.voting_sessions set state = 'open' where id = $id(bb,2)$$),
  ('voting_sessions rewrite results', $$update public.voting_sessions set results = '{}' where id = $id(bb,2)$$),
  ('voting_sessions delete draft', $$delete from public.voting_sessions where id = $id(bb,3)$$),
  ('voting_sessions delete open', $$delete from public.voting_sessions where id = $id(bb,1)$$),
  ('voting_options read open', $$select 1 from public.voting_options where voting_session_id = $id(bb,1)$$),
  ('voting_options read draft', $$select 1 from public.voting_options where voting_session_id = $id(bb,3)$$),
  ('voting_options add, draft', $$insert into public.voting_options (voting_session_id, movie_id, position) values ($id(bb,3), $id(ff,4), 4)$$),
  ('voting_options add, open', $$insert into public.voting_options (voting_session_id, movie_id) values ($id(bb,1), $id(ff,4))$$),
  ('voting_options add, closed', $$insert into public.voting_options (voting_session_id, movie_id) values ($id(bb,2), $id(ff,4))$$),
  ('voting_options reorder', $$update public.voting_options set position = 9 where voting_session_id = $id(bb,3) and movie_id = $id(ff,3)$$),
  ('voting_options reorder all', $$update public.voting_options set position = 9$$),
  ('voting_options swap the movie', $$update public.voting_options set movie_id = $id(ff,4) where voting_session_id = $id(bb,3) and movie_id = $id(ff,3)$$),
  ('voting_options remove, draft', $$delete from public.voting_options where voting_session_id = $id(bb,3) and movie_id = $id(ff,3)$$),
  ('voting_options remove, open', $$delete from public.voting_options where voting_session_id = $id(bb,1) and movie_id = $id(ff,3)$$),
  ('chat_messages read public', $$select 1 from public.chat_messages where id = $id(cc,1)$$),
  ('chat_messages read members', $$select 1 from public.chat_messages where id = $id(cc,2)$$),
  ('chat_messages read private', $$select 1 from public.chat_messages where id = $id(cc,3)$$),
  ('chat_messages read deleted', $$select 1 from public.chat_messages where id = $id(cc,5)$$),
  ('chat_messages write public', $$insert into public.chat_messages (session_id, body) values ($id(5e,1), 'new')$$),
  ('chat_messages write all columns', $$insert into public.chat_messages (id, session_id, user_id, body, reply_to, nonce) values (gen_random_uuid(), $id(5e,1), $me, 'new', $id(cc,1), gen_random_uuid())$$),
  ('chat_messages write members', $$insert into public.chat_messages (session_id, body) values ($id(5e,2), 'new')$$),
  ('chat_messages write private', $$insert into public.chat_messages (session_id, body) values ($id(5e,3), 'new')$$),
  ('chat_messages write ended', $$insert into public.chat_messages (session_id, body) values ($id(5e,4), 'new')$$),
  ('chat_messages write as another', $$insert into public.chat_messages (session_id, user_id, body) values ($id(5e,1), $id(aa,10), 'new')$$),
  ('chat_messages edit a deleted one', $$update public.chat_messages set body = 'new' where id = $id(cc,5)$$),
  ('chat_messages date back', $$insert into public.chat_messages (session_id, body, created_at) values ($id(5e,1), 'new', '2000-01-01')$$),
  ('chat_messages reply elsewhere', $$insert into public.chat_messages (session_id, body, reply_to) values ($id(5e,1), 'new', $id(cc,2))$$),
  ('chat_messages edit', $$update public.chat_messages set body = 'new' where id = $id(cc,1)$$),
  ('chat_messages take over', $$update public.chat_messages set user_id = $me where id = $id(cc,1)$$),
  ('chat_messages hide', $$update public.chat_messages set deleted_at = now() where id = $id(cc,1)$$),
  ('chat_messages remove', $$delete from public.chat_messages where id = $id(cc,1)$$),
  ('votes read writer''s', $$select 1 from public.votes where user_id = $id(aa,10)$$),
  ('votes cast', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,1), $id(ff,2)) on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id$$),
  ('votes cast as REST does', $$insert into public.votes (voting_session_id, user_id, movie_id) values ($id(bb,1), $me, $id(ff,2)) on conflict (voting_session_id, user_id) do update set voting_session_id = excluded.voting_session_id, user_id = excluded.user_id, movie_id = excluded.movie_id$$),
  ('votes cast twice', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,1), $id(ff,2)), ($id(bb,1), $id(ff,1))$$),
  ('votes cast, members', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,4), $id(ff,2)) on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id$$),
  ('votes cast, private', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,5), $id(ff,2)) on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id$$),
  ('votes cast, closed', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,2), $id(ff,2))$$),
  ('votes cast, draft', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,3), $id(ff,2))$$),
  ('votes cast off the ballot', $$insert into public.votes (voting_session_id, movie_id) values ($id(bb,1), $id(ff,4))$$),
  ('votes cast for another', $$insert into public.votes (voting_session_id, user_id, movie_id) values ($id(bb,1), $id(aa,10), $id(ff,2))$$),
  ('votes change writer''s', $$update public.votes set movie_id = $id(ff,2) where user_id = $id(aa,10)$$),
  ('votes withdraw writer''s', $$delete from public.votes where user_id = $id(aa,10) and voting_session_id = $id(bb,1)$$),
  ('votes change all', $$update public.votes set movie_id = $id(ff,2)$$),
  ('votes withdraw all', $$delete from public.votes$$),
  ('votes move', $$update public.votes set user_id = $id(aa,1)$$),
  ('overlay_tokens read', $$select 1 from public.overlay_tokens where id = $id(dd,1)$$),
  ('overlay_tokens revoke', $$update public.overlay_tokens set revoked_at = now() where id = $id(dd,1)$$),
  ('overlay_tokens revoke all', $$update public.overlay_tokens set revoked_at = now()$$),
  ('overlay_tokens revive', $$update public.overlay_tokens set revoked_at = null where id = $id(dd,2)$$),
  ('overlay_tokens prolong', $$update public.overlay_tokens set expires_at = now() + interval '9 years' where id = $id(dd,1)$$),
  ('overlay_tokens insert', $$insert into public.overlay_tokens (session_id, label, expires_at) values ($id(5e,3), 'new', now() + interval '1 day')$$),
  ('overlay_tokens delete', $$delete from public.overlay_tokens where id = $id(dd,1)$$),
  ('overlay_tokens issue', $$select 1 from public.issue_overlay_token($id(5e,3), $me)$$),
  ('avatars list another''s', $$select 1 from storage.objects where bucket_id = 'avatars'$$),
  ('avatars put into one''s folder', $$insert into storage.objects (bucket_id, name) values ('avatars', $me || '/new.png')$$),
  ('avatars put into another''s', $$insert into storage.objects (bucket_id, name) values ('avatars', $id(aa,10) || '/new.png')$$),
  ('avatars put beside the folders', $$insert into storage.objects (bucket_id, name) values ('avatars', $me::text)$$),
  ('avatars replace another''s', $$update storage.objects set metadata = '{}' where bucket_id = 'avatars'$$),
  ('avatars remove another''s', $$delete from storage.objects where bucket_id = 'avatars'$$),
  ('posters list', $$select 1 from storage.objects where bucket_id = 'posters'$$),
  ('posters put into one''s folder', $$insert into storage.objects (bucket_id, name) values ('posters', $me || '/new.png')$$),
  ('posters put into another''s', $$insert into storage.objects (bucket_id, name) values ('posters', $id(aa,10) || '/new.png')$$),
  ('posters replace', $$update storage.objects set metadata = '{}' where bucket_id = 'posters'$$),
  ('posters remove', $$delete from storage.objects where bucket_id = 'posters'$$),
  ('files replace all', $$update storage.objects set metadata = '{}'$$),
  ('files remove all', $$delete from storage.objects$$),
  ('files move to another''s', $$update storage.objects set name = $id(aa,10) || '/moved.png'$$),
  ('another bucket', $$insert into storage.objects (bucket_id, name) values ('elsewhere', $me || '/new.png')$$),
  ('session_events read', $$select 1 from usher.session_events$$),
  ('session_heads write', $$update usher.session_heads set seq = 0$$),
  ('vote_tallies write', $$update usher.vote_tallies set votes = 9$$),
  ('append_event()', $$select usher.append_event($id(5e,1), 'x', '{}')$$),
  ('post_messages()', $$select 1 from usher.post_messages(jsonb_build_array(jsonb_build_object('role', 'authenticated', 'claims', jsonb_build_object('sub', $id(aa,2), 'role', 'authenticated'), 'session', $id(5e,1), 'nonce', gen_random_uuid(), 'body', 'new'))) as p where p.seq is not null$$),
  ('cast_votes()', $$select 1 from usher.cast_votes(jsonb_build_array(jsonb_build_object('role', 'authenticated', 'claims', jsonb_build_object('sub', $id(aa,2), 'role', 'authenticated'), 'voting', $id(bb,1), 'movie', $id(ff,1)))) as v where v.refusal is null$$),
  ('epoch()', $$select usher.epoch()$$),
  ('heads()', $$select 1 from usher.heads(array[$id(5e,1)])$$),
  ('tallies()', $$select 1 from usher.tallies(array[$id(bb,1)])$$),
  ('close_due_votings()', $$select usher.close_due_votings()$$),
  ('due_votings()', $$select count(*) from usher.due_votings(9)$$),
  ('close_due_voting()', $$select usher.close_due_voting($id(bb,1))$$),
  ('events_after()', $$select usher.events_after($id(5e,3), 0, 9, 9999)$$),
  ('session_snapshot()', $$select usher.session_snapshot($id(5e,3))$$),
  ('admit_many()', $$select 1 from usher.admit_many(jsonb_build_array(jsonb_build_object('role', 'authenticated', 'claims', jsonb_build_object('sub', $id(aa,2), 'role', 'authenticated'), 'session', $id(5e,1)))) as a where a.failure is null$$),
  ('access_changed()', $$select usher.access_changed($id(5e,1), null)$$),
  ('trim_events()', $$select usher.trim_events(interval '1 hour', 100, 9)$$),
  ('settle()', $$select usher.settle()$$),
  ('update_vote_totals()', $$select usher.update_vote_totals()$$),
  ('admit() public', $$select 1 from usher.admit($id(5e,1)) as a where a ->> 'refused' is null and a is not null$$),
  ('admit() private', $$select 1 from usher.admit($id(5e,3)) as a where a ->> 'refused' is null and a is not null$$);

-- Runs a statement as an actor and undoes it. Returns the text of the cell.
create function pg_temp.attempt(actor text, statement text) returns text
language plpgsql
as $$
declare
  me constant uuid := pg_temp.id('aa', coalesce((select p.n from people p where p.name = actor), 99));
  role constant text := case actor
    when 'anon' then 'anon'
    when 'overlay' then 'anon'
    when 'gateway' then 'usher_gateway'
    when 'server' then 'service_role'
    else 'authenticated'
  end;
  claims constant jsonb := jsonb_build_object('role', role) || case
    when actor = 'overlay' then jsonb_build_object('sub', pg_temp.id('dd', 1), 'usher_overlay', pg_temp.id('5e', 3))
    when role = 'authenticated' then jsonb_build_object('sub', me)
    else '{}'
  end;
  filled text := replace(statement, '$me', quote_literal(me) || '::uuid');
  part text[];
  rows bigint;
begin
  for part in select regexp_matches(statement, '\$id\((\w+),(\d+)\)', 'g') loop
    filled := replace(
      filled, format('$id(%s,%s)', part[1], part[2]), quote_literal(pg_temp.id(part[1], part[2]::integer)) || '::uuid'
    );
  end loop;
  begin
    perform set_config('role', role, true), set_config('request.jwt.claims', claims::text, true);
    execute filled;
    get diagnostics rows = row_count;
    raise exception using errcode = 'MX000';
  exception
    when sqlstate 'MX000' then return rows::text;
    when others then return sqlstate;
  end;
end
$$;

-- The grid -----------------------------------------------------------------------------------------------------

create temp table grid (n serial, line text);
insert into grid (line)
select l.line
from regexp_split_to_table($grid$
                                   anon overlay stranger member writer helper streamer rival staff admin banned muted gateway server
profiles read                      1    1       1        1      1      1      1        1     1     1     1      1     -       1
profiles read preferences          -    -       -        -      -      -      -        -     -     -     -      -     -       0
profiles rename oneself            -    -       1        1      1      1      1        1     1     1     1      1     -       0
profiles rename another            -    -       0        0      1      0      0        0     0     0     0      0     -       1
profiles promote oneself           -    -       -        -      -      -      -        -     -     -     -      -     -       0
profiles promote another           -    -       -        -      -      -      -        -     -     -     -      -     -       1
profiles insert                    -    -       -        -      -      -      -        -     -     -     -      -     -       23503
profiles delete oneself            -    -       -        -      -      -      -        -     -     -     -      -     -       0
profiles delete another            -    -       -        -      -      -      -        -     -     -     -      -     -       1
profiles my_profile()              -    -       1        1      1      1      1        1     1     1     1      1     -       0
movies read                        1    1       1        1      1      1      1        1     1     1     1      1     -       1
movies insert                      -    -       -        -      -      -      1        1     -     1     -      -     -       1
movies insert for another          -    -       -        -      -      -      -        -     -     -     -      -     -       1
movies insert all columns          -    -       -        -      -      -      1        1     -     1     -      -     -       23503
movies update                      -    -       0        0      0      0      1        0     0     1     0      0     -       1
movies raise its votes             -    -       -        -      -      -      -        -     -     -     -      -     -       1
movies delete                      -    -       0        0      0      0      1        0     0     1     0      0     -       1
movie_sessions read public         1    1       1        1      1      1      1        1     1     1     1      1     -       1
movie_sessions read members        1    1       1        1      1      1      1        1     1     1     1      1     -       1
movie_sessions read private        0    0       0        1      1      1      1        0     1     1     1      1     -       1
movie_sessions insert              -    -       -        -      -      -      1        1     -     1     -      -     -       23503
movie_sessions insert for another  -    -       -        -      -      -      -        -     -     -     -      -     -       1
movie_sessions slow mode           -    -       0        0      0      1      1        0     1     1     0      0     -       1
movie_sessions slow mode, private  -    -       0        0      0      1      1        0     1     1     0      0     -       1
movie_sessions rearrange           -    -       0        0      0      US004  1        0     US004 1     0      0     -       1
movie_sessions end                 -    -       0        0      0      US004  1        0     US004 1     0      0     -       1
movie_sessions revive an ended one -    -       0        0      0      US003  US003    0     US003 US003 0      0     -       1
movie_sessions back to scheduled   -    -       0        0      0      US009  US009    0     US009 US009 0      0     -       1
movie_sessions hand over           -    -       -        -      -      -      -        -     -     -     -      -     -       23503
movie_sessions delete              -    -       0        0      0      0      1        0     0     1     0      0     -       1
session_members read               -    -       0        1      1      5      5        0     5     5     1      1     -       5
session_members admit a viewer     -    -       -        -      -      1      1        -     1     1     -      -     -       1
session_members admit oneself      -    -       -        -      -      0      1        -     1     1     -      -     -       23503
session_members name a moderator   -    -       -        -      -      -      1        -     -     1     -      -     -       1
session_members promote            -    -       0        0      0      0      1        0     0     1     0      0     -       1
session_members promote oneself    -    -       0        0      0      0      0        0     0     0     0      0     -       0
session_members remove a viewer    -    -       0        0      1      1      1        0     1     1     0      0     -       1
session_members remove a moderator -    -       0        0      0      1      1        0     0     1     0      0     -       1
session_members leave              -    -       0        1      1      1      0        0     0     0     1      1     -       0
session_bans read                  -    -       0        0      0      2      2        0     2     2     1      1     -       2
session_bans ban a viewer          -    -       -        -      -      1      1        -     1     1     -      -     -       1
session_bans ban as REST does      -    -       -        -      -      1      1        -     1     1     -      -     -       23503
session_bans ban a moderator       -    -       -        -      -      -      1        -     -     1     -      -     -       1
session_bans ban the streamer      -    -       -        -      -      -      -        -     -     -     -      -     -       1
session_bans ban an admin          -    -       -        -      -      -      1        -     -     -     -      -     -       1
session_bans blame another         -    -       -        -      -      1      1        -     1     1     -      -     -       22012
session_bans shorten               -    -       0        0      0      1      1        0     1     1     0      0     -       1
session_bans shorten one's own     -    -       0        0      0      0      0        0     0     0     0      0     -       0
session_bans lift                  -    -       0        0      0      1      1        0     1     1     0      0     -       1
session_bans lift one's own        -    -       0        0      0      0      0        0     0     0     0      0     -       0
session_bans move                  -    -       0        0      0      US007  US007    0     US007 US007 0      0     -       US007
voting_sessions read open          1    1       1        1      1      1      1        1     1     1     0      1     -       1
voting_sessions read draft         0    0       0        0      0      1      1        0     1     1     0      0     -       1
voting_sessions read private       0    0       0        1      1      1      1        0     1     1     0      1     -       1
voting_sessions insert draft       -    -       -        -      -      1      1        -     1     1     US002  US002 -       1
voting_sessions insert, ended      -    -       US003    US003  US003  US003  US003    US003 US003 US003 US002  US002 -       1
voting_sessions open a second      -    -       0        0      0      23505  23505    0     23505 23505 0      0     -       23505
voting_sessions close              -    -       0        0      0      1      1        0     1     1     0      0     -       1
voting_sessions change             -    -       0        0      0      1      1        0     1     1     0      0     -       1
voting_sessions reopen             -    -       0        0      0      US009  US009    0     US009 US009 0      0     -       US009
voting_sessions rewrite results    -    -       -        -      -      -      -        -     -     -     -      -     -       1
voting_sessions delete draft       -    -       0        0      0      1      1        0     1     1     0      0     -       1
voting_sessions delete open        -    -       0        0      0      0      0        0     0     0     0      0     -       1
voting_options read open           3    3       3        3      3      3      3        3     3     3     0      3     -       3
voting_options read draft          0    0       0        0      0      3      3        0     3     3     0      0     -       3
voting_options add, draft          -    -       -        -      -      1      1        -     1     1     -      -     -       1
voting_options add, open           -    -       -        -      -      1      1        -     1     1     -      -     -       1
voting_options add, closed         -    -       -        -      -      -      -        -     -     -     -      -     -       1
voting_options reorder             -    -       0        0      0      1      1        0     1     1     0      0     -       1
voting_options reorder all         -    -       0        0      0      12     12       0     12    12    0      0     -       15
voting_options swap the movie      -    -       -        -      -      -      -        -     -     -     -      -     -       1
voting_options remove, draft       -    -       0        0      0      1      1        0     1     1     0      0     -       1
voting_options remove, open        -    -       0        0      0      0      0        0     0     0     0      0     -       1
chat_messages read public          1    1       1        1      1      1      1        1     1     1     0      1     -       1
chat_messages read members         1    1       1        1      1      1      1        1     1     1     0      1     -       1
chat_messages read private         0    0       0        1      1      1      1        0     1     1     0      1     -       1
chat_messages read deleted         0    0       0        0      1      1      1        0     1     1     0      0     -       1
chat_messages write public         -    -       1        1      1      1      1        1     1     1     US002  US002 -       23502
chat_messages write all columns    -    -       1        1      1      1      1        1     1     1     US002  US002 -       23503
chat_messages write members        -    -       US004    1      1      1      1        US004 1     1     US002  US002 -       23502
chat_messages write private        -    -       US005    1      1      1      1        US005 1     1     US002  US002 -       23502
chat_messages write ended          -    -       US003    US003  US003  US003  US003    US003 US003 US003 US002  US002 -       23502
chat_messages write as another     -    -       -        -      1      -      -        -     -     -     -      -     -       1
chat_messages edit a deleted one   -    -       0        0      US009  US009  US009    0     US009 US009 0      0     -       1
chat_messages date back            -    -       -        -      -      -      -        -     -     -     -      -     -       23502
chat_messages reply elsewhere      -    -       23503    23503  23503  23503  23503    23503 23503 23503 US002  US002 -       23502
chat_messages edit                 -    -       0        0      1      US004  US004    0     US004 US004 0      0     -       1
chat_messages take over            -    -       -        -      -      -      -        -     -     -     -      -     -       US007
chat_messages hide                 -    -       0        0      1      1      1        0     1     1     0      0     -       1
chat_messages remove               -    -       0        0      0      1      1        0     1     1     0      0     -       1
votes read writer's                -    -       0        0      3      0      0        0     0     0     0      0     -       3
votes cast                         -    -       1        1      1      1      1        1     1     1     US002  US002 -       23502
votes cast as REST does            -    -       1        1      1      1      1        1     1     1     US002  US002 -       23503
votes cast twice                   -    -       23505    23505  23505  23505  23505    23505 23505 23505 US002  US002 -       23502
votes cast, members                -    -       US004    1      US009  US009  1        US004 1     1     US002  US002 -       23502
votes cast, private                -    -       US005    1      1      1      1        US005 1     1     US002  US002 -       23502
votes cast, closed                 -    -       US008    US008  US008  US008  US008    US008 US008 US008 US002  US002 -       US008
votes cast, draft                  -    -       US008    US008  US008  US008  US008    US008 US008 US008 US002  US002 -       US008
votes cast off the ballot          -    -       23503    23503  23505  23505  23503    23503 23503 23503 US002  US002 -       23502
votes cast for another             -    -       -        -      23505  -      -        -     -     -     US002  US002 -       23505
votes change writer's              -    -       0        0      US009  0      0        0     0     0     0      0     -       3
votes withdraw writer's            -    -       0        0      1      0      0        0     0     0     0      0     -       1
votes change all                   -    -       0        0      US009  US009  0        0     0     0     0      0     -       6
votes withdraw all                 -    -       0        0      US009  US009  0        0     0     0     0      0     -       6
votes move                         -    -       0        0      US007  US007  0        0     0     0     0      0     -       US007
overlay_tokens read                -    -       0        0      0      0      1        0     0     1     0      0     -       1
overlay_tokens revoke              -    -       0        0      0      0      1        0     0     1     0      0     -       1
overlay_tokens revoke all          -    -       0        0      0      0      2        0     0     2     0      0     -       2
overlay_tokens revive              -    -       0        0      0      0      US009    0     0     US009 0      0     -       1
overlay_tokens prolong             -    -       -        -      -      -      -        -     -     -     -      -     -       1
overlay_tokens insert              -    -       -        -      -      -      -        -     -     -     -      -     -       1
overlay_tokens delete              -    -       -        -      -      -      -        -     -     -     -      -     -       1
overlay_tokens issue               -    -       -        -      -      -      -        -     -     -     -      -     -       US004
avatars list another's             0    0       0        0      0      0      1        0     0     0     0      0     -       1
avatars put into one's folder      -    -       1        1      1      1      1        1     1     1     1      1     -       1
avatars put into another's         -    -       -        -      1      -      -        -     -     -     -      -     -       1
avatars put beside the folders     -    -       -        -      -      -      -        -     -     -     -      -     -       1
avatars replace another's          0    0       0        0      0      0      1        0     0     0     0      0     -       1
avatars remove another's           0    0       0        0      0      0      1        0     0     0     0      0     -       1
posters list                       0    0       0        0      0      0      1        0     0     1     0      0     -       1
posters put into one's folder      -    -       -        -      -      -      1        1     -     1     -      -     -       1
posters put into another's         -    -       -        -      -      -      -        -     -     1     -      -     -       1
posters replace                    0    0       0        0      0      0      1        0     0     1     0      0     -       1
posters remove                     0    0       0        0      0      0      1        0     0     1     0      0     -       1
files replace all                  0    0       0        0      0      0      2        0     0     1     0      0     -       2
files remove all                   0    0       0        0      0      0      2        0     0     1     0      0     -       2
files move to another's            0    0       0        0      0      0      -        0     0     1     0      0     -       2
another bucket                     -    -       -        -      -      -      -        -     -     -     -      -     -       1
session_events read                -    -       -        -      -      -      -        -     -     -     -      -     -       -
session_heads write                -    -       -        -      -      -      -        -     -     -     -      -     -       -
vote_tallies write                 -    -       -        -      -      -      -        -     -     -     -      -     -       -
append_event()                     -    -       -        -      -      -      -        -     -     -     -      -     -       -
post_messages()                    -    -       -        -      -      -      -        -     -     -     -      -     1       -
cast_votes()                       -    -       -        -      -      -      -        -     -     -     -      -     1       -
epoch()                            -    -       -        -      -      -      -        -     -     -     -      -     1       -
heads()                            -    -       -        -      -      -      -        -     -     -     -      -     1       -
tallies()                          -    -       -        -      -      -      -        -     -     -     -      -     1       -
close_due_votings()                -    -       -        -      -      -      -        -     -     -     -      -     1       -
due_votings()                      -    -       -        -      -      -      -        -     -     -     -      -     1       -
close_due_voting()                 -    -       -        -      -      -      -        -     -     -     -      -     1       -
events_after()                     -    -       -        -      -      -      -        -     -     -     -      -     4       -
session_snapshot()                 -    -       -        -      -      -      -        -     -     -     -      -     1       -
admit_many()                       -    -       -        -      -      -      -        -     -     -     -      -     1       -
access_changed()                   -    -       1        1      1      1      1        1     1     1     1      1     -       1
trim_events()                      -    -       -        -      -      -      -        -     -     -     -      -     1       -
settle()                           -    -       -        -      -      -      -        -     -     -     -      -     1       -
update_vote_totals()               -    -       -        -      -      -      -        -     -     -     -      -     1       -
admit() public                     1    0       1        1      1      1      1        1     1     1     0      1     -       -
admit() private                    0    1       0        1      1      1      1        0     1     1     0      1     -       -
$grid$, '\n') with ordinality as l (line, n)
where l.line <> ''
order by l.n;

create temp table cells as
select g.n, a.n as place, s.name, s.statement, a.actor, c.expected
from grid g
join statements s on g.line like s.name || ' %' and left(g.line, 35) = rpad(s.name, 35)
cross join lateral regexp_split_to_table(trim(substr(g.line, 36)), '\s+') with ordinality as c (expected, n)
join lateral (
  select h.actor, h.n
  from grid first
  cross join lateral regexp_split_to_table(trim(first.line), '\s+') with ordinality as h (actor, n)
  where first.n = 1
) as a on a.n = c.n;

select plan(1 + (select count(*)::integer from statements) * 14);
select is(
  (select count(*) from cells),
  (select count(*) * 14 from statements),
  'each statement has a row in the grid, with a cell for each actor'
);
select is(
  replace(pg_temp.attempt(c.actor, c.statement), '42501', '-'), c.expected, c.name || ', as ' || c.actor
)
from cells c
order by c.n, c.place;

select * from finish();
rollback;
