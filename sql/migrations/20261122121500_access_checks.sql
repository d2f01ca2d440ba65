-- Access that an app decides with its own policies. Usher's triggers do not see such a change, so the gateway checks
-- access again: at an interval, and immediately if the app says so.

-- Returns the permissions of many callers, each in one session and under its own role and claims, by calling admit().
-- If the call fails for one caller, its row has the SQLSTATE, and the other rows are not affected.
-- Runs as usher_gateway, not as its owner, because a security definer function cannot change the role.
create function usher.admit_many(batch jsonb) returns table (item integer, admission jsonb, failure text)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  entry_role constant text := current_setting('role');
  acting text := entry_role;
  ignored text;
  caller record;
begin
  ignored := set_config('request.jwt.claim.role', '', true);
  ignored := set_config('request.jwt.claim.email', '', true);
  for caller in
    select
      p.n::integer as n,
      p.value ->> 'role' as role,
      p.value ->> 'claims' as claims,
      coalesce(p.value -> 'claims' ->> 'sub', '') as subject,
      p.value ->> 'session' as session,
      usher.check_author(p.value) is null
        and coalesce(usher.is_uuid(p.value -> 'session'), false)
        and p.value ->> 'role' in ('anon', 'authenticated') as is_caller
    from jsonb_array_elements(batch) with ordinality as p (value, n)
    order by p.n
  loop
    item := caller.n - 1;
    admission := null;
    failure := null;
    if not caller.is_caller then
      failure := '22023';
      return next;
      continue;
    end if;
    if acting <> caller.role then
      acting := set_config('role', caller.role, true);
    end if;
    ignored := set_config('request.jwt.claims', caller.claims, true);
    -- auth.uid() reads this setting first, so it need not parse the claims.
    ignored := set_config('request.jwt.claim.sub', caller.subject, true);
    begin
      admission := usher.admit(caller.session::uuid);
    exception
      when others then
        failure := sqlstate;
        acting := set_config('role', entry_role, true);
        if failure = '55P03' then
          perform usher.wait_no_more();
        end if;
    end;
    return next;
  end loop;
  ignored := set_config('role', entry_role, true);
  ignored := set_config('request.jwt.claims', '', true);
  ignored := set_config('request.jwt.claim.sub', '', true);
end
$$;

-- Tells the gateways that access may have changed: of one user in one session, of everyone in a session (user null), or
-- of one user everywhere (session null). The gateways check admission again within a second and act on the result. For
-- the app's triggers, on tables that its policies read.
-- Security definer: called by the app's triggers as the user who writes. It changes nothing and returns no row. It only
-- causes checks, which the gateway merges and limits. Role anon may not call it, so a trigger on a table that anon
-- writes must be a security definer function.
create function usher.access_changed(session uuid default null, "user" uuid default null) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access(access_changed.session, access_changed."user");
end
$$;

comment on function usher.access_changed(uuid, uuid) is 'Makes the gateway check access again. For triggers of the app. A null user is everyone, a null session is every session.';

revoke execute on function usher.admit_many(jsonb), usher.access_changed(uuid, uuid) from public;
grant execute on function usher.admit_many(jsonb) to usher_gateway;
grant execute on function usher.access_changed(uuid, uuid) to authenticated, service_role;
