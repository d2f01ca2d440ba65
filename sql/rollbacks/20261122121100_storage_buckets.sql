-- Takes the policies away, and with them the buckets that the migration made, where they are empty: files are never
-- deleted by a migration. A bucket without our policies was there before, or somebody has taken it over: it stays.

do $$
declare
  bucket text;
begin
  foreach bucket in array array['avatars', 'posters'] loop
    if not exists (
      select 1
      from pg_catalog.pg_policies p
      where p.schemaname = 'storage' and p.tablename = 'objects' and p.policyname = 'usher_' || bucket || '_select'
    ) then
      continue;
    end if;
    execute format('drop policy %I on storage.objects', 'usher_' || bucket || '_select');
    execute format('drop policy if exists %I on storage.objects', 'usher_' || bucket || '_insert');
    execute format('drop policy if exists %I on storage.objects', 'usher_' || bucket || '_update');
    execute format('drop policy if exists %I on storage.objects', 'usher_' || bucket || '_delete');

    begin
      -- The platform refuses direct deletes in storage unless this is said.
      perform set_config('storage.allow_delete_query', 'true', true);
      delete from storage.buckets b
      where b.id = bucket and not exists (select 1 from storage.objects o where o.bucket_id = b.id);
    exception
      when foreign_key_violation or insufficient_privilege then
        raise notice 'bucket % stays: %', bucket, sqlerrm;
    end;
    perform set_config('storage.allow_delete_query', '', true);
  end loop;
end
$$;

drop function usher.bucket_settings();
