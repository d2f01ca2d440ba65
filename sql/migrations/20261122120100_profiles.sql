-- Profiles: what users see of each other. A trigger creates one for each account.

create table public.profiles (
  id uuid not null,
  username text not null,
  display_name text not null,
  avatar_path text,
  role text not null default 'viewer',
  preferences jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint profiles_pkey primary key (id),
  constraint profiles_id_fkey foreign key (id) references auth.users (id) on delete cascade,
  constraint profiles_username_key unique (username),
  constraint profiles_username_check check (username ~ '^[a-z0-9_]{3,32}$'),
  constraint profiles_display_name_check check (char_length(display_name) between 1 and 64),
  constraint profiles_avatar_path_check check (char_length(avatar_path) between 1 and 512),
  constraint profiles_role_check check (role in ('viewer', 'streamer', 'moderator', 'admin')),
  constraint profiles_preferences_check check (
    jsonb_typeof(preferences) = 'object' and octet_length(preferences::text) <= 16384
  )
);

alter table public.profiles enable row level security;

comment on table public.profiles is 'The public profile of each user, one row per account.';
comment on column public.profiles.role is 'The user''s role on the whole platform. Only service_role and direct SQL can change it.';
comment on column public.profiles.preferences is 'The user''s own settings. Read them through my_profile(); other users cannot read them.';
comment on column public.profiles.avatar_path is 'Path of the picture in the bucket avatars.';

-- Functions that the policies call. They answer for the caller only. They are PL/pgSQL because it keeps its plans:
-- Postgres would parse and plan a function in SQL again for every statement that a policy guards.

-- Security definer: called by policies as anon and authenticated. It returns only the caller's own role.
create function usher.profile_role() returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select p.role from public.profiles p where p.id = auth.uid());
end
$$;

create function usher.is_staff() returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(usher.profile_role() in ('moderator', 'admin'), false);
end
$$;

create function usher.is_admin() returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(usher.profile_role() = 'admin', false);
end
$$;

create function usher.is_streamer() returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(usher.profile_role() in ('streamer', 'admin'), false);
end
$$;

revoke execute on all functions in schema usher from public;
grant execute on function usher.profile_role(), usher.is_staff(), usher.is_admin(), usher.is_streamer()
  to anon, authenticated, service_role;

create policy profiles_select on public.profiles
  for select
  to anon, authenticated
  using (true);

create policy profiles_update on public.profiles
  for update
  to authenticated
  using (id = (select auth.uid()))
  with check (id = (select auth.uid()));

-- Grants by column, because users must not read each other's preferences and must not change their own role.
revoke all on public.profiles from public, anon, authenticated;
grant select (id, username, display_name, avatar_path, role, created_at, updated_at)
  on public.profiles to anon, authenticated;
grant update (username, display_name, avatar_path, preferences) on public.profiles to authenticated;
grant all on public.profiles to service_role;

-- Security definer: called by authenticated. It returns only the caller's own row.
create function public.my_profile() returns setof public.profiles
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
rows 1
as $$
  select p.* from public.profiles p where p.id = (select auth.uid())
$$;

comment on function public.my_profile() is 'The caller''s own profile with its preferences, which no other user can read.';

revoke execute on function public.my_profile() from public, anon;
grant execute on function public.my_profile() to authenticated, service_role;

create function usher.touch_updated_at() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.updated_at := now();
  return new;
end
$$;

create trigger profiles_touch
  before update on public.profiles
  for each row
  execute function usher.touch_updated_at();

create trigger profiles_lines
  before insert or update of display_name on public.profiles
  for each row
  execute function usher.guard_lines('display_name');

-- Everyone can read display names, so an e-mail address in one would be public.
create function usher.guard_display_name() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if usher.holds_address(new.display_name) and (tg_op = 'INSERT' or new.display_name <> old.display_name) then
    raise exception using
      errcode = 'US007', message = 'display_name must not contain an e-mail address', detail = 'display_name';
  end if;
  return new;
end
$$;

create trigger profiles_guard
  before insert or update of display_name on public.profiles
  for each row
  execute function usher.guard_display_name();

-- Creates the profile of one account. Users write their own metadata, so it may set the names but never the role.
--
-- The names come from the fields that sign-up forms and identity providers fill; the first allowed one wins. A name
-- must never make a sign-up fail, and an e-mail address must never become a name.
create function usher.create_profile(account uuid, metadata jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wish text := (
    select lower(metadata ->> w.field)
    from unnest(array['username', 'user_name', 'preferred_username']) with ordinality as w (field, n)
    where jsonb_typeof(metadata -> w.field) = 'string' and lower(metadata ->> w.field) ~ '^[a-z0-9_]{3,32}$'
    order by w.n
    limit 1
  );
  candidate text := wish;
  shown constant text := (
    select s.name
    from unnest(array['display_name', 'full_name', 'name']) with ordinality as f (field, n)
    cross join lateral (select left(btrim(metadata ->> f.field), 64)) as s (name)
    where jsonb_typeof(metadata -> f.field) = 'string'
      and usher.is_line(s.name)
      and not usher.holds_address(metadata ->> f.field)
    order by f.n
    limit 1
  );
begin
  if wish is null then
    wish := 'user';
    candidate := 'user_' || substr(replace(account::text, '-', ''), 1, 8);
  end if;
  -- A username that is taken gets a random suffix.
  for attempt in 1..20 loop
    begin
      insert into public.profiles (id, username, display_name)
      values (account, candidate, coalesce(shown, candidate))
      on conflict (id) do nothing;
      return;
    exception
      when unique_violation then
        candidate := left(wish, 23) || '_' || substr(md5(random()::text || account::text), 1, 8);
    end;
  end loop;
  raise exception 'found no free username for account %', account;
end
$$;

-- Security definer: runs as a trigger on auth.users. Its writer, the auth server, has no rights in public.
create function usher.on_account_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.create_profile(new.id, coalesce(new.raw_user_meta_data, '{}'));
  return new;
end
$$;

revoke execute on function
  usher.touch_updated_at(), usher.guard_display_name(), usher.create_profile(uuid, jsonb), usher.on_account_created()
  from public;

create trigger usher_account_created
  after insert on auth.users
  for each row
  execute function usher.on_account_created();

-- Accounts from before this migration.
select usher.create_profile(u.id, coalesce(u.raw_user_meta_data, '{}')) from auth.users u;
