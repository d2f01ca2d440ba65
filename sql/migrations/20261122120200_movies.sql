-- The catalogue of movies.

create table public.movies (
  id uuid not null default gen_random_uuid(),
  title text not null,
  description text not null default '',
  release_year integer,
  poster_path text,
  metadata jsonb not null default '{}',
  vote_total bigint not null default 0,
  created_by uuid default auth.uid(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint movies_pkey primary key (id),
  constraint movies_created_by_fkey foreign key (created_by) references public.profiles (id) on delete set null,
  constraint movies_title_check check (char_length(title) between 1 and 200),
  constraint movies_description_check check (char_length(description) <= 4000),
  constraint movies_release_year_check check (release_year between 1870 and 2200),
  constraint movies_poster_path_check check (char_length(poster_path) between 1 and 512),
  constraint movies_metadata_check check (
    jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 65536
  ),
  constraint movies_vote_total_check check (vote_total >= 0)
)
-- Votes update vote_total often. Free space on each page lets Postgres skip the indexes for those updates (HOT).
with (fillfactor = 50);

alter table public.movies enable row level security;

create index movies_created_by_idx on public.movies (created_by);

comment on table public.movies is 'Movies that people watch and vote for.';
comment on column public.movies.poster_path is 'Path of the poster in the bucket posters.';
comment on column public.movies.vote_total is 'Votes in all polls with public counts: polls with live results, and closed polls. Maintained by triggers.';

create trigger movies_touch
  before update on public.movies
  for each row
  when (old.vote_total is not distinct from new.vote_total)
  execute function usher.touch_updated_at();

create trigger movies_lines
  before insert or update of title on public.movies
  for each row
  execute function usher.guard_lines('title');

create policy movies_select on public.movies
  for select
  to anon, authenticated
  using (true);

create policy movies_insert on public.movies
  for insert
  to authenticated
  with check (created_by = (select auth.uid()) and (select usher.is_streamer()));

create policy movies_update on public.movies
  for update
  to authenticated
  using ((created_by = (select auth.uid()) and (select usher.is_streamer())) or (select usher.is_admin()))
  with check ((created_by = (select auth.uid()) and (select usher.is_streamer())) or (select usher.is_admin()));

create policy movies_delete on public.movies
  for delete
  to authenticated
  using ((created_by = (select auth.uid()) and (select usher.is_streamer())) or (select usher.is_admin()));

revoke all on public.movies from public, anon, authenticated;
grant select on public.movies to anon, authenticated;
grant insert (title, description, release_year, poster_path, metadata, created_by) on public.movies to authenticated;
grant update (title, description, release_year, poster_path, metadata) on public.movies to authenticated;
grant delete on public.movies to authenticated;
grant all on public.movies to service_role;
