-- Access that an app decides by policies of its own. No trigger of ours sees such a change, so the gateway asks again: in
-- an interval, and at once where the app says so.

-- What many callers may do, each in a session and under their own role and claims: admit() for each. A caller for whom it
-- fails is answered with the failure's SQLSTATE, and the others are answered all the same.
-- Runs as usher_gateway, not as its owner: a security definer function may not change role.
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
    -- What auth.uid() looks for first: it need not parse the claims.
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

-- Says that somebody's access may have changed: that of a user in a session, of everybody in it (user null), of a user
-- everywhere (session null). The gateways ask admission again within a second and act on the answer. For triggers of the
-- app on tables that its policies read.
-- Security definer: called by the app's triggers, as whoever writes; it changes nothing and tells of no row. It has
-- questions asked, which the gateway folds and bounds. Role anon may not: triggers on what anon writes are security
-- definer functions.
create function usher.access_changed(session uuid default null, "user" uuid default null) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access(access_changed.session, access_changed."user");
end
$$;

comment on function usher.access_changed(uuid, uuid) is 'For triggers of the app: has the gateway ask again who may watch. A null is everybody, or every session.';

revoke execute on function usher.admit_many(jsonb), usher.access_changed(uuid, uuid) from public;
grant execute on function usher.admit_many(jsonb) to usher_gateway;
grant execute on function usher.access_changed(uuid, uuid) to authenticated, service_role;
