-- The gateway's login role and the schema that holds what it may call.

-- Roles belong to the cluster: another database may be making the same one now, so losing the race is fine. The comment
-- marks the role as ours: a role of that name that was there before outlives `migrate down`.
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

-- From Postgres 16 on, only a role with the admin option on another may grant it.
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
        -- Another database granted it in this moment ("tuple concurrently updated").
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

-- A statement of the gateway that waits for long would keep one of its few connections; it gives up and asks again. A
-- limit that the role has already stays.
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
      -- Another database set the same in this moment.
      when unique_violation or internal_error then null;
      when insufficient_privilege then
        raise notice '% may not set % of usher_gateway: it stays as it is', current_user, timeout.name;
    end;
  end loop;
end
$$;

create schema usher;

comment on schema usher is 'The realtime gateway''s own: the event log, the tallies and the functions it calls. Not for the Data API.';

-- Usage alone: what may be executed is granted function by function, and no table is granted to anybody.
grant usage on schema usher to usher_gateway, anon, authenticated, service_role;
