-- Takes the order of locks back.

drop trigger profiles_deleting on public.profiles;
drop trigger movie_sessions_deleting on public.movie_sessions;
drop function usher.on_profile_deleting();
drop function usher.on_session_deleting();
drop function usher.lock_for_deletion(uuid[], uuid);

create or replace function usher.on_sessions_updated() returns trigger
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  changed record;
begin
  for changed in
    select
      n.id,
      row_to_json(n) as data,
      (n.visibility, n.status, n.streamer_id, n.chat_enabled)
        is distinct from (o.visibility, o.status, o.streamer_id, o.chat_enabled) as is_access,
      n.status = 'ended' and o.status <> 'ended' as is_end
    from new_rows n
    join old_rows o on o.id = n.id
    where to_jsonb(n) - 'updated_at' <> to_jsonb(o) - 'updated_at'
    order by n.id
  loop
    perform usher.append_event(changed.id, 'session.updated', changed.data);
    if changed.is_access then
      perform usher.notify_access(changed.id, null);
    end if;
    if changed.is_end then
      -- Nobody can vote any more: the result is known.
      update public.voting_sessions v set state = 'closed' where v.session_id = changed.id and v.state = 'open';
    end if;
  end loop;
  return null;
end
$$;

create or replace function usher.close_due_votings() returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  voting record;
  closed integer := 0;
begin
  for voting in
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= clock_timestamp()
    order by v.session_id, v.id
    for no key update skip locked
  loop
    update public.voting_sessions v set state = 'closed' where v.id = voting.id;
    closed := closed + 1;
  end loop;
  return closed;
end
$$;

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
  sessions uuid[] := '{}';
  floors bigint[] := '{}';
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
    delete from usher.session_events e
    where e.session_id = log.session_id and e.seq > log.floor and e.seq <= trimmed_to;
    sessions := sessions || log.session_id;
    floors := floors || trimmed_to;
  end loop;

  -- Last and in the order of all writers: a head that is locked stops its session.
  for log in
    select t.session_id, t.floor
    from unnest(sessions, floors) as t (session_id, floor)
    order by t.session_id
  loop
    update usher.session_heads h
    set floor = greatest(h.floor, log.floor)
    where h.session_id = log.session_id;
  end loop;
  return deleted;
end
$$;

create or replace function usher.on_voting_deleted() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(usher.ballot_lock_key(old.id));
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

drop function usher.close_votings(uuid[], uuid[]);
