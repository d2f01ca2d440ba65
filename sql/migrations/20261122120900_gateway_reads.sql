-- The gateway's reads: the permissions of a caller, the state of a session and its later events.
--
-- They are PL/pgSQL because it keeps its plans: Postgres would parse and plan a function in SQL again for every call.

-- Returns the caller's permissions in a session. Null means that the session does not exist or is hidden from the
-- caller.
-- Runs as the caller, so that the project's own policies on movie_sessions decide whether the caller sees the session.
-- An overlay sees its session whatever its visibility, and no other session. It can never write.
create function usher.admit(session uuid) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  caller record;
  may_write boolean;
begin
  if auth.jwt() ? 'usher_overlay' then
    return case
      when usher.is_overlay(admit.session) then '{"send": false, "vote": false, "moderate": false, "mine": {}}'::jsonb
      else '{"refused": "forbidden"}'
    end;
  end if;
  perform 1 from public.movie_sessions s where s.id = admit.session;
  if not found then
    return null;
  end if;
  select * into caller from usher.standing(admit.session);
  if not found then
    return null;
  elsif caller.ban_until = 'infinity' then
    return '{"refused": "banned"}';
  end if;
  may_write := caller.writer and caller.ban_until is null and not caller.ended;
  return jsonb_strip_nulls(jsonb_build_object(
    'send', may_write and (caller.chat_enabled or caller.moderator),
    'vote', may_write,
    'moderate', caller.moderator,
    'mine', usher.my_votes(admit.session),
    -- The end of a time-out: then the permissions change, and the gateway should ask again.
    'ask_again_ms', ceil(1000 * extract(epoch from caller.ban_until - clock_timestamp()))
  ));
end
$$;

-- Returns the caller's votes in a session, by poll. An anonymous caller has none.
-- Security definer: called as anon and authenticated; anon has no rights on the table. It returns only the caller's own
-- votes.
create function usher.my_votes(session uuid) returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(jsonb_object_agg(v.voting_session_id, v.movie_id), '{}')
    from public.voting_sessions s
    join public.votes v on v.voting_session_id = s.id and v.user_id = auth.uid()
    where s.session_id = my_votes.session
  );
end
$$;

-- Returns the state and the tally of each of these polls, except drafts.
create function usher.voting_states(votings uuid[])
returns table (
  voting_id uuid, session_id uuid, state text, results_visibility text, question text, allow_change boolean,
  closes_at timestamptz, version bigint, total bigint, counts text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
    select
      v.id, v.session_id, v.state, v.results_visibility, v.question, v.allow_change, v.closes_at,
      coalesce((select sum(t.revision) from usher.vote_tallies t where t.voting_session_id = v.id), 0)::bigint,
      coalesce(c.total, 0)::bigint,
      '[' || coalesce(c.counts, '') || ']'
    from public.voting_sessions v
    cross join lateral (
      select
        sum(o.votes) as total,
        string_agg('{"movie":"' || o.movie_id || '","votes":' || o.votes || '}', ',' order by o.position, o.movie_id) as counts
      from (
        select
          o.movie_id, o.position,
          coalesce((
            select sum(t.votes)
            from usher.vote_tallies t
            where t.voting_session_id = o.voting_session_id and t.movie_id = o.movie_id
          ), 0)::bigint as votes
        from public.voting_options o
        where o.voting_session_id = v.id
      ) as o
    ) as c
    where v.id = any (votings) and v.state <> 'draft';
end
$$;

-- Returns the tallies of polls as frames. If viewers must not see the counts yet, `masked` is true and the gateway
-- sends masked_tally to them.
-- Security definer: called by usher_gateway, which may see all counts.
create function usher.tallies(votings uuid[])
returns table (voting_id uuid, session_id uuid, masked boolean, tally text, masked_tally text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
  return query
    select
      v.voting_id,
      v.session_id,
      v.state = 'open' and v.results_visibility = 'after_close',
      f.head || v.counts || f.tail,
      f.head || 'null' || f.tail
    from usher.voting_states(tallies.votings) v
    cross join lateral (
      select
        '{"type":"tally","session":"' || v.session_id || '","voting":"' || v.voting_id || '","status":"' || v.state
          || '","version":' || v.version || ',"total":' || v.total || ',"counts":',
        ',"closes_at":' || coalesce(to_json(v.closes_at)::text, 'null') || '}'
    ) as f (head, tail);
end
$$;

-- The identity of this database. A restored, copied or promoted database is a new epoch, because there the same numbers
-- may name other events.
create table usher.identity (
  only_row boolean not null default true,
  id uuid not null default gen_random_uuid(),
  constraint identity_pkey primary key (only_row),
  constraint identity_only_row_check check (only_row)
);

alter table usher.identity enable row level security;

revoke all on usher.identity from public, anon, authenticated, service_role;

insert into usher.identity default values;

-- Returns the epoch: an identifier that changes whenever the log may have been replaced. Each part detects another
-- case:
--   the stored id               a schema that was removed and applied again
--   the xmin of its row         a dump that was restored into these tables, the id included
--   the table's oid             a dump that was restored with --clean
--   the database's oid          a dump that was restored into another database, a copy by `create database … template`
--   the system identifier       another cluster: logical replication, an upgrade
--   the timeline                a recovery to a point in time, a promoted standby
-- Security definer: called by usher_gateway. It returns a hash that does not reveal the parts.
create function usher.epoch() returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select left(md5(
      concat_ws(
        ':', i.id, i.xmin, 'usher.session_events'::regclass::oid, d.oid, c.system_identifier,
        left(pg_walfile_name(pg_current_wal_lsn()), 8)
      )
    ), 12)
    from usher.identity i
    cross join pg_control_system() c
    join pg_database d on d.datname = current_database()
  );
end
$$;

-- Returns the state of a session for a new viewer.
-- Security definer: called by usher_gateway, after admit() has admitted the caller.
create function usher.session_snapshot(session uuid) returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
  return (
    select jsonb_build_object(
      'epoch', usher.epoch(),
      'head', h.seq,
      'floor', h.floor,
      'info', jsonb_build_object(
        'title', s.title,
        'status', s.status,
        'slow_mode_seconds', s.slow_mode_seconds,
        'chat_enabled', s.chat_enabled,
        'movie_id', s.movie_id,
        'streamer_id', s.streamer_id,
        'visibility', s.visibility
      ),
      'votings', coalesce((
        select jsonb_agg(
          jsonb_build_object(
            'voting', v.voting_id,
            'status', v.state,
            'version', v.version,
            'total', v.total,
            'counts', v.counts::jsonb,
            'closes_at', v.closes_at,
            'question', v.question,
            'results_visibility', v.results_visibility,
            'allow_change', v.allow_change,
            'options', usher.ballot_options(v.voting_id)
          )
          order by v.state = 'open' desc, v.closes_at desc nulls last, v.voting_id
        )
        from usher.voting_states(array(
          (
            select o.id
            from public.voting_sessions o
            where o.session_id = s.id and o.state = 'open'
          )
          union all
          (
            select c.id
            from public.voting_sessions c
            where c.session_id = s.id and c.state = 'closed'
            order by c.closes_at desc nulls last, c.id
            limit 5
          )
        )) v
      ), '[]')
    )
    from public.movie_sessions s
    join usher.session_heads h on h.session_id = s.id
    where s.id = session_snapshot.session
  );
end
$$;

-- Returns the events of a session after a number, in order.
-- Security definer: called by usher_gateway, which sends events only to admitted viewers.
create function usher.events_after(session uuid, after bigint, max_events integer, max_bytes integer)
returns table (seq bigint, event text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
    select p.seq, p.event
    from (
      select
        w.seq,
        w.event,
        row_number() over (order by w.seq) as n,
        sum(octet_length(w.event)) over (order by w.seq) as bytes
      from (
        select e.seq, usher.wire_event(e.seq, e.type, e.at, e.data) as event
        from usher.session_events e
        where e.session_id = events_after.session and e.seq > events_after.after
        order by e.seq
        limit greatest(events_after.max_events, 0)
      ) as w
    ) as p
    -- Consecutive from after + 1, or nothing. So a caller below the floor never gets events with a gap.
    where p.seq = events_after.after + p.n and (p.n = 1 or p.bytes <= events_after.max_bytes)
    order by p.seq;
end
$$;

-- Returns the newest number and the floor of each session's log.
-- Security definer: called by usher_gateway. It returns only numbers.
create function usher.heads(sessions uuid[]) returns table (session_id uuid, head bigint, floor bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
    select h.session_id, h.seq, h.floor
    from usher.session_heads h
    where h.session_id = any (heads.sessions);
end
$$;

-- Closes the polls whose closing time has passed, and returns their number. Skips polls that another transaction has
-- locked. The time is a constant, because Postgres cannot use an index for a comparison with a volatile function.
-- Security definer: called by usher_gateway. It can only close polls that are due.
create function usher.close_due_votings() returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  stamp constant timestamptz := clock_timestamp();
  due uuid[];
begin
  select array_agg(d.id)
  into due
  from (
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= stamp
    order by v.id
    for no key update skip locked
  ) as d;
  return usher.close_votings(due);
end
$$;

-- Returns the ids of the polls whose closing time has passed, the earliest first. If close_due_votings is blocked, the
-- gateway closes them one by one, so that one locked poll does not block the others.
-- Security definer: called by usher_gateway. It returns only ids.
create function usher.due_votings(max_count integer) returns setof uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  stamp constant timestamptz := clock_timestamp();
begin
  return query
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= stamp
    order by v.closes_at, v.id
    limit greatest(max_count, 0);
end
$$;

-- Closes a poll if its closing time has passed.
-- Security definer: called by usher_gateway. It can only close polls that are due.
create function usher.close_due_voting(voting uuid) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform 1
  from public.voting_sessions v
  where v.id = voting and v.state = 'open' and v.closes_at <= clock_timestamp()
  for no key update;
  return found and usher.close_votings(array[voting]) > 0;
end
$$;

-- Deletes at most `batch` of the oldest log rows: those beyond max_count in their session, and those older than
-- max_age. The newest row of each session stays. Returns the number of deleted rows; call it until that is less than
-- `batch`. It locks the head before it deletes rows of the log, because redaction holds the head as well.
-- Security definer: called only by trim_events.
create function usher.trim_logs(max_age interval, max_count integer, batch integer) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
    -- Times ascend with the numbers. So everything before the first row that is young enough can go.
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
    -- Takes the head first, like every writer of log rows. It skips a locked head until the next call, because it
    -- already holds other heads and must not keep them while it waits.
    perform 1 from usher.session_heads h where h.session_id = log.session_id for no key update skip locked;
    continue when not found;
    deleted := deleted + (trimmed_to - log.floor);
    update usher.session_heads h
    set floor = greatest(h.floor, trimmed_to)
    where h.session_id = log.session_id;
    delete from usher.session_events e
    where e.session_id = log.session_id and e.seq > log.floor and e.seq <= trimmed_to;
  end loop;
  return deleted;
end
$$;

-- Trims the logs, within fixed bounds: it keeps at least one hour and 100 events per session, and deletes at most
-- 100,000 rows per call. So even the gateway's role cannot empty a log.
-- Security definer: called by usher_gateway. It can delete only old history.
create function usher.trim_events(max_age interval, max_count integer, batch integer) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if max_age is null or max_age < interval '1 hour' then
    raise exception using errcode = 'invalid_parameter_value', message = 'max_age must be at least 1 hour';
  elsif max_count is null or max_count < 100 then
    raise exception using errcode = 'invalid_parameter_value', message = 'max_count must be at least 100';
  elsif batch is null or batch not between 0 and 100000 then
    raise exception using errcode = 'invalid_parameter_value', message = 'batch must be between 0 and 100000';
  end if;
  return usher.trim_logs(max_age, max_count, batch);
end
$$;

revoke execute on function
  usher.admit(uuid), usher.my_votes(uuid), usher.voting_states(uuid[]), usher.tallies(uuid[]),
  usher.session_snapshot(uuid), usher.events_after(uuid, bigint, integer, integer), usher.heads(uuid[]),
  usher.epoch(), usher.close_due_votings(), usher.due_votings(integer), usher.close_due_voting(uuid),
  usher.trim_logs(interval, integer, integer),
  usher.trim_events(interval, integer, integer)
  from public;

grant execute on function usher.admit(uuid), usher.my_votes(uuid) to anon, authenticated;
grant execute on function
  usher.tallies(uuid[]), usher.session_snapshot(uuid), usher.events_after(uuid, bigint, integer, integer),
  usher.heads(uuid[]), usher.epoch(), usher.close_due_votings(), usher.due_votings(integer),
  usher.close_due_voting(uuid), usher.trim_events(interval, integer, integer)
  to usher_gateway;
