-- Adopting Usher, part 1: run it before `usher migrate up`. It moves your tables with the same names out of the way,
-- with their data.
--
-- This example app has public.movies, public.chat_messages and public.rooms. Replace them with your own tables.
create schema legacy;

alter table public.movies set schema legacy;
alter table public.rooms set schema legacy;
alter table public.chat_messages set schema legacy;
