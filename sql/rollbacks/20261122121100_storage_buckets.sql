-- Takes the policies away, and the buckets where they are empty: files are never deleted by a migration.

drop policy usher_posters_delete on storage.objects;
drop policy usher_posters_update on storage.objects;
drop policy usher_posters_insert on storage.objects;
drop policy usher_posters_select on storage.objects;
drop policy usher_avatars_delete on storage.objects;
drop policy usher_avatars_update on storage.objects;
drop policy usher_avatars_insert on storage.objects;
drop policy usher_avatars_select on storage.objects;

-- The platform refuses direct deletes in storage unless this is said.
select set_config('storage.allow_delete_query', 'true', true);

delete from storage.buckets b
where b.id in ('avatars', 'posters')
  and not exists (select 1 from storage.objects o where o.bucket_id = b.id);
