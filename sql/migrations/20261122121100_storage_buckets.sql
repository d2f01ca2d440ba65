-- Buckets for pictures: avatars in each user's own folder, posters by streamers and admins.
--
-- A bucket of that name that is there before stays as it is, and so do the rules for its files: it gets none of these
-- policies, unless it has the very settings that it would be made with (what `migrate down` leaves of a bucket with files).
-- A bucket is therefore Usher's where its policies are.
--
-- A file of a public bucket is served to everybody by its path; the policies are for listing and changing.

do $$
declare
  pictures constant text[] := array['image/png', 'image/jpeg', 'image/webp'];
begin
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
  values ('avatars', 'avatars', true, 1048576, pictures)
  on conflict do nothing;
  if not exists (
    select 1
    from storage.buckets b
    where b.id = 'avatars' and (b.public, b.file_size_limit, b.allowed_mime_types) = (true, 1048576, pictures)
  ) then
    raise notice 'bucket avatars was there before: it and its policies stay as they are';
  else
    create policy usher_avatars_select on storage.objects
      for select
      to authenticated
      using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text));

    create policy usher_avatars_insert on storage.objects
      for insert
      to authenticated
      with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text));

    create policy usher_avatars_update on storage.objects
      for update
      to authenticated
      using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text))
      with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text));

    create policy usher_avatars_delete on storage.objects
      for delete
      to authenticated
      using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text));
  end if;
end
$$;

do $$
declare
  pictures constant text[] := array['image/png', 'image/jpeg', 'image/webp'];
begin
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
  values ('posters', 'posters', true, 5242880, pictures)
  on conflict do nothing;
  if not exists (
    select 1
    from storage.buckets b
    where b.id = 'posters' and (b.public, b.file_size_limit, b.allowed_mime_types) = (true, 5242880, pictures)
  ) then
    raise notice 'bucket posters was there before: it and its policies stay as they are';
  else
    create policy usher_posters_select on storage.objects
      for select
      to authenticated
      using (
        bucket_id = 'posters'
        and (
          ((storage.foldername(name))[1] = (select auth.uid()::text) and (select usher.is_streamer()))
          or (select usher.is_admin())
        )
      );

    create policy usher_posters_insert on storage.objects
      for insert
      to authenticated
      with check (
        bucket_id = 'posters'
        and (
          ((storage.foldername(name))[1] = (select auth.uid()::text) and (select usher.is_streamer()))
          or (select usher.is_admin())
        )
      );

    create policy usher_posters_update on storage.objects
      for update
      to authenticated
      using (
        bucket_id = 'posters'
        and (
          ((storage.foldername(name))[1] = (select auth.uid()::text) and (select usher.is_streamer()))
          or (select usher.is_admin())
        )
      )
      with check (
        bucket_id = 'posters'
        and (
          ((storage.foldername(name))[1] = (select auth.uid()::text) and (select usher.is_streamer()))
          or (select usher.is_admin())
        )
      );

    create policy usher_posters_delete on storage.objects
      for delete
      to authenticated
      using (
        bucket_id = 'posters'
        and (
          ((storage.foldername(name))[1] = (select auth.uid()::text) and (select usher.is_streamer()))
          or (select usher.is_admin())
        )
      );
  end if;
end
$$;

-- How the two buckets are set, whoever made them, for `usher doctor`.
-- Security definer: called as usher_gateway, which may not read the storage; gives the settings of these two alone.
create function usher.bucket_settings(
  out name text,
  out is_public boolean,
  out bytes_max bigint,
  out mime_types text[]
)
returns setof record
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select b.id, coalesce(b.public, false), b.file_size_limit, b.allowed_mime_types
  from storage.buckets b
  where b.id in ('avatars', 'posters')
$$;

revoke execute on function usher.bucket_settings() from public;
grant execute on function usher.bucket_settings() to usher_gateway;
