-- Adopting Usher, second half: after `usher migrate up`, the data moves into its tables. Ids stay, so links do, too.
--
-- Profiles are there already: the migration makes one for each account. The log of each session gets its messages in
-- the order of their times, in one statement: viewers see the old chat when they come.
begin;

-- Whoever hosts a room streams.
update public.profiles p
set role = 'streamer'
where p.id in (select r.host_id from legacy.rooms r);

insert into public.movies (id, title, release_year)
select m.id, left(regexp_replace(m.name, '[[:cntrl:]]+', ' ', 'g'), 200), m.year
from legacy.movies m;

insert into public.movie_sessions (id, streamer_id, title, movie_id, status, created_at)
select
  r.id, r.host_id, left(regexp_replace(r.name, '[[:cntrl:]]+', ' ', 'g'), 200), r.movie_id,
  case when r.is_live then 'live' else 'ended' end, r.created_at
from legacy.rooms r;

-- What the new rules would refuse is cut or left out here, knowingly: texts that do not show, texts that are too long.
insert into public.chat_messages (id, session_id, user_id, body, created_at)
select c.id, c.room_id, c.author_id, left(c.text, 2000), c.sent_at
from legacy.chat_messages c
where usher.has_ink(left(c.text, 2000))
order by c.sent_at, c.id;

commit;

-- When all is well: drop schema legacy cascade;
