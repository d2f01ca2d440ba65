-- What each trigger does: times and names that nobody can claim, events in the log, notices of changed access, totals.
begin;
create extension if not exists pgtap;
select plan(59);

-- What goes out by NOTIFY is not seen before the commit: here it is written down.
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
-- The types of a session's events, oldest first, and forgets them.
create function pg_temp.said(session integer) returns text
language sql
as $$
  select usher.settle();
  with gone as (
    delete from usher.session_events where session_id = pg_temp.id('5e', session) returning seq, type
  )
  select coalesce(string_agg(g.type, ' ' order by g.seq), '') from gone g
$$;
-- Whose access was said to have changed, and forgets it: `session user`, a star for everybody or everywhere.
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
  'an account gets its profile, whatever it claims to be'
);
-- The auth server, which writes the accounts, may do nothing here.
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
    then lives_ok($$insert into auth.users (id) values (pg_temp.id('aa', 7))$$, 'whoever writes accounts need not be able to write profiles')
  else skip('service_role may not write accounts', 1)
end;
reset role;
insert into public.movies (id, title) select pg_temp.id('ff', n), 'Movie ' || n from generate_series(1, 3) as n;
insert into public.movie_sessions (id, streamer_id, title)
values (pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'one'), (pg_temp.id('5e', 2), pg_temp.id('aa', 1), 'two');
select is((select count(*) from usher.session_heads where session_id in (pg_temp.id('5e', 1), pg_temp.id('5e', 2))), 2::bigint, 'a session gets its log');

-- Times that the database writes.
update public.profiles set updated_at = '2000-01-01';
select is((select count(*) from public.profiles where updated_at < now()), 0::bigint, 'an updated profile says when');
update public.movies set title = title || '!', updated_at = '2000-01-01';
select is((select count(*) from public.movies where updated_at < now()), 0::bigint, 'an updated movie says when');
insert into public.session_members (session_id, user_id, updated_at) values (pg_temp.id('5e', 1), pg_temp.id('aa', 2), '2000-01-01');
select is(pg_temp.noticed(), '1 2', 'a new member may do more');
update public.session_members set role = 'moderator' where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2', 'a promoted member may do more');
select is((select updated_at from public.session_members where user_id = pg_temp.id('aa', 2)), now(), 'and the row says when');
update public.session_members set user_id = pg_temp.id('aa', 3) where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2, 1 3', 'a membership given to another user changes the access of both');
update public.session_members set user_id = pg_temp.id('aa', 2) where user_id = pg_temp.id('aa', 3);
do $$ begin perform pg_temp.noticed(); end $$;
delete from public.session_members where user_id = pg_temp.id('aa', 2);
select is(pg_temp.noticed(), '1 2', 'who leaves may do less');
insert into public.session_members (session_id, user_id)
select pg_temp.id('5e', 1), pg_temp.id('aa', n) from generate_series(2, 4) as n;
select is(pg_temp.noticed(), '1 2, 1 3, 1 4', 'each of several is named');

update public.profiles set role = 'moderator' where id = pg_temp.id('aa', 3);
select is(pg_temp.noticed(), '* 3', 'a moderator of the platform is one everywhere');
update public.profiles set display_name = 'Else' where id = pg_temp.id('aa', 3);
select is(pg_temp.noticed(), '', 'a new name changes no access');

-- Sessions.
select is(pg_temp.said(1), '', 'nothing was said of any of this');
update public.movie_sessions set status = 'live', updated_at = '2000-01-01' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1), 'session.updated', 'a session that goes live says so');
select is(pg_temp.noticed(), '1 *', 'and everybody is asked about anew');
select results_eq(
  $$select started_at, ended_at, updated_at from public.movie_sessions where id = pg_temp.id('5e', 1)$$,
  $$values (now(), null::timestamptz, now())$$,
  'and knows when it began'
);
update public.movie_sessions set title = 'renamed' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1) || pg_temp.noticed(), 'session.updated', 'a new title changes no access');
update public.movie_sessions set title = 'renamed' where id = pg_temp.id('5e', 1);
select is(pg_temp.said(1), '', 'what changes nothing is not said');

-- Bans.
insert into public.session_bans (session_id, user_id, updated_at) values (pg_temp.id('5e', 1), pg_temp.id('aa', 4), '2000-01-01');
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.banned, 1 4', 'a ban is said and felt');
update public.session_bans set until = now() + interval '1 hour' where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.banned, 1 4', 'so is one that gets an end');
select is((select updated_at from public.session_bans where user_id = pg_temp.id('aa', 4)), now(), 'and the row says when');
update public.session_bans set reason = 'rude' where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || pg_temp.noticed(), '', 'the reason stays between them');
delete from public.session_bans where user_id = pg_temp.id('aa', 4);
select is(pg_temp.said(1) || ', ' || pg_temp.noticed(), 'member.unbanned, 1 4', 'a lifted ban is said and felt');

-- Votings.
insert into public.voting_sessions (id, session_id, question, results)
values (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'which?', '{"total": 99}');
select is((select results from public.voting_sessions where id = pg_temp.id('bb', 1)), null, 'a draft has no results, whatever is claimed');
insert into public.voting_options (voting_session_id, movie_id) select pg_temp.id('bb', 1), pg_temp.id('ff', n) from generate_series(1, 2) as n;
select is(pg_temp.said(1), '', 'a draft is nobody''s business');
update public.voting_sessions set state = 'open' where id = pg_temp.id('bb', 1);
select is(pg_temp.said(1), 'voting.opened', 'an opened voting is said');
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 1), pg_temp.id('ff', 3));
select is(pg_temp.said(1), 'voting.updated', 'an option that comes late is said');
update public.voting_options set position = 9 where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1), 'voting.updated', 'so is another order');
insert into public.votes (voting_session_id, user_id, movie_id)
select pg_temp.id('bb', 1), pg_temp.id('aa', n), pg_temp.id('ff', least(n, 2)) from generate_series(1, 3) as n;
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select array_agg(vote_total order by id) from public.movies where id in (pg_temp.id('ff', 1), pg_temp.id('ff', 2))), '{1,2}', 'votes are in the movies'' totals');
select is((select sum(votes) from usher.vote_tallies where voting_session_id = pg_temp.id('bb', 1)), 3::numeric, 'and in the tallies');
delete from public.voting_options where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1), 'voting.updated', 'an option that is taken away is said');
select throws_ok($$truncate public.votes$$, '0A000', null, 'votes are not truncated');
select throws_ok($$truncate public.chat_messages$$, '0A000', null, 'nor are messages');
select throws_ok($$truncate public.session_members$$, '0A000', null, 'nor members');
select throws_ok($$truncate public.session_bans$$, '0A000', null, 'nor bans');
select throws_ok($$truncate public.overlay_tokens$$, '0A000', null, 'nor overlay tokens');
select throws_ok(format('truncate %s cascade', t.name), '0A000', null, format('nor %s with what depends on them', t.name))
from (values ('public.movie_sessions'), ('public.voting_options')) as t (name);

-- A ballot that an owner gives another option from.
insert into public.voting_sessions (id, session_id, question, state)
values (pg_temp.id('bb', 4), pg_temp.id('5e', 2), 'which then?', 'open');
do $$ begin perform pg_temp.said(2); end $$;
insert into public.voting_options (voting_session_id, movie_id) values (pg_temp.id('bb', 4), pg_temp.id('ff', 3));
do $$ begin perform pg_temp.said(2); end $$;
update public.voting_options set voting_session_id = pg_temp.id('bb', 1) where movie_id = pg_temp.id('ff', 3);
select is(pg_temp.said(1) || ', ' || pg_temp.said(2), 'voting.updated, voting.updated', 'an option that changes its ballot is said in both');

-- Triggers of an app run after the guards and move a row.
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
  '{0,1}', 'a vote that a trigger moves leaves one tally and is in the other'
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
select is(pg_temp.said(2), 'voting.opened', 'a voting that is born open is said');
select isnt((select sum(revision) from usher.vote_tallies where voting_session_id = pg_temp.id('bb', 2)), null, 'and has a version');
delete from public.voting_sessions where id = pg_temp.id('bb', 2);
select is(pg_temp.said(2), 'voting.deleted', 'a deleted voting is said');
delete from public.voting_sessions where id = pg_temp.id('bb', 1);
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select array_agg(vote_total order by id) from public.movies where id in (pg_temp.id('ff', 1), pg_temp.id('ff', 2))), '{0,0}', 'and its votes leave the totals');
select is(pg_temp.said(1), 'voting.deleted', 'once');

-- Messages.
insert into public.chat_messages (id, session_id, user_id, body)
select pg_temp.id('cc', n), pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'text ' || n from generate_series(1, 3) as n;
do $$ begin perform usher.settle(); end $$;
update public.chat_messages set body = 'edited' where id = pg_temp.id('cc', 1);
update public.chat_messages set deleted_at = now(), deleted_by = pg_temp.id('aa', 1) where id = pg_temp.id('cc', 2);
do $$ begin perform usher.settle(); end $$;
select is(
  (select data ->> 'body' || (data -> 'author' ->> 'username') from usher.session_events where message_id = pg_temp.id('cc', 2) and type = 'chat.created'),
  null, 'the log forgets the text of a deleted message'
);
select is(
  (select data -> 'author' ->> 'username' from usher.session_events where message_id = pg_temp.id('cc', 2) and type = 'chat.created'),
  'tap_4', 'and not who wrote it'
);
delete from public.chat_messages where id = pg_temp.id('cc', 3);
select is(pg_temp.said(1), 'chat.created chat.created chat.created chat.updated chat.deleted chat.deleted', 'messages are said, edited and taken back');

-- Overlays.
insert into public.overlay_tokens (id, session_id, label, expires_at)
values (pg_temp.id('dd', 5), pg_temp.id('5e', 1), 'obs', now() + interval '1 day');
select is(pg_temp.noticed(), '', 'a new overlay token changes nobody''s access');
update public.overlay_tokens set revoked_at = now();
select is(pg_temp.noticed(), '1 5', 'a revoked one loses it');
delete from public.overlay_tokens;
select is(pg_temp.noticed(), '1 5', 'so does a deleted one');

-- An account that goes away takes its name out of the log.
insert into public.chat_messages (session_id, user_id, body)
select pg_temp.id('5e', 1), pg_temp.id('aa', 4), 'my secret' from generate_series(1, 30);
do $$ begin perform usher.settle(); end $$;
delete from auth.users where id = pg_temp.id('aa', 4);
do $$ begin perform usher.settle(); end $$;
select is(
  (select count(*) from usher.session_events where data::text like '%secret%' or data::text like '%tap_4%' or data::text like '%Tap 4%'),
  0::bigint, 'nothing of a deleted account is left in the log'
);
select is(
  (select count(*) from usher.session_events where session_id = pg_temp.id('5e', 1) and type = 'chat.created'), 30::bigint, 'but that there were messages'
);

-- A session that ends, and one that goes away.
insert into public.voting_sessions (id, session_id, question, state) values (pg_temp.id('bb', 3), pg_temp.id('5e', 2), 'last?', 'open');
do $$ begin perform usher.settle(); end $$;
update public.movie_sessions set status = 'ended' where id = pg_temp.id('5e', 2);
select is(pg_temp.said(2), 'voting.opened voting.closed session.updated', 'the end of a session closes its voting first');
select isnt((select ended_at from public.movie_sessions where id = pg_temp.id('5e', 2)), null, 'and is dated');
do $$ begin perform pg_temp.noticed(); end $$;
delete from public.movie_sessions where id = pg_temp.id('5e', 1);
select is(pg_temp.noticed(), '1 2, 1 3, 1 *', 'a deleted session is nobody''s any more');
do $$ begin perform usher.settle(); end $$;
select is((select count(*) from usher.session_events where session_id = pg_temp.id('5e', 1)), 0::bigint, 'and its log is gone');

select * from finish();
rollback;
