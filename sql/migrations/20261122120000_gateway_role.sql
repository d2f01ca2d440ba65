-- Creates the gateway's login role, and the schema with the functions that the gateway calls.

-- Roles belong to the whole cluster. If the migration of another database creates the role first, that is fine. The
-- comment marks the role as made here: `migrate down` keeps a role of this name that existed before.
do $$
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'usher_gateway') then
    begin
      create role usher_gateway with login noinherit;
      comment on role usher_gateway is 'Login role of the Usher gateway, made by its migrations.';
    exception
      when duplicate_object or unique_violation then null;
      when insufficient_privilege then
        raise exception using
          errcode = 'insufficient_privilege',
          message = format('%s may not create the role usher_gateway', current_user),
          hint = 'As a superuser, run: create role usher_gateway with login noinherit; grant anon, authenticated to usher_gateway; then migrate again.';
    end;
  end if;
end
$$;

-- Since Postgres 16, granting a role needs the admin option on it.
do $$
declare
  api_role name;
begin
  foreach api_role in array array['anon', 'authenticated']::name[] loop
    if not exists (
      select 1
      from pg_catalog.pg_auth_members m
      where m.roleid = (select oid from pg_catalog.pg_roles where rolname = api_role)
        and m.member = (select oid from pg_catalog.pg_roles where rolname = 'usher_gateway')
    ) then
      begin
        execute format('grant %I to usher_gateway', api_role);
      exception
        -- The migration of another database granted it at the same moment ("tuple concurrently updated").
        when unique_violation or internal_error then null;
        when insufficient_privilege then
          raise exception using
            errcode = 'insufficient_privilege',
            message = format('%s may not grant %s to usher_gateway', current_user, api_role),
            hint = format(
              'As a superuser, run: grant anon, authenticated to %I with admin option; then migrate again.', current_user
            );
      end;
    end if;
  end loop;
end
$$;

-- The gateway has few connections, and a statement that waits for long would hold one of them. With these timeouts the
-- statement fails and the gateway tries again. A timeout that the role already has stays.
do $$
declare
  timeout record;
begin
  for timeout in
    select t.name, t.value
    from (values ('statement_timeout', '8s'), ('lock_timeout', '1s')) as t (name, value)
    where not exists (
      select 1
      from pg_catalog.pg_db_role_setting s
      cross join unnest(s.setconfig) as c (setting)
      where s.setdatabase = 0
        and s.setrole = (select oid from pg_catalog.pg_roles where rolname = 'usher_gateway')
        and split_part(c.setting, '=', 1) = t.name
    )
  loop
    begin
      execute format('alter role usher_gateway set %I = %L', timeout.name, timeout.value);
    exception
      -- The migration of another database set the same timeout at the same moment.
      when unique_violation or internal_error then null;
      when insufficient_privilege then
        raise notice '% may not set % of usher_gateway: the setting stays unchanged', current_user, timeout.name;
    end;
  end loop;
end
$$;

create schema usher;

comment on schema usher is 'Internals of the Usher gateway: the event log, the vote tallies and the functions that the gateway calls. Do not expose it through the Data API.';

-- Only usage of the schema. Each function is granted separately, and no table is granted to any role.
grant usage on schema usher to usher_gateway, anon, authenticated, service_role;
