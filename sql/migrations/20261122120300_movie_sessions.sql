-- Streaming sessions, their members and their bans.

create table public.movie_sessions (
  id uuid not null default gen_random_uuid(),
  streamer_id uuid not null default auth.uid(),
  title text not null,
  movie_id uuid,
  status text not null default 'scheduled',
  visibility text not null default 'public',
  slow_mode_seconds integer not null default 0,
  chat_enabled boolean not null default true,
  starts_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint movie_sessions_pkey primary key (id),
  constraint movie_sessions_streamer_id_fkey foreign key (streamer_id) references public.profiles (id) on delete cascade,
  constraint movie_sessions_movie_id_fkey foreign key (movie_id) references public.movies (id) on delete set null,
  constraint movie_sessions_title_check check (char_length(title) between 1 and 200),
  constraint movie_sessions_status_check check (status in ('scheduled', 'live', 'ended')),
  constraint movie_sessions_visibility_check check (visibility in ('public', 'members', 'private')),
  constraint movie_sessions_slow_mode_seconds_check check (slow_mode_seconds between 0 and 21600),
  constraint movie_sessions_ended_at_check check (ended_at >= started_at)
);

create table public.session_members (
  session_id uuid not null,
  user_id uuid not null,
  role text not null default 'viewer',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint session_members_pkey primary key (session_id, user_id),
  constraint session_members_session_id_fkey foreign key (session_id) references public.movie_sessions (id) on delete cascade,
  constraint session_members_user_id_fkey foreign key (user_id) references public.profiles (id) on delete cascade,
  constraint session_members_role_check check (role in ('viewer', 'moderator'))
);

create table public.session_bans (
  session_id uuid not null,
  user_id uuid not null,
  until timestamptz,
  reason text,
  banned_by uuid default auth.uid(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint session_bans_pkey primary key (session_id, user_id),
  constraint session_bans_session_id_fkey foreign key (session_id) references public.movie_sessions (id) on delete cascade,
  constraint session_bans_user_id_fkey foreign key (user_id) references public.profiles (id) on delete cascade,
  constraint session_bans_banned_by_fkey foreign key (banned_by) references public.profiles (id) on delete set null,
  constraint session_bans_reason_check check (char_length(reason) between 1 and 500)
);

alter table public.movie_sessions enable row level security;
alter table public.session_members enable row level security;
alter table public.session_bans enable row level security;

create index movie_sessions_streamer_id_idx on public.movie_sessions (streamer_id);
create index movie_sessions_movie_id_idx on public.movie_sessions (movie_id);
create index movie_sessions_status_idx on public.movie_sessions (status, starts_at);
create index session_members_user_id_idx on public.session_members (user_id, session_id);
create index session_bans_user_id_idx on public.session_bans (user_id, session_id);
create index session_bans_banned_by_idx on public.session_bans (banned_by);

comment on table public.movie_sessions is 'A streaming session. Everyone can read public and members sessions; only members can read private ones.';
comment on column public.movie_sessions.visibility is 'public: everyone reads and writes. members: everyone reads, members write. private: only members read and write.';
comment on column public.movie_sessions.slow_mode_seconds is 'Minimum seconds between two messages of one user; 0 turns slow mode off. Moderators are exempt.';
comment on table public.session_members is 'The members of each session, and its moderators.';
comment on table public.session_bans is 'Bans and time-outs. A row with an end is a time-out: the user reads but cannot write. Without an end, the user cannot read either.';
comment on column public.session_bans.until is 'The end of a time-out. Null is a permanent ban.';

-- Functions that the policies call. They answer for the caller only. They return sets, so that a policy calls each one
-- once per statement, not once per row.

-- Security definer (the next three): called by policies as authenticated. They return only ids of the caller's
-- sessions.
create function usher.joined_sessions() returns setof uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select m.session_id from public.session_members m where m.user_id = auth.uid();
end
$$;

create function usher.moderated_sessions() returns setof uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.id from public.movie_sessions s where s.streamer_id = auth.uid()
    union all
    select m.session_id from public.session_members m where m.user_id = auth.uid() and m.role = 'moderator';
end
$$;

create function usher.banned_sessions() returns setof uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select b.session_id
    from public.session_bans b
    join public.movie_sessions s on s.id = b.session_id
    where b.user_id = auth.uid() and b.until is null and s.streamer_id <> b.user_id;
end
$$;

-- Security definer: called by policies as authenticated. It returns whether the caller owns one session; an admin owns
-- all.
create function usher.owns_session(session uuid) returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select usher.is_admin()
      or exists (select 1 from public.movie_sessions s where s.id = owns_session.session and s.streamer_id = auth.uid())
  );
end
$$;

-- Returns whether the caller may ban or unban a user. The streamer of the session cannot be banned, and users cannot
-- ban themselves. Only the owner of the session or an admin may ban a moderator of the session or of the platform.
-- Security definer: called by policies as authenticated. It returns one boolean about a user in a session.
create function usher.outranks(session uuid, target uuid) returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select target <> auth.uid()
      and not exists (select 1 from public.movie_sessions s where s.id = outranks.session and s.streamer_id = target)
      and (
        usher.owns_session(outranks.session)
        or not (
          exists (select 1 from public.profiles p where p.id = target and p.role in ('moderator', 'admin'))
          or exists (
            select 1
            from public.session_members m
            where m.session_id = outranks.session and m.user_id = target and m.role = 'moderator'
          )
        )
      )
  );
end
$$;

-- Returns the caller's standing in one session. The write guards and the gateway's admission both decide by it. It
-- returns no row if the session does not exist or is hidden from the caller.
-- Security definer: called as anon and authenticated. It tells callers only about themselves.
create function usher.standing(
  session uuid,
  out ban_until timestamptz,
  out ended boolean,
  out moderator boolean,
  out writer boolean,
  out chat_enabled boolean,
  out slow_mode_seconds integer
)
returns setof record
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
rows 1
as $$
#variable_conflict use_column
declare
  caller uuid := auth.uid();
begin
  return query
  select
    -- 'infinity' is a permanent ban; null is no ban now.
    case when b.user_id is not null and s.streamer_id <> b.user_id then coalesce(b.until, 'infinity') end,
    s.status = 'ended',
    staff.moderates,
    -- Without a profile, the account was deleted: a token can outlive its account.
    p.id is not null and (s.visibility = 'public' or m.user_id is not null or staff.moderates),
    s.chat_enabled,
    s.slow_mode_seconds
  from public.movie_sessions s
  left join public.session_members m on m.session_id = s.id and m.user_id = caller
  left join public.session_bans b
    on b.session_id = s.id and b.user_id = caller and (b.until is null or b.until > now())
  left join public.profiles p on p.id = caller
  cross join lateral (
    select coalesce(s.streamer_id = caller or m.role = 'moderator' or p.role in ('moderator', 'admin'), false)
  ) as staff (moderates)
  where s.id = standing.session
    and (s.visibility <> 'private' or m.user_id is not null or staff.moderates);
end
$$;

-- Raises the matching error if the caller may not write in a session. Its messages are safe to show to users.
-- Security definer: called by the guards as authenticated. It reads only data about the caller.
create function usher.require_writer(session uuid) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller record;
begin
  select * into caller from usher.standing(require_writer.session);
  if not found then
    raise exception using errcode = 'US005', message = 'no such session';
  elsif caller.ban_until = 'infinity' then
    raise exception using errcode = 'US002', message = 'you are banned from this session';
  elsif caller.ban_until is not null then
    raise exception using errcode = 'US002', message = 'you are timed out in this session';
  elsif caller.ended then
    raise exception using errcode = 'US003', message = 'the session has ended';
  elsif not exists (select 1 from public.profiles p where p.id = auth.uid()) then
    raise exception using errcode = 'US004', message = 'this account was deleted';
  elsif not caller.writer then
    raise exception using errcode = 'US004', message = 'only members can write in this session';
  end if;
end
$$;

revoke execute on all functions in schema usher from public;
grant execute on function
  usher.joined_sessions(), usher.moderated_sessions(), usher.banned_sessions(), usher.owns_session(uuid),
  usher.outranks(uuid, uuid), usher.standing(uuid), usher.require_writer(uuid)
  to anon, authenticated, service_role;

-- Triggers --------------------------------------------------------------------------------------------------

create trigger movie_sessions_touch
  before update on public.movie_sessions
  for each row
  execute function usher.touch_updated_at();

create trigger session_members_touch
  before update on public.session_members
  for each row
  execute function usher.touch_updated_at();

create trigger session_bans_touch
  before update on public.session_bans
  for each row
  execute function usher.touch_updated_at();

-- Runs as the writer: row_security_active() then tells API users from table owners and service roles.
create function usher.guard_movie_session() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' then
    if new.id <> old.id then
      raise exception using errcode = 'US007', message = 'the id of a session cannot change';
    end if;
    if row_security_active(tg_relid) then
      if old.status = 'ended' and new.status <> 'ended' then
        raise exception using errcode = 'US003', message = 'an ended session cannot be reopened';
      end if;
      if old.status = 'live' and new.status = 'scheduled' then
        raise exception using errcode = 'US009', message = 'a live session cannot go back to scheduled; end it instead';
      end if;
      if not (old.streamer_id = auth.uid() or usher.is_admin())
        and (new.title, new.movie_id, new.status, new.visibility, new.starts_at)
          is distinct from (old.title, old.movie_id, old.status, old.visibility, old.starts_at)
      then
        raise exception using errcode = 'US004', message = 'moderators can change only slow mode and chat';
      end if;
    end if;
  end if;
  if new.status in ('live', 'ended') and new.started_at is null then
    new.started_at := now();
  end if;
  if new.status = 'ended' and new.ended_at is null then
    new.ended_at := greatest(now(), new.started_at);
  elsif new.status <> 'ended' then
    new.ended_at := null;
  end if;
  return new;
end
$$;

-- Runs as the writer. It sets banned_by to the caller, whatever the request says.
create function usher.guard_session_ban() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' and (new.session_id, new.user_id) <> (old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'a ban cannot move to another user or session';
  end if;
  if row_security_active(tg_relid) then
    new.banned_by := auth.uid();
  end if;
  return new;
end
$$;

revoke execute on function usher.guard_movie_session(), usher.guard_session_ban() from public;

create trigger movie_sessions_guard
  before insert or update on public.movie_sessions
  for each row
  execute function usher.guard_movie_session();

create trigger movie_sessions_lines
  before insert or update of title on public.movie_sessions
  for each row
  execute function usher.guard_lines('title');

create trigger session_bans_lines
  before insert or update of reason on public.session_bans
  for each row
  execute function usher.guard_lines('reason');

create trigger session_bans_guard
  before insert or update on public.session_bans
  for each row
  execute function usher.guard_session_ban();

-- Policies: movie_sessions ----------------------------------------------------------------------------------

create policy movie_sessions_select_anon on public.movie_sessions
  for select
  to anon
  using (visibility <> 'private');

create policy movie_sessions_select on public.movie_sessions
  for select
  to authenticated
  using (
    visibility <> 'private'
    or streamer_id = (select auth.uid())
    or id = any (array(select usher.joined_sessions()))
    or (select usher.is_staff())
  );

create policy movie_sessions_insert on public.movie_sessions
  for insert
  to authenticated
  with check (streamer_id = (select auth.uid()) and (select usher.is_streamer()));

create policy movie_sessions_update on public.movie_sessions
  for update
  to authenticated
  using (
    streamer_id = (select auth.uid())
    or id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  )
  with check (
    streamer_id = (select auth.uid())
    or id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

create policy movie_sessions_delete on public.movie_sessions
  for delete
  to authenticated
  using (streamer_id = (select auth.uid()) or (select usher.is_admin()));

revoke all on public.movie_sessions from public, anon, authenticated;
grant select on public.movie_sessions to anon, authenticated;
grant insert (streamer_id, title, movie_id, status, visibility, slow_mode_seconds, chat_enabled, starts_at)
  on public.movie_sessions to authenticated;
grant update (title, movie_id, status, visibility, slow_mode_seconds, chat_enabled, starts_at)
  on public.movie_sessions to authenticated;
grant delete on public.movie_sessions to authenticated;
grant all on public.movie_sessions to service_role;

-- Policies: session_members ---------------------------------------------------------------------------------

create policy session_members_select on public.session_members
  for select
  to authenticated
  using (
    user_id = (select auth.uid())
    or session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

-- Moderators add viewers. Only the owner of the session or an admin appoints moderators.
create policy session_members_insert on public.session_members
  for insert
  to authenticated
  with check (
    (
      role = 'viewer'
      and (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    )
    or usher.owns_session(session_id)
  );

create policy session_members_update on public.session_members
  for update
  to authenticated
  using (usher.owns_session(session_id))
  with check (usher.owns_session(session_id));

-- Members may leave. Moderators remove viewers.
create policy session_members_delete on public.session_members
  for delete
  to authenticated
  using (
    user_id = (select auth.uid())
    or (
      role = 'viewer'
      and (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    )
    or usher.owns_session(session_id)
  );

revoke all on public.session_members from public, anon, authenticated;
grant select, delete on public.session_members to authenticated;
grant insert (session_id, user_id, role) on public.session_members to authenticated;
grant update (role) on public.session_members to authenticated;
grant all on public.session_members to service_role;

-- Policies: session_bans ------------------------------------------------------------------------------------

create policy session_bans_select on public.session_bans
  for select
  to authenticated
  using (
    user_id = (select auth.uid())
    or session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

create policy session_bans_insert on public.session_bans
  for insert
  to authenticated
  with check (
    banned_by = (select auth.uid())
    and (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    and usher.outranks(session_id, user_id)
  );

create policy session_bans_update on public.session_bans
  for update
  to authenticated
  using (
    (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    and usher.outranks(session_id, user_id)
  )
  with check (
    banned_by = (select auth.uid())
    and (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    and usher.outranks(session_id, user_id)
  );

create policy session_bans_delete on public.session_bans
  for delete
  to authenticated
  using (
    (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
    and usher.outranks(session_id, user_id)
  );

revoke all on public.session_bans from public, anon, authenticated;
grant select, delete on public.session_bans to authenticated;
grant insert (session_id, user_id, until, reason, banned_by) on public.session_bans to authenticated;
-- The key columns too, because an upsert over REST sets every column that it inserts. The guard keeps them unchanged.
grant update (session_id, user_id, until, reason, banned_by) on public.session_bans to authenticated;
grant all on public.session_bans to service_role;
