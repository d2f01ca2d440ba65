-- Live vote counts: tallies in slots, and the vote totals of movies.

-- No foreign key. It would make a voter lock the poll's row at the commit, while a transaction that deletes the poll
-- may already wait for that voter: a deadlock. usher.apply_votes removes the tallies of a deleted poll instead.
create table usher.vote_tallies (
  voting_session_id uuid not null,
  movie_id uuid not null,
  slot smallint not null,
  votes bigint not null,
  revision bigint not null,
  constraint vote_tallies_pkey primary key (voting_session_id, movie_id, slot),
  constraint vote_tallies_slot_check check (slot between 0 and 15)
)
-- Each vote updates one row. Free space on each page lets Postgres skip the index for those updates (HOT).
with (fillfactor = 20);

-- A vote never locks a movie. It inserts a row here, and usher.update_vote_totals later updates the totals. The poll's
-- id is not unique here, so no voter waits for another.
create table usher.vote_total_changes (
  n bigint generated always as identity,
  voting_session_id uuid not null,
  constraint vote_total_changes_pkey primary key (n)
)
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create table usher.movie_votes (
  voting_session_id uuid not null,
  movie_id uuid not null,
  votes bigint not null,
  constraint movie_votes_pkey primary key (voting_session_id, movie_id),
  constraint movie_votes_movie_id_fkey foreign key (movie_id) references public.movies (id) on delete cascade
);

alter table usher.vote_tallies enable row level security;
alter table usher.vote_total_changes enable row level security;
alter table usher.movie_votes enable row level security;

create index movie_votes_movie_id_idx on usher.movie_votes (movie_id);

revoke all on usher.vote_tallies, usher.vote_total_changes, usher.movie_votes
  from public, anon, authenticated, service_role;

comment on table usher.vote_tallies is 'Votes by backend slot, so that voters do not queue on one row. A tally is the sum over slots, and its version is the sum of revisions. Rows stay as long as the poll exists, so versions only grow.';
comment on column usher.vote_tallies.movie_id is 'The nil uuid counts changes of the poll itself, which are revisions too.';
comment on column usher.vote_tallies.votes is 'May be negative in one slot. Only the sum over slots counts.';
comment on table usher.vote_total_changes is 'Polls whose votes may not be in movies.vote_total yet. Emptied by update_vote_totals.';
comment on table usher.movie_votes is 'The votes of each poll that movies.vote_total includes. Only update_vote_totals writes it.';

create function usher.tally_slot() returns smallint
language sql
volatile
return (pg_backend_pid() % 16)::smallint;

-- Applies vote changes, sorted by poll and movie: updates the tallies, queues the polls for the totals, and notifies
-- the gateway.
-- Security definer: called only by usher.settle.
create function usher.apply_votes(votings uuid[], movie_ids uuid[], deltas bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set trace_notify = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  gone uuid[];
begin
  insert into usher.vote_tallies as t (voting_session_id, movie_id, slot, votes, revision)
  select d.voting_id, d.movie_id, usher.tally_slot(), d.delta, 1
  from unnest(votings, movie_ids, deltas) as d (voting_id, movie_id, delta)
  where (d.delta <> 0 or d.movie_id = '00000000-0000-0000-0000-000000000000')
    and exists (select 1 from public.voting_sessions v where v.id = d.voting_id)
  order by d.voting_id, d.movie_id
  on conflict on constraint vote_tallies_pkey
  do update set votes = t.votes + excluded.votes, revision = t.revision + 1;

  with changed as (
    insert into usher.vote_total_changes (voting_session_id)
    select distinct c.id from unnest(votings) as c (id)
    returning voting_session_id as id
  )
  select array_agg(c.id) filter (where not exists (select 1 from public.voting_sessions v where v.id = c.id))
  into gone
  from (select d.id, pg_notify((select n.votes from usher.channels n where n.only_row), d.id::text) from changed d) as c;
  if gone is not null then
    delete from usher.vote_tallies t where t.voting_session_id = any (gone);
  end if;
end
$$;

-- Security definer (the next four): run as triggers for any writer of votes and polls; writers have no rights on the
-- tallies.
create function usher.on_vote_cast() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.record_vote(new.voting_session_id, new.movie_id, 1);
  return null;
end
$$;

create function usher.on_vote_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.record_vote(old.voting_session_id, old.movie_id, -1);
  perform usher.record_vote(new.voting_session_id, new.movie_id, 1);
  return null;
end
$$;

create function usher.on_vote_withdrawn() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.record_vote(old.voting_session_id, old.movie_id, -1);
  return null;
end
$$;

-- A change of the poll itself is a revision too. It may also make the counts public or secret.
create function usher.on_voting_tallied() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.record_vote(
    case when tg_op = 'DELETE' then old.id else new.id end, '00000000-0000-0000-0000-000000000000', 0
  );
  return null;
end
$$;

-- Before a poll is deleted, waits for the voters that hold its ballot lock.
-- Security definer: runs as a trigger for any writer of voting_sessions; writers cannot take the lock.
create function usher.on_voting_deleting() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(usher.ballot_lock_key(old.id));
  return old;
end
$$;

-- Totals -----------------------------------------------------------------------------------------------------

-- Returns where the movies' totals differ from the tallies of these polls. Polls with secret counts and polls of
-- private sessions count as zero.
-- Called only by update_vote_totals, which runs as the owner.
create function usher.vote_total_differences(votings uuid[])
returns table (voting_id uuid, movie_id uuid, votes bigint, delta bigint)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
    select d.voting_id, d.movie_id, sum(d.votes)::bigint, sum(d.votes - d.counted)::bigint
    from (
      select t.voting_session_id as voting_id, t.movie_id, t.votes, 0 as counted
      from usher.vote_tallies t
      where t.voting_session_id = any (votings)
        and t.movie_id <> '00000000-0000-0000-0000-000000000000'
        and (
          select (v.results_visibility = 'live' or v.state = 'closed') and s.visibility <> 'private'
          from public.voting_sessions v
          join public.movie_sessions s on s.id = v.session_id
          where v.id = t.voting_session_id
        )
      union all
      select c.voting_session_id, c.movie_id, 0, c.votes
      from usher.movie_votes c
      where c.voting_session_id = any (votings)
    ) as d
    group by d.voting_id, d.movie_id
    having sum(d.votes - d.counted) <> 0;
end
$$;

-- Updates movies.vote_total. Returns the number of changes that it has processed, at most 1,000. Call it until it
-- returns less. It never waits for a lock: changes to a movie that another transaction has locked stay for a later
-- call.
-- Security definer: called by usher_gateway. The values that it writes come only from the tallies.
create function usher.update_vote_totals() returns integer
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
  changes_max constant integer := 1000;
  taken integer;
  votings uuid[];
  locked uuid[];
  left_over integer;
begin
  with gone as (
    delete from usher.vote_total_changes c
    where c.n = any (array(
      select t.n from usher.vote_total_changes t order by t.n limit changes_max for update skip locked
    ))
    returning c.voting_session_id
  )
  select count(*), array_agg(distinct g.voting_session_id) into taken, votings from gone g;
  if taken = 0 then
    return 0;
  end if;

  select array_agg(l.id)
  into locked
  from (
    select m.id
    from public.movies m
    where m.id = any (array(select d.movie_id from usher.vote_total_differences(votings) d))
    order by m.id
    for no key update skip locked
  ) as l;

  -- Computed again after taking the locks, because another gateway may have updated the totals in the meantime.
  with differences as materialized (
    select * from usher.vote_total_differences(votings)
  ),
  counted as (
    insert into usher.movie_votes as c (voting_session_id, movie_id, votes)
    select d.voting_id, d.movie_id, d.votes
    from differences d
    where d.movie_id = any (locked)
    on conflict on constraint movie_votes_pkey do update set votes = excluded.votes
  ),
  updated as (
    update public.movies m
    set vote_total = m.vote_total + d.delta
    from (
      select e.movie_id, sum(e.delta) as delta from differences e where e.movie_id = any (locked) group by e.movie_id
    ) as d
    where m.id = d.movie_id and d.delta <> 0
  ),
  again as (
    insert into usher.vote_total_changes (voting_session_id)
    select distinct d.voting_id
    from differences d
    where d.movie_id <> all (coalesce(locked, '{}'))
      and exists (select 1 from public.movies m where m.id = d.movie_id)
    returning 1
  )
  select count(*) into left_over from again;
  delete from usher.movie_votes c where c.voting_session_id = any (votings) and c.votes = 0;
  return taken - left_over;
end
$$;

revoke execute on function
  usher.tally_slot(), usher.apply_votes(uuid[], uuid[], bigint[]), usher.on_vote_cast(), usher.on_vote_changed(),
  usher.on_vote_withdrawn(), usher.on_voting_tallied(), usher.on_voting_deleting(),
  usher.vote_total_differences(uuid[]), usher.update_vote_totals()
  from public;

grant execute on function usher.update_vote_totals() to usher_gateway;

create trigger "00_usher_cast"
  after insert on public.votes
  for each row
  execute function usher.on_vote_cast();

create trigger "00_usher_changed"
  after update on public.votes
  for each row
  when ((old.voting_session_id, old.movie_id) is distinct from (new.voting_session_id, new.movie_id))
  execute function usher.on_vote_changed();

create trigger "00_usher_withdrawn"
  after delete on public.votes
  for each row
  execute function usher.on_vote_withdrawn();

create trigger voting_sessions_deleting
  before delete on public.voting_sessions
  for each row
  execute function usher.on_voting_deleting();

create trigger "00_usher_tallied"
  after insert or update or delete on public.voting_sessions
  for each row
  execute function usher.on_voting_tallied();

-- Votes from before the tallies, all in slot 0.
insert into usher.vote_tallies (voting_session_id, movie_id, slot, votes, revision)
select v.voting_session_id, v.movie_id, 0, count(*), count(*)
from public.votes v
group by v.voting_session_id, v.movie_id;

insert into usher.movie_votes (voting_session_id, movie_id, votes)
select t.voting_session_id, t.movie_id, t.votes
from usher.vote_tallies t
join public.voting_sessions v on v.id = t.voting_session_id
join public.movie_sessions s on s.id = v.session_id
where (v.results_visibility = 'live' or v.state = 'closed') and s.visibility <> 'private';

update public.movies m
set vote_total = coalesce((select sum(c.votes) from usher.movie_votes c where c.movie_id = m.id), 0)
-- Supabase loads safeupdate, which refuses an update without a condition.
where true;
