-- Limits for writers that do not come through the gateway: over the Data API, or with SQL of their own.
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

-- Counts rows of the caller against the limits of a kind, and refuses them by name. Claims that name nobody have no window,
-- and the limit of a statement all the same.
-- Security definer: called by the triggers below as whoever writes; a caller can only use up their own window.
create function usher.count_writes(kind text, sessions uuid[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
  author constant uuid := auth.uid();
  bound usher.write_limits;
  size interval;
  this_bucket timestamptz;
  part numeric;
  written record;
  counted usher.write_counts;
  rows_max integer;
  window_max integer;
  wait_ms bigint;
begin
  select * into bound from usher.write_limits l where l.kind = count_writes.kind;
  if not found then
    return;
  end if;
  size := make_interval(secs => bound.window_seconds);
  this_bucket := date_bin(size, clock_timestamp(), 'epoch');
  part := extract(epoch from clock_timestamp() - this_bucket) / bound.window_seconds;

  for written in
    select s.session_id, count(*)::integer as count
    from unnest(sessions) as s (session_id)
    -- Only sessions that exist, so that nobody fills the table with ids. The nil uuid stands for all of them.
    where s.session_id = '00000000-0000-0000-0000-000000000000'
      or exists (select 1 from public.movie_sessions m where m.id = s.session_id)
    group by s.session_id
    order by s.session_id
  loop
    if author is null then
      counted.current := written.count;
      counted.previous := 0;
    else
      insert into usher.write_counts as c (author, session_id, kind, bucket_start, current, previous)
      values (author, written.session_id, count_writes.kind, this_bucket, written.count, 0)
      on conflict on constraint write_counts_pkey
      do update set
        bucket_start = this_bucket,
        current = case c.bucket_start when this_bucket then c.current else 0 end + written.count,
        previous = case c.bucket_start when this_bucket then c.previous when this_bucket - size then c.current else 0 end
      returning c.* into counted;
    end if;

    rows_max := bound.rows_per_statement;
    window_max := bound.rows_per_window;
    if written.count <= rows_max and counted.current + counted.previous * (1 - part) <= window_max then
      continue;
    end if;
    if coalesce((select s.moderator from usher.standing(written.session_id) s), usher.is_streamer()) then
      rows_max := bound.moderator_rows_per_statement;
      window_max := bound.moderator_rows_per_window;
    end if;
    if written.count > least(rows_max, window_max) then
      raise exception using
        errcode = 'US010',
        message = format('a request writes at most %s rows of this kind in a session', least(rows_max, window_max)),
        detail = 'rows_max=' || least(rows_max, window_max);
    elsif counted.current + counted.previous * (1 - part) > window_max then
      -- Until enough of the last bucket has left the window, or else of this one.
      wait_ms := ceil(1000 * bound.window_seconds * case
        when counted.current <= window_max
          then 1 - part - (window_max - counted.current)::numeric / counted.previous
        else 2 - part - (window_max - written.count)::numeric / (counted.current - written.count)
      end);
      raise exception using
        errcode = 'US010',
        message = format('too many writes: wait %s s', ceil(wait_ms / 1000.0)),
        detail = 'retry_after_ms=' || wait_ms;
    end if;
  end loop;

  -- A new row takes some away that say nothing any more.
  if counted.current = written.count and counted.previous = 0 then
    delete from usher.write_counts c
    where c.ctid = any (array(
      select d.ctid
      from usher.write_counts d
      where d.bucket_start < this_bucket - interval '2 hours'
      order by d.bucket_start
      limit 10
      for update skip locked
    ));
  end if;
end
$$;

-- How many rows the caller may touch with one statement, at most, in whatever session.
-- Security definer: called by the trigger below as whoever writes; tells a limit.
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

-- Counts down while a statement runs, so that one of 20,000 rows ends at its first row too many, and not after all of
-- them. A setting that the caller may write: what it lets pass, the count at the end of the statement refuses.
create function usher.begin_countdown() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active(tg_relid) then
    perform set_config('usher.rows_left', coalesce(usher.rows_allowed(tg_argv[0])::text, ''), true);
  else
    perform set_config('usher.rows_left', '', true);
  end if;
  return null;
end
$$;

create function usher.count_down() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  rows_left constant integer := current_setting('usher.rows_left')::integer;
begin
  if rows_left <= 0 then
    raise exception using
      errcode = 'US010',
      message = format('a request writes at most %s rows of this kind', usher.rows_allowed(tg_argv[0])),
      detail = 'rows_max=' || usher.rows_allowed(tg_argv[0]);
  end if;
  perform set_config('usher.rows_left', (rows_left - 1)::text, true);
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;

-- Runs as the writer, so that row_security_active() tells users from owners and service roles. The arguments: the kind, and
-- the column that leads to the session, or none where the limit holds for all sessions together.
create function usher.limit_writes() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sessions uuid[];
begin
  if not row_security_active(tg_relid) then
    return null;
  end if;
  sessions := case tg_argv[1]
    when '' then array(select '00000000-0000-0000-0000-000000000000'::uuid from changed_rows)
    when 'voting_session_id' then array(
      select usher.session_of((to_jsonb(c) ->> 'voting_session_id')::uuid) from changed_rows c
    )
    else array(select (to_jsonb(c) ->> tg_argv[1])::uuid from changed_rows c)
  end;
  perform usher.count_writes(tg_argv[0], sessions);
  return null;
end
$$;

revoke execute on function
  usher.count_writes(text, uuid[]), usher.rows_allowed(text), usher.begin_countdown(), usher.count_down(),
  usher.limit_writes()
  from public;
grant execute on function usher.count_writes(text, uuid[]), usher.rows_allowed(text) to authenticated;

-- The triggers ---------------------------------------------------------------------------------------------------
--
-- Their names put them before those that append to the log: what is refused is not appended first. The condition spares
-- the gateway the calls; nobody can forge who has logged in.

create trigger chat_messages_begin_created
  before insert on public.chat_messages
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.begin_countdown('messages');

create trigger chat_messages_a_row_created
  before insert on public.chat_messages
  for each row
  when (coalesce(current_setting('usher.rows_left', true), '') <> '' and session_user <> 'usher_gateway')
  execute function usher.count_down('messages');

create trigger chat_messages_begin_updated
  before update on public.chat_messages
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.begin_countdown('message_changes');

create trigger chat_messages_a_row_updated
  before update on public.chat_messages
  for each row
  when (coalesce(current_setting('usher.rows_left', true), '') <> '' and session_user <> 'usher_gateway')
  execute function usher.count_down('message_changes');

create trigger chat_messages_begin_removed
  before delete on public.chat_messages
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.begin_countdown('message_changes');

create trigger chat_messages_a_row_removed
  before delete on public.chat_messages
  for each row
  when (coalesce(current_setting('usher.rows_left', true), '') <> '' and session_user <> 'usher_gateway')
  execute function usher.count_down('message_changes');

create trigger chat_messages_bounded_created
  after insert on public.chat_messages
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('messages', 'session_id');

create trigger chat_messages_bounded_updated
  after update on public.chat_messages
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('message_changes', 'session_id');

create trigger chat_messages_bounded_removed
  after delete on public.chat_messages
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('message_changes', 'session_id');

create trigger votes_bounded_created
  after insert on public.votes
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger votes_bounded_updated
  after update on public.votes
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger votes_bounded_removed
  after delete on public.votes
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger voting_sessions_bounded_created
  after insert on public.voting_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_sessions_bounded_updated
  after update on public.voting_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_sessions_bounded_removed
  after delete on public.voting_sessions
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_options_bounded_created
  after insert on public.voting_options
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger voting_options_bounded_updated
  after update on public.voting_options
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger voting_options_bounded_removed
  after delete on public.voting_options
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger session_bans_bounded_created
  after insert on public.session_bans
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_bans_bounded_updated
  after update on public.session_bans
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_bans_bounded_removed
  after delete on public.session_bans
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_created
  after insert on public.session_members
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_updated
  after update on public.session_members
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_removed
  after delete on public.session_members
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger overlay_tokens_bounded_updated
  after update on public.overlay_tokens
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'session_id');

create trigger movie_sessions_bounded_created
  after insert on public.movie_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', '');

create trigger movie_sessions_bounded_updated
  after update on public.movie_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', 'id');

create trigger movie_sessions_bounded_removed
  after delete on public.movie_sessions
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway')
  execute function usher.limit_writes('moderation', '');
