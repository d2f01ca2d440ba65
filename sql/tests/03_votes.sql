-- Polls: the rights to open polls, vote and see votes; the tallies and the totals.
begin;
create extension if not exists pgtap;
select plan(25);

insert into auth.users (id, email, raw_user_meta_data)
select
  ('d0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'tap' || n || '@usher.example',
  jsonb_build_object('username', 'tap_' || n)
from generate_series(1, 5) as n;
update public.profiles set role = 'streamer' where id = 'd0000000-0000-4000-8000-000000000001';
insert into public.movie_sessions (id, streamer_id, title, status)
values ('d5000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000001', 'public', 'live');
insert into public.movies (id, title)
select ('df000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Movie ' || n from generate_series(1, 3) as n;
insert into public.voting_sessions (id, session_id, question)
values ('db000000-0000-4000-8000-000000000001', 'd5000000-0000-4000-8000-000000000001', 'which?');
insert into public.voting_options (voting_session_id, movie_id, position)
values
  ('db000000-0000-4000-8000-000000000001', 'df000000-0000-4000-8000-000000000002', 1),
  ('db000000-0000-4000-8000-000000000001', 'df000000-0000-4000-8000-000000000001', 2);

create function pg_temp.be(n integer) returns void
language sql
as $$
  select set_config('role', 'authenticated', true), set_config(
    'request.jwt.claims',
    json_build_object('sub', 'd0000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'role', 'authenticated')::text, true
  );
$$;
create function pg_temp.vote(movie integer) returns text
language sql
as $$
  select format(
    'insert into public.votes (voting_session_id, movie_id) values (%L, %L)
    on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id',
    'db000000-0000-4000-8000-000000000001', 'df000000-0000-4000-8000-' || lpad(movie::text, 12, '0')
  );
$$;

select pg_temp.be(2);
select is_empty($$select 1 from public.voting_sessions where id = 'db000000-0000-4000-8000-000000000001'$$, 'a viewer cannot see a draft');
select throws_ok(pg_temp.vote(1), 'US008', null, 'a viewer cannot vote in a draft');
select throws_ok($$insert into public.voting_sessions (session_id, question) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'a viewer cannot create a poll');
select pg_temp.be(1);
select lives_ok($$update public.voting_sessions set state = 'open' where id = 'db000000-0000-4000-8000-000000000001'$$, 'the streamer can open a poll');
select throws_ok($$insert into public.voting_sessions (session_id, question, state) values ('d5000000-0000-4000-8000-000000000001', 'x', 'open')$$, '23505', null, 'a session cannot have two open polls');

select pg_temp.be(2);
select lives_ok(pg_temp.vote(1), 'a viewer can vote');
select lives_ok(pg_temp.vote(2), 'a viewer can change the vote');
select throws_ok(pg_temp.vote(3), '23503', null, 'a vote must be for a movie on the ballot');
select throws_ok($$insert into public.votes (voting_session_id, user_id, movie_id) values ('db000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003', 'df000000-0000-4000-8000-000000000001')$$, '42501', null, 'a viewer cannot vote for another user');
select pg_temp.be(3);
select lives_ok(pg_temp.vote(1), 'another viewer can vote');
select is((select count(*)::integer from public.votes), 1, 'a viewer sees only the own vote');
update public.votes set movie_id = 'df000000-0000-4000-8000-000000000001' where user_id = 'd0000000-0000-4000-8000-000000000002';
delete from public.votes where user_id = 'd0000000-0000-4000-8000-000000000002';
select is_empty($$select 1 from public.votes where user_id = 'd0000000-0000-4000-8000-000000000002'$$, 'a viewer cannot change or delete votes of others');
select is(usher.admit('d5000000-0000-4000-8000-000000000001') -> 'mine', '{"db000000-0000-4000-8000-000000000001": "df000000-0000-4000-8000-000000000001"}', 'admission returns the votes of the caller');
reset role;
-- Tallies are written at the commit, and totals a moment later. This does both.
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;

select is(
  (select tally::jsonb -> 'counts' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])),
  '[{"movie": "df000000-0000-4000-8000-000000000002", "votes": 1}, {"movie": "df000000-0000-4000-8000-000000000001", "votes": 1}]',
  'the tally has the counts in the order of the ballot'
);
select is((select vote_total::integer from public.movies where id = 'df000000-0000-4000-8000-000000000001'), 1, 'the total of the movie includes the vote');
update public.voting_sessions set results_visibility = 'after_close' where id = 'db000000-0000-4000-8000-000000000001';
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select vote_total::integer from public.movies where id = 'df000000-0000-4000-8000-000000000001'), 0, 'secret counts leave the total');
select ok((select masked and masked_tally::jsonb -> 'counts' = 'null' and masked_tally::jsonb ->> 'total' = '2' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])), 'a tally with secret counts has a masked version');

update public.voting_sessions set allow_change = false where id = 'db000000-0000-4000-8000-000000000001';
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(2);
select throws_ok(pg_temp.vote(1), 'US009', null, 'a final vote cannot change');
select throws_ok($$delete from public.votes$$, 'US009', null, 'a final vote cannot be withdrawn');
select pg_temp.be(1);
select lives_ok($$update public.voting_sessions set state = 'closed' where id = 'db000000-0000-4000-8000-000000000001'$$, 'the streamer can close a poll');
select throws_ok($$update public.voting_sessions set state = 'open' where id = 'db000000-0000-4000-8000-000000000001'$$, 'US009', null, 'a closed poll cannot open again');
select pg_temp.be(4);
select throws_ok(pg_temp.vote(1), 'US008', null, 'a closed poll refuses votes');
reset role;
select is((select (results ->> 'total')::integer from public.voting_sessions where id = 'db000000-0000-4000-8000-000000000001'), 2, 'the results have both votes');
delete from auth.users where id = 'd0000000-0000-4000-8000-000000000002';
do $$ begin perform usher.settle(); end $$;
select is((select tally::jsonb ->> 'total' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])), '1', 'the vote of a deleted account leaves the tally');
select is(
  (select array_agg(type order by seq) from usher.session_events where session_id = 'd5000000-0000-4000-8000-000000000001'),
  array['voting.opened', 'voting.updated', 'voting.updated', 'voting.closed'],
  'the log has the events of the poll'
);

select * from finish();
rollback;
