-- Limits for writers that do not come through the gateway: over the Data API, or with SQL of their own. New messages are
-- counted by usher.require_chatter, everything else by triggers, which come when all tables are there.
--
-- The gateway limits its clients itself, before anything reaches the database: its sessions pay a look at session_user for
-- each statement and nothing else. Everybody else whom row level security binds may write so many rows with a statement,
-- and so many within a sliding window, for each session and kind of write. Table owners, service_role and cascades, such
-- as the erasure of an account, are not bound by row level security and have no limit.

create table usher.write_limits (
  kind text not null,
  window_seconds integer not null,
  rows_per_statement integer not null,
  rows_per_window integer not null,
  moderator_rows_per_statement integer not null,
  moderator_rows_per_window integer not null,
  constraint write_limits_pkey primary key (kind),
  constraint write_limits_window_seconds_check check (window_seconds between 1 and 3600)
);

-- Two buckets make the window: the one before counts by the part of it that the window still covers. Unlogged: after a crash
-- everybody starts with an empty window.
create unlogged table usher.write_counts (
  author uuid not null,
  session_id uuid not null,
  kind text not null,
  bucket_start timestamptz not null,
  current integer not null,
  previous integer not null,
  -- Of messages, which are counted one by one: how many the request of this time has written.
  request_at timestamptz,
  request_rows integer,
  constraint write_counts_pkey primary key (author, session_id, kind),
  constraint write_counts_author_fkey foreign key (author) references public.profiles (id) on delete cascade
)
-- A row is rewritten by every statement of its author: room on the page keeps those updates off the index.
with (fillfactor = 50);

create index write_counts_bucket_start_idx on usher.write_counts (bucket_start);

alter table usher.write_limits enable row level security;
alter table usher.write_counts enable row level security;

revoke all on usher.write_limits, usher.write_counts from public, anon, authenticated, service_role;

comment on table usher.write_limits is 'What writers may write who do not come through the gateway, by kind. Change the values with SQL; a kind without a row has no limit.';
comment on table usher.write_counts is 'What they wrote lately, by author, session and kind.';

-- Moderators purge chats: they may change and delete more.
insert into usher.write_limits
  (kind, window_seconds, rows_per_statement, rows_per_window, moderator_rows_per_statement, moderator_rows_per_window)
values
  ('messages', 60, 20, 60, 100, 300),
  ('message_changes', 60, 100, 300, 2000, 10000),
  ('votes', 60, 20, 60, 20, 60),
  ('moderation', 60, 50, 150, 200, 600);

-- How many rows the caller may touch with one statement, at most, in whatever session.
-- Security definer: called by the triggers below, also as whoever writes; tells a limit.
create function usher.rows_allowed(kind text) returns integer
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when usher.is_staff() or exists (select 1 from usher.moderated_sessions())
        then greatest(l.rows_per_statement, l.moderator_rows_per_statement)
      else l.rows_per_statement
    end
    from usher.write_limits l
    where l.kind = rows_allowed.kind
  );
end
$$;

-- Refuses a statement of too many rows by name, if there is a limit.
-- Called by triggers and by require_chatter; nobody else needs to.
create function usher.refuse_rows_above(kind text, count integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  rows_max constant integer := usher.rows_allowed(kind);
begin
  if count > rows_max then
    raise exception using
      errcode = 'US010',
      message = format('a request writes at most %s rows of this kind', rows_max),
      detail = 'rows_max=' || rows_max;
  end if;
end
$$;

-- Counts rows of the caller in a session against the limits of a kind, and refuses them by name. Claims that name nobody
-- have no window, and the limit of a statement all the same. `is_row`: a request counts its rows one by one, in a session
-- that exists. Returns true, so that a hot path can call it in an expression: `perform` runs a query, which costs more.
-- Called by require_chatter and limit_writes, which run as the owner; nobody else may.
create function usher.count_writes(kind text, session uuid, rows integer, is_row boolean) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
  author constant uuid := auth.uid();
  request constant timestamptz := statement_timestamp();
  bound usher.write_limits;
  size interval;
  this_bucket timestamptz;
  part numeric;
  current integer := rows;
  previous integer := 0;
  at_once integer := rows;
  rows_max integer;
  window_max integer;
  wait_ms bigint;
begin
  select * into bound from usher.write_limits l where l.kind = kind;
  if not found then
    return true;
  end if;
  -- Only sessions that exist, so that nobody fills the table with ids. The nil uuid stands for all of them.
  if not is_row and session is distinct from '00000000-0000-0000-0000-000000000000' then
    perform 1 from public.movie_sessions m where m.id = session;
    if not found then
      return true;
    end if;
  end if;
  size := make_interval(secs => bound.window_seconds);
  this_bucket := date_bin(size, clock_timestamp(), 'epoch');

  if author is not null then
    insert into usher.write_counts as c
      (author, session_id, kind, bucket_start, current, previous, request_at, request_rows)
    values (author, session, kind, this_bucket, rows, 0, request, rows)
    on conflict on constraint write_counts_pkey
    do update set
      bucket_start = this_bucket,
      current = case c.bucket_start when this_bucket then c.current else 0 end + rows,
      previous = case c.bucket_start when this_bucket then c.previous when this_bucket - size then c.current else 0 end,
      request_at = request,
      request_rows = case c.request_at when request then c.request_rows else 0 end + rows
    returning c.current, c.previous, case when is_row then c.request_rows else rows end
    into current, previous, at_once;
  end if;

  if at_once > bound.rows_per_statement or current + previous > bound.rows_per_window then
    rows_max := bound.rows_per_statement;
    window_max := bound.rows_per_window;
    if coalesce((select s.moderator from usher.standing(session) s), usher.is_streamer()) then
      rows_max := bound.moderator_rows_per_statement;
      window_max := bound.moderator_rows_per_window;
    end if;
    -- How much of this bucket has passed: so much less of the one before counts.
    part := extract(epoch from clock_timestamp() - this_bucket) / bound.window_seconds;
    if at_once > least(rows_max, window_max) then
      raise exception using
        errcode = 'US010',
        message = format('a request writes at most %s rows of this kind in a session', least(rows_max, window_max)),
        detail = 'rows_max=' || least(rows_max, window_max);
    elsif current + previous * (1 - part) > window_max then
      -- Until enough of the last bucket has left the window, or else of this one.
      wait_ms := ceil(1000 * bound.window_seconds * case
        when current <= window_max then 1 - part - (window_max - current)::numeric / previous
        else 2 - part - (window_max - at_once)::numeric / (current - at_once)
      end);
      raise exception using
        errcode = 'US010',
        message = format('too many writes: wait %s s', ceil(wait_ms / 1000.0)),
        detail = 'retry_after_ms=' || wait_ms;
    end if;
  end if;

  -- One new row in ten takes some away that say nothing any more.
  if current = rows and previous = 0 and random() < 0.1 then
    delete from usher.write_counts c
    where c.ctid = any (array(
      select d.ctid
      from usher.write_counts d
      where d.bucket_start < this_bucket - interval '2 hours'
      order by d.bucket_start
      limit 100
      for update skip locked
    ));
  end if;
  return true;
end
$$;

-- Says how many messages a request has written, in all sessions, with this one. It counts in a setting, which the caller may
-- write too: what that lets pass, count_writes refuses in each session.
-- Called by require_chatter, which runs as the owner.
create function usher.messages_of_request() returns integer
language sql
return split_part(
  set_config(
    'usher.messages_written',
    statement_timestamp() || ' ' || 1 + case
      when current_setting('usher.messages_written', true) like statement_timestamp() || ' %'
        then split_part(current_setting('usher.messages_written', true), ' ', 3)::integer
      else 0
    end,
    true
  ),
  ' ', 3
)::integer;

revoke execute on function
  usher.rows_allowed(text), usher.refuse_rows_above(text, integer),
  usher.count_writes(text, uuid, integer, boolean), usher.messages_of_request()
  from public;
-- Called as whoever writes.
grant execute on function usher.rows_allowed(text), usher.refuse_rows_above(text, integer) to authenticated;
