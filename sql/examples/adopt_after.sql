-- Adopting Usher, part 2: run it after `usher migrate up`. It copies your data into Usher's tables. Ids stay the same,
-- so links stay valid.
--
-- The profiles already exist: the migration creates one for each account. One statement adds all messages to the log of
-- their sessions, ordered by time, so viewers see the old chat.
begin;

-- Hosts of rooms become streamers.
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

-- Usher's rules refuse some texts. This cuts texts that are too long and skips messages without a visible character.
insert into public.chat_messages (id, session_id, user_id, body, created_at)
select c.id, c.room_id, c.author_id, left(c.text, 2000), c.sent_at
from legacy.chat_messages c
where usher.has_ink(left(c.text, 2000))
order by c.sent_at, c.id;

commit;

-- After you have checked the result: drop schema legacy cascade;
