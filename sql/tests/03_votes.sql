-- Votings: who may open, vote and see; the tallies and the totals.
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
select is_empty($$select 1 from public.voting_sessions where id = 'db000000-0000-4000-8000-000000000001'$$, 'a draft is not shown');
select throws_ok(pg_temp.vote(1), 'US008', null, 'nor voted in');
select throws_ok($$insert into public.voting_sessions (session_id, question) values ('d5000000-0000-4000-8000-000000000001', 'x')$$, '42501', null, 'a viewer asks nothing');
select pg_temp.be(1);
select lives_ok($$update public.voting_sessions set state = 'open' where id = 'db000000-0000-4000-8000-000000000001'$$, 'the streamer opens');
select throws_ok($$insert into public.voting_sessions (session_id, question, state) values ('d5000000-0000-4000-8000-000000000001', 'x', 'open')$$, '23505', null, 'one at a time');

select pg_temp.be(2);
select lives_ok(pg_temp.vote(1), 'a viewer votes');
select lives_ok(pg_temp.vote(2), 'and changes the vote');
select throws_ok(pg_temp.vote(3), '23503', null, 'off the ballot');
select throws_ok($$insert into public.votes (voting_session_id, user_id, movie_id) values ('db000000-0000-4000-8000-000000000001', 'd0000000-0000-4000-8000-000000000003', 'df000000-0000-4000-8000-000000000001')$$, '42501', null, 'not for another');
select pg_temp.be(3);
select lives_ok(pg_temp.vote(1), 'another viewer votes');
select is((select count(*)::integer from public.votes), 1, 'and sees the own vote alone');
update public.votes set movie_id = 'df000000-0000-4000-8000-000000000001' where user_id = 'd0000000-0000-4000-8000-000000000002';
delete from public.votes where user_id = 'd0000000-0000-4000-8000-000000000002';
select is_empty($$select 1 from public.votes where user_id = 'd0000000-0000-4000-8000-000000000002'$$, 'others'' votes stay out of reach');
select is(usher.admit('d5000000-0000-4000-8000-000000000001') -> 'mine', '{"db000000-0000-4000-8000-000000000001": "df000000-0000-4000-8000-000000000001"}', 'admission says how one voted');
reset role;
-- Tallies are written at the commit, totals a moment later. This is both.
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;

select is(
  (select tally::jsonb -> 'counts' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])),
  '[{"movie": "df000000-0000-4000-8000-000000000002", "votes": 1}, {"movie": "df000000-0000-4000-8000-000000000001", "votes": 1}]',
  'the tally counts, in the order of the ballot'
);
select is((select vote_total::integer from public.movies where id = 'df000000-0000-4000-8000-000000000001'), 1, 'the movie''s total follows');
update public.voting_sessions set results_visibility = 'after_close' where id = 'db000000-0000-4000-8000-000000000001';
do $$ begin perform usher.settle(), usher.update_vote_totals(); end $$;
select is((select vote_total::integer from public.movies where id = 'df000000-0000-4000-8000-000000000001'), 0, 'unless counts are secret');
select ok((select masked and masked_tally::jsonb -> 'counts' = 'null' and masked_tally::jsonb ->> 'total' = '2' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])), 'a secret tally has a mask');

update public.voting_sessions set allow_change = false where id = 'db000000-0000-4000-8000-000000000001';
do $$ begin perform usher.settle(); end $$;
select pg_temp.be(2);
select throws_ok(pg_temp.vote(1), 'US009', null, 'a final vote stays');
select throws_ok($$delete from public.votes$$, 'US009', null, 'and is not withdrawn');
select pg_temp.be(1);
select lives_ok($$update public.voting_sessions set state = 'closed' where id = 'db000000-0000-4000-8000-000000000001'$$, 'the streamer closes');
select throws_ok($$update public.voting_sessions set state = 'open' where id = 'db000000-0000-4000-8000-000000000001'$$, 'US009', null, 'for good');
select pg_temp.be(4);
select throws_ok(pg_temp.vote(1), 'US008', null, 'too late');
reset role;
select is((select (results ->> 'total')::integer from public.voting_sessions where id = 'db000000-0000-4000-8000-000000000001'), 2, 'the results are frozen');
delete from auth.users where id = 'd0000000-0000-4000-8000-000000000002';
do $$ begin perform usher.settle(); end $$;
select is((select tally::jsonb ->> 'total' from usher.tallies(array['db000000-0000-4000-8000-000000000001']::uuid[])), '1', 'an account that goes takes its vote along');
select is(
  (select array_agg(type order by seq) from usher.session_events where session_id = 'd5000000-0000-4000-8000-000000000001'),
  array['voting.opened', 'voting.updated', 'voting.updated', 'voting.closed'],
  'and the log has the voting'
);

select * from finish();
rollback;
