-- Drops the schema and, where nothing else in the cluster depends on it, the gateway's login role.

drop schema usher;

do $$
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'usher_gateway') then
    return;
  end if;
  begin
    -- `drop owned` needs the role's own privileges; the membership goes away with the role, or with this block.
    if not pg_catalog.pg_has_role(current_user, 'usher_gateway', 'usage') then
      execute format('grant usher_gateway to %I', current_user);
    end if;
    drop owned by usher_gateway;
    drop role usher_gateway;
  exception
    when dependent_objects_still_exist then
      raise notice 'role usher_gateway is kept: other databases of this cluster still grant it something';
    when insufficient_privilege then
      raise notice 'role usher_gateway is kept: % may not drop it', current_user;
    when undefined_object or internal_error then
      raise notice 'role usher_gateway is being dropped by another database of this cluster';
  end;
end
$$;
