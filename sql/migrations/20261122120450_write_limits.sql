-- Limits for writers that bypass the gateway, through the Data API or with direct SQL. usher.require_chatter counts new
-- messages. Triggers count all other writes; a later migration creates them, once all tables exist.
--
-- The gateway limits its clients itself, before anything reaches the database. For its sessions, each statement only
-- compares session_user. Every other role that row level security restricts has two limits per session and kind of
-- write: rows per statement, and rows per sliding window. Row level security does not restrict table owners,
-- service_role and cascades (such as the erasure of an account), so they have no limit.

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

-- Two buckets approximate the sliding window: the previous bucket counts in proportion to the part of it that the
-- window still covers. Unlogged: after a crash, every author starts with an empty window.
create unlogged table usher.write_counts (
  author uuid not null,
  session_id uuid not null,
  kind text not null,
  bucket_start timestamptz not null,
  current integer not null,
  previous integer not null,
  -- Only for messages, which are counted one by one: the time of the request, and the rows that it has written so far.
  request_at timestamptz,
  request_rows integer,
  constraint write_counts_pkey primary key (author, session_id, kind),
  constraint write_counts_author_fkey foreign key (author) references public.profiles (id) on delete cascade
)
-- Each statement of an author updates the author's row. Free space on each page lets Postgres skip the index for it
-- (HOT).
with (fillfactor = 50);

create index write_counts_bucket_start_idx on usher.write_counts (bucket_start);

alter table usher.write_limits enable row level security;
alter table usher.write_counts enable row level security;

revoke all on usher.write_limits, usher.write_counts from public, anon, authenticated, service_role;

comment on table usher.write_limits is 'Limits per kind of write, for writers that bypass the gateway. Change the values with SQL. A kind without a row has no limit.';
comment on table usher.write_counts is 'Recent writes of these writers, by author, session and kind.';

-- Moderators clear whole chats, so they may change and delete more.
insert into usher.write_limits
  (kind, window_seconds, rows_per_statement, rows_per_window, moderator_rows_per_statement, moderator_rows_per_window)
values
  ('messages', 60, 20, 60, 100, 300),
  ('message_changes', 60, 100, 300, 2000, 10000),
  ('votes', 60, 20, 60, 20, 60),
  ('moderation', 60, 50, 150, 200, 600);

-- Returns the most rows that the caller may write with one statement in any session.
-- Security definer: called by the triggers below as the user who writes. It returns only a limit.
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

-- Raises US010 if a statement writes more rows than its limit.
-- Called by triggers and by require_chatter.
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
      message = format('a request can write at most %s rows of this kind', rows_max),
      detail = 'rows_max=' || rows_max;
  end if;
end
$$;

-- Counts rows of the caller in a session, and raises US010 above a limit of their kind. A caller whose claims name no
-- user has no window, but still has the limit per statement. With `is_row`, the request counts its rows one by one, in
-- a session that exists. Returns true, so that a hot path can call it in an expression: `perform` runs a query, which
-- costs more.
-- Called only by require_chatter and limit_writes, which run as the owner.
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
  -- Counts only in sessions that exist, so that a caller cannot fill the table with random ids. The nil uuid means all
  -- of them.
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
    -- The part of this bucket that has passed. The previous bucket counts for the rest of the window.
    part := extract(epoch from clock_timestamp() - this_bucket) / bound.window_seconds;
    if at_once > least(rows_max, window_max) then
      raise exception using
        errcode = 'US010',
        message = format('a request can write at most %s rows of this kind in a session', least(rows_max, window_max)),
        detail = 'rows_max=' || least(rows_max, window_max);
    elsif current + previous * (1 - part) > window_max then
      -- The time until enough rows of the previous bucket have left the window, or else of this bucket.
      wait_ms := ceil(1000 * bound.window_seconds * case
        when current <= window_max then 1 - part - (window_max - current)::numeric / previous
        else 2 - part - (window_max - at_once)::numeric / (current - at_once)
      end);
      raise exception using
        errcode = 'US010',
        message = format('too many writes; wait %s s', ceil(wait_ms / 1000.0)),
        detail = 'retry_after_ms=' || wait_ms;
    end if;
  end if;

  -- One new row in ten also deletes up to 100 rows that are too old to count.
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

-- Returns the number of messages that the request has written in all sessions, including this one. It counts in a
-- setting that the caller can change. If a caller does, count_writes still refuses the rows in each session.
-- Called only by require_chatter, which runs as the owner.
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
-- Called as the user who writes.
grant execute on function usher.rows_allowed(text), usher.refuse_rows_above(text, integer) to authenticated;
