-- Removes the policies, and the buckets that the migration created if they are empty. A migration never deletes files.
-- A bucket without Usher's policies stays: it existed before, or the project has taken it over.

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
      -- Supabase refuses direct deletes in storage without this setting.
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
