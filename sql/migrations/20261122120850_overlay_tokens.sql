-- Overlay tokens. With one, an overlay (such as a browser source in OBS) can watch one session for months, and nothing
-- else.
--
-- The token is a JWT of the role anon. The holder of the project's secret, an Edge Function, signs it:
-- {"role":"anon","sub":<id of a row here>,"usher_overlay":<session>,"exp":…}. Revoking the row revokes the token.

create table public.overlay_tokens (
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  label text not null,
  created_by uuid,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  constraint overlay_tokens_pkey primary key (id),
  constraint overlay_tokens_session_id_fkey foreign key (session_id)
    references public.movie_sessions (id) on delete cascade,
  constraint overlay_tokens_created_by_fkey foreign key (created_by) references public.profiles (id) on delete set null,
  constraint overlay_tokens_label_check check (char_length(label) between 1 and 64),
  constraint overlay_tokens_expires_at_check check (expires_at > created_at)
);

alter table public.overlay_tokens enable row level security;

create index overlay_tokens_session_id_idx on public.overlay_tokens (session_id);
create index overlay_tokens_created_by_idx on public.overlay_tokens (created_by);

comment on table public.overlay_tokens is 'The overlay tokens that were issued. The table does not store the tokens themselves.';
comment on column public.overlay_tokens.revoked_at is 'Set it to any time to revoke the token. The database replaces it with the current time, and live overlays stop within a second.';

create policy overlay_tokens_select on public.overlay_tokens
  for select
  to authenticated
  using (
    session_id in (select s.id from public.movie_sessions s where s.streamer_id = (select auth.uid()))
    or (select usher.is_admin())
  );

create policy overlay_tokens_update on public.overlay_tokens
  for update
  to authenticated
  using (
    session_id in (select s.id from public.movie_sessions s where s.streamer_id = (select auth.uid()))
    or (select usher.is_admin())
  )
  with check (
    session_id in (select s.id from public.movie_sessions s where s.streamer_id = (select auth.uid()))
    or (select usher.is_admin())
  );

revoke all on public.overlay_tokens from public, anon, authenticated;
grant select on public.overlay_tokens to authenticated;
grant update (revoked_at) on public.overlay_tokens to authenticated;
grant all on public.overlay_tokens to service_role;

-- Records a token before it is signed. Not security definer: only service_role may call it, and row level security does
-- not restrict that role. The function itself checks whether the issuer may issue tokens.
create function public.issue_overlay_token(session uuid, issuer uuid, label text default 'OBS', days integer default 90)
returns public.overlay_tokens
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  live_tokens_max constant integer := 20;
  days_max constant integer := 400;
  issued public.overlay_tokens;
begin
  if days is null or days not between 1 and days_max then
    raise exception using errcode = 'US007', message = format('days must be between 1 and %s', days_max), detail = 'days';
  elsif issue_overlay_token.label is null or char_length(issue_overlay_token.label) not between 1 and 64 then
    raise exception using errcode = 'US007', message = 'label must have 1 to 64 characters', detail = 'label';
  end if;
  -- Issues one token at a time per session, so that the count below stays correct.
  perform pg_advisory_xact_lock(hashtextextended('usher.overlay:' || session, 0));
  perform 1
  from public.movie_sessions s
  left join public.profiles p on p.id = issuer
  where s.id = session and (s.streamer_id = issuer or p.role = 'admin');
  if not found then
    -- The same error if the session does not exist, so that strangers cannot probe for sessions.
    raise exception using errcode = 'US004', message = 'only the streamer of a session can issue its overlay tokens';
  end if;
  if live_tokens_max <= (
    select count(*)
    from public.overlay_tokens t
    where t.session_id = session and t.revoked_at is null and t.expires_at > now()
  ) then
    raise exception using
      errcode = 'US009', message = format('a session has at most %s overlay tokens: revoke one', live_tokens_max);
  end if;
  insert into public.overlay_tokens (session_id, label, created_by, expires_at)
  values (session, issue_overlay_token.label, issuer, now() + make_interval(days => days))
  returning * into issued;
  return issued;
end
$$;

comment on function public.issue_overlay_token(uuid, uuid, text, integer) is 'Records an overlay token if the issuer owns the session. For the Edge Function that signs the tokens.';

revoke execute on function public.issue_overlay_token(uuid, uuid, text, integer) from public, anon, authenticated;
grant execute on function public.issue_overlay_token(uuid, uuid, text, integer) to service_role;

-- Runs as the writer. Users cannot undo a revocation, and revoked_at is the database's time.
create function usher.guard_overlay_token() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (new.id, new.session_id) <> (old.id, old.session_id) then
    raise exception using errcode = 'US007', message = 'the id and session of an overlay token cannot change';
  end if;
  if row_security_active(tg_relid) then
    if new.revoked_at is null and old.revoked_at is not null then
      raise exception using errcode = 'US009', message = 'a revoked token cannot be restored';
    end if;
    new.revoked_at := coalesce(old.revoked_at, case when new.revoked_at is not null then now() end);
  end if;
  return new;
end
$$;

-- Security definer: runs as a trigger for any writer of overlay_tokens; writers cannot send access notices.
create function usher.on_overlay_tokens_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.id))
  from changed_rows c
  having count(*) > 0;
  return null;
end
$$;

-- Returns whether the caller has a valid overlay token for this session.
-- Security definer: called as anon. It tells callers only about themselves.
create function usher.is_overlay(session uuid) returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select 1
    from public.overlay_tokens t
    where t.id = auth.uid()
      and t.session_id = is_overlay.session
      and t.revoked_at is null
      and t.expires_at > clock_timestamp()
  );
end
$$;

revoke execute on function usher.guard_overlay_token(), usher.on_overlay_tokens_changed(), usher.is_overlay(uuid)
  from public;
grant execute on function usher.is_overlay(uuid) to anon, authenticated, service_role;

create trigger overlay_tokens_guard
  before update on public.overlay_tokens
  for each row
  execute function usher.guard_overlay_token();

create trigger overlay_tokens_lines
  before insert or update of label on public.overlay_tokens
  for each row
  execute function usher.guard_lines('label');

create trigger overlay_tokens_logged_updated
  after update on public.overlay_tokens
  referencing new table as changed_rows
  for each statement
  execute function usher.on_overlay_tokens_changed();

create trigger overlay_tokens_logged_deleted
  after delete on public.overlay_tokens
  referencing old table as changed_rows
  for each statement
  execute function usher.on_overlay_tokens_changed();

create trigger overlay_tokens_truncated
  before truncate on public.overlay_tokens
  for each statement
  execute function usher.refuse_truncate();
