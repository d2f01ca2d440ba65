-- Buckets for pictures: avatars, each in its user's own folder, and posters by streamers and admins.
--
-- If a bucket with one of these names already exists, it and its policies stay unchanged. The exception is a bucket
-- with exactly the settings below, such as one with files that `migrate down` has kept: it gets the policies. So a
-- bucket belongs to Usher if and only if it has Usher's policies.
--
-- Anyone can read a file of a public bucket by its path. The policies cover listing and changing files.

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
    raise notice 'bucket avatars already exists with other settings: it and its policies stay unchanged';
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
    raise notice 'bucket posters already exists with other settings: it and its policies stay unchanged';
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

-- Returns the settings of the two buckets, for `usher doctor`, including buckets that the project created.
-- Security definer: called as usher_gateway, which cannot read the storage tables. It returns the settings of these two
-- only.
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
