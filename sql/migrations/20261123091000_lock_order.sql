-- One order of locks for all writers, so that none waits for another in a circle:
--
--   sessions and accounts, messages, votings, ballot boxes (by voting), heads (by session), rows of the log,
--   tallies (by voting and movie), movies (by id)
--
-- Whoever deletes a session or an account takes, in this order, what the cascade would take in another.
-- One statement that deletes several sessions still takes them one after another, as rows come: a vote that comes in
-- between may have to be cast again.

-- Closes these votings where they are open: first the rows and boxes of all, then the heads of their sessions and of
-- those whose log the caller will write to.
-- Security definer: called by a trigger and by close_due_votings; nobody else may.
create function usher.close_votings(votings uuid[], sessions uuid[]) returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  closed integer;
begin
  if coalesce(cardinality(votings), 0) = 0 then
    return 0;
  end if;
  perform 1 from public.voting_sessions v where v.id = any (votings) order by v.id for no key update;
  perform pg_advisory_xact_lock(usher.ballot_lock_key(v.id))
  from (select u.id from unnest(votings) as u (id) order by u.id) as v;
  perform 1
  from usher.session_heads h
  where h.session_id = any (
    sessions || array(select v.session_id from public.voting_sessions v where v.id = any (votings))
  )
  order by h.session_id
  for no key update;
  update public.voting_sessions v set state = 'closed' where v.id = any (votings) and v.state = 'open';
  get diagnostics closed = row_count;
  return closed;
end
$$;

-- As before, and the votings of an ended session close before its log is locked.
-- Security definer: runs as a trigger for any writer of movie_sessions, who may not touch the log.
create or replace function usher.on_sessions_updated() returns trigger
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  changed record;
begin
  -- Nobody can vote any more: the result is known, and the log has it before the end.
  perform usher.close_votings(array(
    select v.id
    from new_rows n
    join old_rows o on o.id = n.id
    join public.voting_sessions v on v.session_id = n.id and v.state = 'open'
    where n.status = 'ended' and o.status <> 'ended'
  ), array(select n.id from new_rows n));
  for changed in
    select
      n.id,
      row_to_json(n) as data,
      (n.visibility, n.status, n.streamer_id, n.chat_enabled)
        is distinct from (o.visibility, o.status, o.streamer_id, o.chat_enabled) as is_access
    from new_rows n
    join old_rows o on o.id = n.id
    where to_jsonb(n) - 'updated_at' <> to_jsonb(o) - 'updated_at'
    order by n.id
  loop
    perform usher.append_event(changed.id, 'session.updated', changed.data);
    if changed.is_access then
      perform usher.notify_access(changed.id, null);
    end if;
  end loop;
  return null;
end
$$;

-- Closes the votings whose time is over and returns how many. Those that somebody else is closing are left to them.
-- Security definer: called by usher_gateway; the clock decides what it does.
create or replace function usher.close_due_votings() returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  due uuid[];
begin
  select array_agg(d.id)
  into due
  from (
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= clock_timestamp()
    order by v.id
    for no key update skip locked
  ) as d;
  return usher.close_votings(due, '{}');
end
$$;

-- As before, and the head is locked before rows of the log go: who redacts them has the head as well.
-- Security definer: called by usher_gateway; what it may delete is history that the gateway no longer serves.
create or replace function usher.trim_events(max_age interval, max_count integer, batch integer) returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  oldest_kept constant timestamptz := clock_timestamp() - max_age;
  log record;
  trimmed_to bigint;
  deleted bigint := 0;
begin
  for log in
    select h.session_id, h.floor, h.seq, greatest(h.seq - max_count, h.floor) as by_count
    from usher.session_heads h
    where h.seq > h.floor + 1
      and (
        h.seq - max_count > h.floor
        or (
          select e.at
          from usher.session_events e
          where e.session_id = h.session_id and e.seq = h.floor + 1
        ) < oldest_kept
      )
    order by h.session_id
  loop
    exit when deleted >= batch;
    -- Times ascend with the numbers, so the first row that is young enough ends what may go.
    select coalesce(min(e.seq) filter (
      where (oldest_kept is null or e.at >= oldest_kept) and e.seq > log.by_count
    ), max(e.seq) + 1) - 1
    into trimmed_to
    from (
      select e.seq, e.at
      from usher.session_events e
      where e.session_id = log.session_id and e.seq > log.floor and e.seq < log.seq
      order by e.seq
      limit batch - deleted
    ) as e;
    if trimmed_to is null or trimmed_to <= log.floor then
      continue;
    end if;
    deleted := deleted + (trimmed_to - log.floor);
    -- The head first, as everybody does who touches rows of the log.
    update usher.session_heads h
    set floor = greatest(h.floor, trimmed_to)
    where h.session_id = log.session_id;
    delete from usher.session_events e
    where e.session_id = log.session_id and e.seq > log.floor and e.seq <= trimmed_to;
  end loop;
  return deleted;
end
$$;

-- As before, and the head is locked before the movies.
-- Security definer: runs as a trigger for any writer of voting_sessions.
create or replace function usher.on_voting_deleted() returns trigger
language plpgsql
security definer
set search_path = ''
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

-- Takes the locks that deleting these sessions or this account needs.
-- Security definer: called by the two triggers below; nobody else may.
create function usher.lock_for_deletion(sessions uuid[], account uuid) returns void
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
begin
  perform 1
  from public.chat_messages m
  where m.user_id = account
  order by m.session_id, m.created_at
  for update;
  perform 1
  from public.chat_messages m
  where m.session_id = any (sessions)
  order by m.session_id, m.created_at
  for update;
  -- Not for update: a voter who is in the box may still need the key of the voting for its tally.
  perform 1 from public.voting_sessions v where v.session_id = any (sessions) order by v.id for no key update;
  perform case
    when b.goes then pg_advisory_xact_lock(usher.ballot_lock_key(b.voting_id))
    else pg_advisory_xact_lock_shared(usher.ballot_lock_key(b.voting_id))
  end
  from (
    select u.voting_id, bool_or(u.goes) as goes
    from (
      select v.id as voting_id, true as goes from public.voting_sessions v where v.session_id = any (sessions)
      union all
      select w.voting_session_id, false from public.votes w where w.user_id = account
    ) as u
    group by u.voting_id
    order by u.voting_id
  ) as b;
  perform 1
  from usher.session_heads h
  where h.session_id = any (array(
    select unnest(sessions)
    union
    select m.session_id from public.chat_messages m where m.user_id = account
  ))
  order by h.session_id
  for update;
end
$$;

-- Security definer (these two): run as triggers for whoever deletes, who may not touch the log.
create function usher.on_session_deleting() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform usher.lock_for_deletion(array[old.id], null);
  return old;
end
$$;

create function usher.on_profile_deleting() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform usher.lock_for_deletion(
    array(select s.id from public.movie_sessions s where s.streamer_id = old.id order by s.id for update), old.id
  );
  return old;
end
$$;

revoke execute on function
  usher.close_votings(uuid[], uuid[]), usher.lock_for_deletion(uuid[], uuid), usher.on_session_deleting(),
  usher.on_profile_deleting()
  from public;

create trigger movie_sessions_deleting
  before delete on public.movie_sessions
  for each row
  execute function usher.on_session_deleting();

create trigger profiles_deleting
  before delete on public.profiles
  for each row
  execute function usher.on_profile_deleting();
