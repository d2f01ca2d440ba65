-- Live counts: slotted tallies, and the movies' totals.

create table usher.vote_tallies (
  voting_session_id uuid not null,
  movie_id uuid not null,
  slot smallint not null,
  votes bigint not null,
  revision bigint not null,
  constraint vote_tallies_pkey primary key (voting_session_id, movie_id, slot),
  constraint vote_tallies_voting_session_id_fkey foreign key (voting_session_id)
    references public.voting_sessions (id) on delete cascade,
  constraint vote_tallies_slot_check check (slot between 0 and 15)
)
-- Rewritten by every vote: room on the page keeps those updates off the index.
with (fillfactor = 20);

alter table usher.vote_tallies enable row level security;

revoke all on usher.vote_tallies from public, anon, authenticated, service_role;

comment on table usher.vote_tallies is 'Votes by backend slot, so that voters do not queue on one row. A tally is the sum over slots, its version the sum of revisions. Rows are never removed while the voting is there: versions only grow.';
comment on column usher.vote_tallies.movie_id is 'The nil uuid stands for the voting itself: its changes are revisions too.';
comment on column usher.vote_tallies.votes is 'May be negative in one slot: the sum counts.';

create function usher.tally_slot() returns smallint
language sql
volatile
return (pg_backend_pid() % 16)::smallint;

-- Adds to the movies' totals, movies by id.
-- Security definer: called by our triggers; nobody else may.
create function usher.add_to_totals(movie_ids uuid[], deltas bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  movie record;
begin
  for movie in
    select d.movie_id, sum(d.delta) as delta
    from unnest(movie_ids, deltas) as d (movie_id, delta)
    group by d.movie_id
    having sum(d.delta) <> 0
    order by d.movie_id
  loop
    update public.movies m set vote_total = m.vote_total + movie.delta where m.id = movie.movie_id;
  end loop;
end
$$;

-- Applies changes of votes: the tallies by voting and movie, then the movies by id, then the hint for the gateway.
-- Votings that are being deleted are passed over: their tallies go with them.
-- Security definer: called by our triggers and by usher.settle_votes; nobody else may.
create function usher.apply_votes(votings uuid[], movie_ids uuid[], deltas bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  change record;
begin
  insert into usher.vote_tallies as t (voting_session_id, movie_id, slot, votes, revision)
  select d.voting_id, d.movie_id, usher.tally_slot(), sum(d.delta), 1
  from unnest(votings, movie_ids, deltas) as d (voting_id, movie_id, delta)
  where exists (select 1 from public.voting_sessions v where v.id = d.voting_id)
  group by d.voting_id, d.movie_id
  having sum(d.delta) <> 0
  order by d.voting_id, d.movie_id
  on conflict on constraint vote_tallies_pkey
  do update set votes = t.votes + excluded.votes, revision = t.revision + 1;

  select array_agg(d.movie_id) as movie_ids, array_agg(d.delta) as deltas
  into change
  from unnest(votings, movie_ids, deltas) as d (voting_id, movie_id, delta)
  join public.voting_sessions v on v.id = d.voting_id
  where v.results_visibility = 'live' or v.state = 'closed';
  if change.movie_ids is not null then
    perform usher.add_to_totals(change.movie_ids, change.deltas);
  end if;

  perform pg_notify((select c.votes from usher.channels c), v.voting_id::text)
  from (select distinct unnest(votings) as voting_id) as v;
end
$$;

-- Hands changes to apply_votes, now or when the gateway settles its batch.
-- Security definer: called by the triggers on votes; nobody else may.
create function usher.record_votes(votings uuid[], movie_ids uuid[], deltas bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if votings is null then
    return;
  elsif usher.is_batching() then
    -- A setting and not a variable: with a failed item its part goes away.
    perform set_config(
      'usher.votes',
      coalesce(current_setting('usher.votes', true), '') || (
        select string_agg(d.voting_id || ',' || d.movie_id || ',' || d.delta || ' ', '')
        from unnest(votings, movie_ids, deltas) as d (voting_id, movie_id, delta)
      ),
      true
    );
  else
    perform usher.apply_votes(votings, movie_ids, deltas);
  end if;
end
$$;

-- In a batch, votes are noted; in the batch's own statements one voter casts one vote.
-- Security definer (these two): run as triggers for any writer of votes, who may not touch the tallies.
create function usher.on_votes_cast() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if usher.is_batching() then
    perform set_config(
      'usher.votes',
      coalesce(current_setting('usher.votes', true), '')
        || string_agg(n.voting_session_id || ',' || n.movie_id || ',1 ', ''),
      true
    )
    from new_rows n
    having count(*) > 0;
    return null;
  end if;
  perform usher.record_votes(array_agg(n.voting_session_id), array_agg(n.movie_id), array_agg(n.votes))
  from (select r.voting_session_id, r.movie_id, count(*) as votes from new_rows r group by 1, 2) as n;
  return null;
end
$$;

create function usher.on_votes_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from new_rows) then
    -- Whatever inserts and would have updated comes by here.
    return null;
  end if;
  perform usher.record_votes(array_agg(d.voting_session_id), array_agg(d.movie_id), array_agg(d.delta))
  from (
    select c.voting_session_id, c.movie_id, sum(c.delta)::bigint as delta
    from (
      select n.voting_session_id, n.movie_id, 1 as delta from new_rows n
      union all
      select o.voting_session_id, o.movie_id, -1 from old_rows o
    ) as c
    group by 1, 2
    having sum(c.delta) <> 0
  ) as d;
  return null;
end
$$;

create function usher.on_votes_withdrawn() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.record_votes(array_agg(o.voting_session_id), array_agg(o.movie_id), array_agg(-o.votes))
  from (select r.voting_session_id, r.movie_id, count(*) as votes from old_rows r group by 1, 2) as o;
  return null;
end
$$;

-- A change of the voting itself is a revision too, and its counts join or leave the movies' totals where they
-- turn public or secret.
-- Security definer: called by the trigger on voting_sessions; nobody else may.
create function usher.bump_votings(votings uuid[]) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into usher.vote_tallies as t (voting_session_id, movie_id, slot, votes, revision)
  select v.id, '00000000-0000-0000-0000-000000000000', usher.tally_slot(), 0, 1
  from unnest(votings) as v (id)
  order by v.id
  on conflict on constraint vote_tallies_pkey do update set revision = t.revision + 1;

  select pg_notify((select c.votes from usher.channels c), v.id::text) from unnest(votings) as v (id);
$$;

-- Security definer (these two): run as triggers for any writer of voting_sessions.
create function usher.on_votings_tallied() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' then
    perform usher.add_to_totals(array_agg(c.movie_id), array_agg(c.delta))
    from (
      select v.movie_id, sum(turned.sign)::bigint as delta
      from (
        select n.id, is_counted.now::integer - is_counted.before::integer as sign
        from new_rows n
        join old_rows o on o.id = n.id
        cross join lateral (
          select
            n.results_visibility = 'live' or n.state = 'closed',
            o.results_visibility = 'live' or o.state = 'closed'
        ) as is_counted (now, before)
      ) as turned
      join public.votes v on v.voting_session_id = turned.id
      where turned.sign <> 0
      group by v.movie_id
    ) as c
    having count(*) > 0;
  end if;
  perform usher.bump_votings(array_agg(n.id)) from new_rows n having count(*) > 0;
  return null;
end
$$;

-- Locks the head before the movies.
-- Security definer: runs as a trigger for any writer of voting_sessions.
create function usher.on_voting_deleted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(usher.ballot_lock_key(old.id));
  -- The movies are locked below: the head of the log comes before them.
  perform 1 from usher.session_heads h where h.session_id = old.session_id for no key update;
  if old.results_visibility = 'live' or old.state = 'closed' then
    perform usher.add_to_totals(array_agg(c.movie_id), array_agg(c.delta))
    from (
      select v.movie_id, -count(*) as delta from public.votes v where v.voting_session_id = old.id group by v.movie_id
    ) as c
    having count(*) > 0;
  end if;
  return old;
end
$$;

revoke execute on function
  usher.tally_slot(), usher.add_to_totals(uuid[], bigint[]), usher.apply_votes(uuid[], uuid[], bigint[]),
  usher.record_votes(uuid[], uuid[], bigint[]), usher.on_votes_cast(), usher.on_votes_changed(),
  usher.on_votes_withdrawn(), usher.bump_votings(uuid[]), usher.on_votings_tallied(), usher.on_voting_deleted()
  from public;

create trigger votes_cast
  after insert on public.votes
  referencing new table as new_rows
  for each statement
  execute function usher.on_votes_cast();

create trigger votes_changed
  after update on public.votes
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_votes_changed();

create trigger votes_withdrawn
  after delete on public.votes
  referencing old table as old_rows
  for each statement
  execute function usher.on_votes_withdrawn();

-- Before the delete: afterwards nobody knows any more what was counted.
create trigger voting_sessions_uncounted
  before delete on public.voting_sessions
  for each row
  execute function usher.on_voting_deleted();

-- Named to run after the triggers that append to the log: sessions are locked first, then tallies, then movies.
create trigger voting_sessions_tallied_created
  after insert on public.voting_sessions
  referencing new table as new_rows
  for each statement
  execute function usher.on_votings_tallied();

create trigger voting_sessions_tallied_updated
  after update on public.voting_sessions
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_votings_tallied();

-- Votes that were there before the tallies. Slot 0 stands for all of them.
insert into usher.vote_tallies (voting_session_id, movie_id, slot, votes, revision)
select v.voting_session_id, v.movie_id, 0, count(*), count(*)
from public.votes v
group by v.voting_session_id, v.movie_id;

update public.movies m
set vote_total = (
  select count(*)
  from public.votes v
  join public.voting_sessions s on s.id = v.voting_session_id
  where v.movie_id = m.id and (s.results_visibility = 'live' or s.state = 'closed')
)
-- Supabase's safeupdate refuses an update without a condition.
where true;
