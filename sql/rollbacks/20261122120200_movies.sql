-- Removes the catalogue of movies.

drop table public.movies;
