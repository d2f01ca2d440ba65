-- Takes the catalogue away.

drop table public.movies;
