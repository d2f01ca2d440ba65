-- What each trigger does: times and names set by the database, events in the log, access notices and vote totals.
begin;
create extension if not exists pgtap;
select plan(59);

-- A NOTIFY reaches listeners only after the commit, so this records the notices in a table.
create temp table notices (session_id uuid, user_id uuid);
create or replace function usher.notify_access(session uuid, member uuid) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into pg_temp.notices values (session, member)
$$;

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
-- Returns the types of a session's events, oldest first, and deletes the events.
create function pg_temp.said(session integer) returns text
language sql
as $$
  select usher.settle();
  with gone as (
    delete from usher.session_events where session_id = pg_temp.id('5e', session) returning seq, type
  )
  select coalesce(string_agg(g.type, ' ' order by g.seq), '') from gone g
$$;
-- Returns the recorded access notices and deletes them. Each is `session user`, with a star for all sessions or all
-- users.
create function pg_temp.noticed() returns text
language sql
as $$
  with gone as (delete from pg_temp.notices returning *)
  select coalesce(
    string_agg(
      coalesce(right(g.session_id::text, 1), '*') || ' ' || coalesce(right(g.user_id::text, 1), '*'),
      ', ' order by g.session_id, g.user_id
    ),
    ''
  )
  from gone g
$$;

insert into auth.users (id, raw_user_meta_data)
select pg_temp.id('aa', n), jsonb_build_object('username', 'tap_' || n, 'display_name', 'Tap ' || n, 'role', 'admin')
from generate_series(1, 4) as n;
select results_eq(
  $$select username, display_name, role from public.profiles where id = pg_temp.id('aa', 2)$$,
  $$values ('tap_2', 'Tap 2', 'viewer')$$,
  'a new account gets a profile, always as a viewer'
);
-- The role that writes accounts, on Supabase the auth server, needs no rights in public.
-- On Supabase only the auth server may grant this.
do $$
begin
  if has_table_privilege('auth.users', 'insert with grant option') then
    grant insert on auth.users to service_role;
  end if;
end
$$;
set local role service_role;
select case
  when has_table_privilege('auth.users', 'insert')
    then lives_ok($$insert into auth.users (id) values (pg_temp.id('aa', 7))$$, 'a role without rights on profiles can create an account')
  else skip('service_role cannot write accounts', 1)
end;
reset role;
insert into public.movies (id, title) select pg_temp.id('ff', n), 'Movie ' || n from generate_series(1, 3) as n;
insert into public.movie_sessions (id, streamer_id, title)
values (pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'one'), (pg_temp.id('5e', 2), pg_temp.id('aa', 1), 'two');
select is((select count(*) from usher.session_heads where session_id in (pg_temp.id('5e', 1), pg_temp.id('5e', 2))), 2::bigint, 'a new session has a log');

-- Times that the database sets.
update public.profiles set updated_at = '2000-01-01';
select is((select count(*) from public.profiles where updated_at < now()), 0::bigint, 'an updated profile has the time of the update');
update public.movies set title = title || '!', updated_at = '2000-01-01';
select is((select count(*) from public.movies where updated_at < now()), 0::bigint, 'an updated movie has the time of the update');
insert into public.session_members (session_id, user_id, updated_at) values (pg_temp.id('5e', 1), pg_temp.id('aa', 2), '2000-01-01');
select is(pg_temp.noticed(), '1 2', 'a new membership sends an access notice');
update public.session_members set role = 'moderator' where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2', 'a promotion sends an access notice');
select is((select updated_at from public.session_members where user_id = pg_temp.id('aa', 2)), now(), 'an updated membership has the time of the update');
update public.session_members set user_id = pg_temp.id('aa', 3) where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2, 1 3', 'a membership moved to another user sends a notice for both');
update public.session_members set user_id = pg_temp.id('aa', 2) where user_id = pg_temp.id('aa', 3);
do $$ begin perform pg_temp.noticed(); end $$;
delete from public.session_members where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2', 'a deleted membership sends an access notice');
insert into public.session_members (session_id, user_id)
select pg_temp.id('5e', 1), pg_temp.id('aa', n) from generate_series(2, 4) as n;
select is(pg_temp.noticed(), '1 2, 1 3, 1 4', 'several new members get a notice each');

update public.profiles set role = 'moderator' where id = pg_temp.id('aa', 3);
select is(pg_temp.noticed(), '* 3', 'a new platform role sends a notice for all sessions');
update public.profiles set display_name = 'Else' where id = pg_temp.id('aa', 3);
select is(pg_temp.noticed(), '', 'a new name sends no access notice');

-- Sessions.
select is(pg_temp.said(1), '', 'none of this is in the log of the session');
update public.movie_sessions set status = 'live', updated_at = '2000-01-01' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1), 'session.updated', 'a session that goes live has an event');
select is(pg_temp.noticed(), '1 *', 'a session that goes live sends a notice for all users');
select results_eq(
  $$select started_at, ended_at, updated_at from public.movie_sessions where id = pg_temp.id('5e', 1)$$,
  $$values (now(), null::timestamptz, now())$$,
  'a session that goes live has a start time'
);
update public.movie_sessions set title = 'renamed' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1) || pg_temp.noticed(), 'session.updated', 'a new title has an event and sends no access notice');
update public.movie_sessions set title = 'renamed' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1), '', 'an update without a change has no event');

-- Bans.
insert into public.session_bans (session_id, user_id, updated_at) values (pg_temp.id('5e', 1), pg_temp.id('aa', 4), '2000-01-01');
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.banned, 1 4', 'a ban has an event and sends an access notice');
update public.session_bans set until = now() + interval '1 hour' where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.banned, 1 4', 'a ban that becomes a time-out has an event and sends an access notice');
select is((select updated_at from public.session_bans where user_id = pg_temp.id('aa', 4)), now(), 'an updated ban has the time of the update');
update public.session_bans set reason = 'rude' where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || pg_temp.noticed(), '', 'a new reason has no event and sends no access notice');
delete from public.session_bans where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.unbanned, 1 4', 'a lifted ban has an event and sends an access notice');

-- Polls.
insert into public.voting_sessions (id, session_id, question, results)
values (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'which?', '{"total": 99}');
select is((select results from public.voting_sessions where id = pg_temp.id('bb', 1)), null, 'a draft has no results, even if the insert sets them');
insert into public.voting_options (voting_session_id, movie_id) select pg_temp.id('bb', 1), pg_temp.id('ff', n) from generate_series(1, 2) as n;
select is(pg_temp.said(1), '', 'a draft has no events');
update public.voting_sessions set state = 'open' where id = pg_temp.id('bb', 1);
select is(pg_temp.said(1), 'voting.opened', 'an opened poll has an event');
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 1), pg_temp.id('ff', 3));
select is(pg_temp.said(1), 'voting.updated', 'an option added to an open poll has an event');
update public.voting_options set position = 9 where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1), 'voting.updated', 'a new order of options has an event');
insert into public.votes (voting_session_id, user_id, movie_id)
select pg_temp.id('bb', 1), pg_temp.id('aa', n), pg_temp.id('ff', least(n, 2)) from generate_series(1, 3) as n;
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select array_agg(vote_total order by id) from public.movies where id in (pg_temp.id('ff', 1), pg_temp.id('ff', 2))), '{1,2}', 'the totals of the movies include the votes');
select is((select sum(votes) from usher.vote_tallies where voting_session_id = pg_temp.id('bb', 1)), 3::numeric, 'the tallies include the votes');
delete from public.voting_options where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1), 'voting.updated', 'an option removed from an open poll has an event');
select throws_ok($$truncate public.votes$$, '0A000', null, 'votes cannot be truncated');
select throws_ok($$truncate public.chat_messages$$, '0A000', null, 'messages cannot be truncated');
select throws_ok($$truncate public.session_members$$, '0A000', null, 'members cannot be truncated');
select throws_ok($$truncate public.session_bans$$, '0A000', null, 'bans cannot be truncated');
select throws_ok($$truncate public.overlay_tokens$$, '0A000', null, 'overlay tokens cannot be truncated');
select throws_ok(format('truncate %s cascade', t.name), '0A000', null, format('%s cannot be truncated with cascade', t.name))
from (values ('public.movie_sessions'), ('public.voting_options')) as t (name);

-- An owner moves an option from one ballot to another.
insert into public.voting_sessions (id, session_id, question, state)
values (pg_temp.id('bb', 4), pg_temp.id('5e', 2), 'which then?', 'open');
do $$ begin perform pg_temp.said(2); end $$;
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 4), pg_temp.id('ff', 3));
do $$ begin perform pg_temp.said(2); end $$;
update public.voting_options set voting_session_id = pg_temp.id('bb', 1) where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1) || ', ' || pg_temp.said(2), 'voting.updated, voting.updated', 'an option moved to another ballot has an event in both sessions');

-- An app's triggers run after the guards and move a row.
create function pg_temp.move() returns trigger language plpgsql as $$
begin
  if tg_table_name = 'votes' then
    new.voting_session_id := 'bb000000-0000-4000-8000-000000000004';
  else
    new.session_id := '5e000000-0000-4000-8000-000000000002';
  end if;
  return new;
end
$$;
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 4), pg_temp.id('ff', 1));
create trigger zz_move before update on public.votes for each row execute function pg_temp.move();
update public.votes set updated_at = now() where user_id = pg_temp.id('aa', 1);
do $$ begin perform usher.settle(); end $$;
select is(
  (
    select array_agg(t.votes order by t.id)
    from (select voting_session_id as id, sum(votes) as votes from usher.vote_tallies where movie_id = pg_temp.id('ff', 1) group by 1) as t
  ),
  '{0,1}', 'a vote that a trigger moves changes both tallies'
);
drop trigger zz_move on public.votes;
insert into public.chat_messages (id, session_id, user_id, body) values (pg_temp.id('cc', 9), pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'here');
create trigger zz_move before update on public.chat_messages for each row execute function pg_temp.move();
select throws_ok(
  $$update public.chat_messages set body = 'there' where id = pg_temp.id('cc', 9)$$,
  'US007', null, 'a message that a trigger moves is refused'
);
drop trigger zz_move on public.chat_messages;
delete from public.chat_messages where id = pg_temp.id('cc', 9);
delete from public.voting_sessions where id = pg_temp.id('bb', 4);
do $$ begin perform pg_temp.said(1), pg_temp.said(2); end $$;

insert into public.voting_sessions (id, session_id, question, state) values (pg_temp.id('bb', 2), pg_temp.id('5e', 2), 'at once?', 'open');
select is(pg_temp.said(2), 'voting.opened', 'a poll created as open has an event');
select isnt((select sum(revision) from usher.vote_tallies where voting_session_id = pg_temp.id('bb', 2)), null, 'a poll created as open has a version');
delete from public.voting_sessions where id = pg_temp.id('bb', 2);
select is(pg_temp.said(2), 'voting.deleted', 'a deleted poll has an event');
delete from public.voting_sessions where id = pg_temp.id('bb', 1);
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select array_agg(vote_total order by id) from public.movies where id in (pg_temp.id('ff', 1), pg_temp.id('ff', 2))), '{0,0}', 'the votes of a deleted poll leave the totals');
select is(pg_temp.said(1), 'voting.deleted', 'a deleted poll with votes has one event');

-- Messages.
insert into public.chat_messages (id, session_id, user_id, body)
select pg_temp.id('cc', n), pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'text ' || n from generate_series(1, 3) as n;
do $$ begin perform usher.settle(); end $$;
update public.chat_messages set body = 'edited' where id = pg_temp.id('cc', 1);
update public.chat_messages set deleted_at = now(), deleted_by = pg_temp.id('aa', 1) where id = pg_temp.id('cc', 2);
do $$ begin perform usher.settle(); end $$;
select is(
  (select data ->> 'body' || (data -> 'author' ->> 'username') from usher.session_events where message_id = pg_temp.id('cc', 2) and type = 'chat.created'),
  null, 'the log has no text of a deleted message'
);
select is(
  (select data -> 'author' ->> 'username' from usher.session_events where message_id = pg_temp.id('cc', 2) and type = 'chat.created'),
  'tap_4', 'the log has the author of a deleted message'
);
delete from public.chat_messages where id = pg_temp.id('cc', 3);
select is(pg_temp.said(1), 'chat.created chat.created chat.created chat.updated chat.deleted chat.deleted', 'new, edited, deleted and removed messages have events');

-- Overlays.
insert into public.overlay_tokens (id, session_id, label, expires_at)
values (pg_temp.id('dd', 5), pg_temp.id('5e', 1), 'obs', now() + interval '1 day');
select is(pg_temp.noticed(), '', 'a new overlay token sends no access notice');
update public.overlay_tokens set revoked_at = now();
select is(pg_temp.noticed(), '1 5', 'a revoked overlay token sends an access notice');
delete from public.overlay_tokens;
select is(pg_temp.noticed(), '1 5', 'a deleted overlay token sends an access notice');

-- The log forgets a deleted account.
insert into public.chat_messages (session_id, user_id, body)
select pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'my secret' from generate_series(1, 30);
do $$ begin perform usher.settle(); end $$;
delete from auth.users where id = pg_temp.id('aa', 4);
do $$ begin perform usher.settle(); end $$;
select is(
  (select count(*) from usher.session_events where data::text like '%secret%' or data::text like '%tap_4%' or data::text like '%Tap 4%'),
  0::bigint, 'the log has no text or name of a deleted account'
);
select is(
  (select count(*) from usher.session_events where session_id = pg_temp.id('5e', 1) and type = 'chat.created'), 30::bigint, 'the log still has the events of its messages'
);

-- A session ends, and another is deleted.
insert into public.voting_sessions (id, session_id, question, state) values (pg_temp.id('bb', 3), pg_temp.id('5e', 2), 'last?', 'open');
do $$ begin perform usher.settle(); end $$;
update public.movie_sessions set status = 'ended' where id = pg_temp.id('5e', 2);
select is(pg_temp.said(2), 'voting.opened voting.closed session.updated', 'an ended session first closes its poll');
select isnt((select ended_at from public.movie_sessions where id = pg_temp.id('5e', 2)), null, 'an ended session has an end time');
do $$ begin perform pg_temp.noticed(); end $$;
delete from public.movie_sessions where id = pg_temp.id('5e', 1);
select is(pg_temp.noticed(), '1 2, 1 3, 1 *', 'a deleted session sends notices for its members and for all users');
do $$ begin perform usher.settle(); end $$;
select is((select count(*) from usher.session_events where session_id = pg_temp.id('5e', 1)), 0::bigint, 'a deleted session has no log');

select * from finish();
rollback;
