-- Buckets for pictures: avatars in each user's own folder, posters by streamers and admins.

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values
  ('avatars', 'avatars', true, 1048576, array['image/png', 'image/jpeg', 'image/webp']),
  ('posters', 'posters', true, 5242880, array['image/png', 'image/jpeg', 'image/webp'])
on conflict (id) do update
set public = excluded.public,
  file_size_limit = excluded.file_size_limit,
  allowed_mime_types = excluded.allowed_mime_types;

-- A file of a public bucket is served to everybody by its path; these policies are for listing and changing.

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
