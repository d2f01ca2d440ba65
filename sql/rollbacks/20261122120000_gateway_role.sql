-- Drops the schema and the gateway's login role. The role stays if it existed before the migrations, or if anything
-- else in the cluster depends on it.

drop schema usher;

do $$
declare
  problem text;
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'usher_gateway') then
    return;
  elsif (
    select pg_catalog.shobj_description(r.oid, 'pg_authid')
    from pg_catalog.pg_roles r
    where r.rolname = 'usher_gateway'
  ) is distinct from 'Login role of the Usher gateway, made by its migrations.' then
    raise notice 'role usher_gateway stays: it existed before the migrations';
    return;
  end if;
  begin
    drop role usher_gateway;
  exception
    when dependent_objects_still_exist then
      get stacked diagnostics problem = pg_exception_detail;
      raise notice 'role usher_gateway stays: other databases of this cluster, or grants, still need it: %', problem;
    when insufficient_privilege then
      raise notice 'role usher_gateway stays: % may not drop it', current_user;
    when undefined_object or internal_error then
      raise notice 'another database of this cluster is dropping role usher_gateway';
  end;
end
$$;
