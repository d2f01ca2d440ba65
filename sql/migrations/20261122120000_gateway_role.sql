-- The gateway's login role and the schema that holds what it may call.

-- Roles belong to the cluster: another database may be making the same one now, so losing the race is fine.
do $$
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'usher_gateway') then
    begin
      create role usher_gateway with login noinherit;
    exception
      when duplicate_object or unique_violation then null;
    end;
  end if;
end
$$;

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
      end;
    end if;
  end loop;
end
$$;

-- A statement of the gateway that waits for long would keep one of its few connections; it gives up and asks again.
do $$
begin
  if not exists (
    select 1
    from pg_catalog.pg_db_role_setting s
    where s.setdatabase = 0
      and s.setrole = (select oid from pg_catalog.pg_roles where rolname = 'usher_gateway')
      and s.setconfig @> array['statement_timeout=8s', 'lock_timeout=3s']
  ) then
    begin
      alter role usher_gateway set statement_timeout = '8s';
      alter role usher_gateway set lock_timeout = '3s';
    exception
      -- Another database set the same in this moment.
      when unique_violation or internal_error then null;
    end;
  end if;
end
$$;

create schema usher;

comment on schema usher is 'The realtime gateway''s own: the event log, the tallies and the functions it calls. Not for the Data API.';

-- Usage alone: what may be executed is granted function by function, and no table is granted to anybody.
grant usage on schema usher to usher_gateway, anon, authenticated, service_role;
