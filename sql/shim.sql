-- Creates the parts of a Supabase project that Usher's migrations and tests need, in a plain Postgres 15 or newer.
--
-- Never apply it to a Supabase project. Applying it twice is fine. Run it as a superuser. The owner of the database
-- takes the place of Supabase's `postgres`: it owns the platform's tables here and may grant the API roles.

-- Roles belong to the whole cluster. If the shim of another database creates one first, that is fine.
do $$
declare
  wanted record;
begin
  for wanted in
    select *
    from (values
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit bypassrls'),
      ('authenticator', 'login noinherit')
    ) as roles (name, attributes)
  loop
    if not exists (select 1 from pg_catalog.pg_roles where rolname = wanted.name) then
      begin
        execute format('create role %I %s', wanted.name, wanted.attributes);
      exception
        when duplicate_object or unique_violation then null;
      end;
    end if;
  end loop;
end
$$;

do $$
declare
  owner_name name := (select pg_get_userbyid(datdba) from pg_catalog.pg_database where datname = current_database());
  granted record;
begin
  for granted in
    select role_name, member_name, with_admin
    from (values ('anon'), ('authenticated'), ('service_role')) as roles (role_name)
    cross join (values ('authenticator'::name, false), (owner_name, true)) as members (member_name, with_admin)
  loop
    if granted.with_admin and (select rolsuper from pg_catalog.pg_roles where rolname = granted.member_name) then
      continue;
    end if;
    if exists (
      select 1
      from pg_catalog.pg_auth_members m
      where m.roleid = granted.role_name::regrole
        and m.member = (select oid from pg_catalog.pg_roles where rolname = granted.member_name)
        and (m.admin_option or not granted.with_admin)
    ) then
      continue;
    end if;
    begin
      execute format(
        'grant %I to %I%s', granted.role_name, granted.member_name,
        case when granted.with_admin then ' with admin option' else '' end
      );
    exception
      -- The shim of another database granted it at the same moment ("tuple concurrently updated").
      when unique_violation or internal_error then null;
    end;
  end loop;
end
$$;

-- Schema auth -------------------------------------------------------------------------------------------------

create schema if not exists auth;

grant usage on schema auth to anon, authenticated, service_role;

create table if not exists auth.users (
  id uuid not null default gen_random_uuid() primary key,
  instance_id uuid,
  aud varchar(255),
  role varchar(255),
  email varchar(255) unique,
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_anonymous boolean not null default false,
  created_at timestamptz,
  updated_at timestamptz,
  deleted_at timestamptz
);

alter table auth.users enable row level security;

-- The legacy settings, one per claim, come first, as on Supabase: a stale value there wins.
create or replace function auth.uid() returns uuid
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;

create or replace function auth.role() returns text
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;

create or replace function auth.email() returns text
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$;

create or replace function auth.jwt() returns jsonb
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

-- Schema storage ----------------------------------------------------------------------------------------------

create schema if not exists storage;

grant usage on schema storage to anon, authenticated, service_role;

create table if not exists storage.buckets (
  id text not null primary key,
  name text not null unique,
  owner uuid,
  owner_id text,
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table if not exists storage.objects (
  id uuid not null default gen_random_uuid() primary key,
  bucket_id text references storage.buckets (id),
  name text,
  owner uuid,
  owner_id text,
  metadata jsonb,
  user_metadata jsonb,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  version text,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  unique (bucket_id, name)
);

alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

grant all on storage.buckets, storage.objects to anon, authenticated, service_role;

-- Returns the folders of a path, without the file name.
create or replace function storage.foldername(name text) returns text[]
language plpgsql
immutable
as $$
declare
  parts text[] := string_to_array(name, '/');
begin
  return parts[1 : array_length(parts, 1) - 1];
end
$$;

create or replace function storage.filename(name text) returns text
language plpgsql
immutable
as $$
declare
  parts text[] := string_to_array(name, '/');
begin
  return parts[array_length(parts, 1)];
end
$$;

-- The database's owner takes the place of `postgres` -----------------------------------------------------------

do $$
declare
  owner_name name := (select pg_get_userbyid(datdba) from pg_catalog.pg_database where datname = current_database());
begin
  -- On Supabase, an extension lets `postgres` create triggers and policies on these tables. Here the owner may.
  execute format('alter table auth.users owner to %I', owner_name);
  execute format('alter table storage.buckets owner to %I', owner_name);
  execute format('alter table storage.objects owner to %I', owner_name);
  execute format('grant usage on schema auth, storage to %I', owner_name);
  execute format('grant usage, create on schema public to %I', owner_name);

  -- Supabase projects from before 2026-05-30 grant the API roles all rights on new objects in public. The shim does the
  -- same, so that tests find a migration that forgets to revoke them.
  execute format('alter default privileges for role %I in schema public grant all on tables to anon, authenticated, service_role', owner_name);
  execute format('alter default privileges for role %I in schema public grant all on sequences to anon, authenticated, service_role', owner_name);
  execute format('alter default privileges for role %I in schema public grant all on functions to anon, authenticated, service_role', owner_name);
end
$$;

grant usage on schema public to anon, authenticated, service_role;
