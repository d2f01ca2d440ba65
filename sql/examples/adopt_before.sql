-- Adopting Usher, first half: before `usher migrate up`, tables that would be in its way step aside, with their data.
--
-- Here an app has public.movies, public.chat_messages and public.rooms of its own. Write down yours instead.
create schema legacy;

alter table public.movies set schema legacy;
alter table public.rooms set schema legacy;
alter table public.chat_messages set schema legacy;
