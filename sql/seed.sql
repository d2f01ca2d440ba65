-- The demo data of `usher dev`. Running it twice is fine. All rows pass the triggers, so the log contains them.
--
-- the live session     5e551000-0000-4000-8000-000000000001   "Friday Movie Night"
-- its open poll        b0115000-0000-4000-8000-000000000001   "What do we watch next?"
-- a private session    5e551000-0000-4000-8000-000000000002   "Director's cut with friends"
-- an ended session     5e551000-0000-4000-8000-000000000003   "Last week: Silent Cartographer"
-- the streamer nora    a0000000-0000-4000-8000-000000000001
-- the moderator max    a0000000-0000-4000-8000-000000000002
-- viewers              a0000000-0000-4000-8000-000000000003 to …008: lina, otto, ayla, bram, yuki, sol
-- movies               f1100000-0000-4000-8000-000000000001 to …005

insert into auth.users (id, aud, role, email, raw_app_meta_data, raw_user_meta_data, created_at, updated_at)
select
  u.id::uuid, 'authenticated', 'authenticated', u.username || '@usher.example', '{"provider": "email"}',
  jsonb_build_object('username', u.username, 'display_name', u.display_name), now(), now()
from (values
  ('a0000000-0000-4000-8000-000000000001', 'nora', 'Nora Lindqvist'),
  ('a0000000-0000-4000-8000-000000000002', 'max', 'Max Okafor'),
  ('a0000000-0000-4000-8000-000000000003', 'lina', 'Lina'),
  ('a0000000-0000-4000-8000-000000000004', 'otto', 'Otto B.'),
  ('a0000000-0000-4000-8000-000000000005', 'ayla', 'Ayla Demir'),
  ('a0000000-0000-4000-8000-000000000006', 'bram', 'Bram de Wit'),
  ('a0000000-0000-4000-8000-000000000007', 'yuki', 'Yuki'),
  ('a0000000-0000-4000-8000-000000000008', 'sol', 'Sol Marín')
) as u (id, username, display_name)
on conflict (id) do nothing;

update public.profiles
set role = 'streamer'
where id = 'a0000000-0000-4000-8000-000000000001' and role <> 'streamer';

update public.profiles
set role = 'moderator'
where id = 'a0000000-0000-4000-8000-000000000002' and role <> 'moderator';

insert into public.movies (id, title, release_year, description, metadata, created_by)
select
  m.id::uuid, m.title, m.release_year, m.description, m.metadata::jsonb, 'a0000000-0000-4000-8000-000000000001'
from (values
  (
    'f1100000-0000-4000-8000-000000000001', 'The Lighthouse Keeper''s Daughter', 2019,
    'On an island that no map shows any more, a girl keeps the lamp burning for a ship that left before she was born.',
    '{"minutes": 112, "genres": ["drama", "mystery"]}'
  ),
  (
    'f1100000-0000-4000-8000-000000000002', 'Neon Orchard', 2023,
    'In a city that grows its own light, a gardener finds a fruit that remembers. Somebody wants it forgotten.',
    '{"minutes": 98, "genres": ["science fiction", "noir"]}'
  ),
  (
    'f1100000-0000-4000-8000-000000000003', 'Seven Minutes to Midnight Station', 2016,
    'Strangers on the last train each carry one suitcase. Only one of them packed it.',
    '{"minutes": 104, "genres": ["thriller"]}'
  ),
  (
    'f1100000-0000-4000-8000-000000000004', 'Paper Dragons', 2021,
    'Two brothers, one kite shop and the biggest storm in forty years. For everybody between six and ninety.',
    '{"minutes": 91, "genres": ["animation", "family"]}'
  ),
  (
    'f1100000-0000-4000-8000-000000000005', 'The Silent Cartographer', 2011,
    'A mapmaker who has not spoken since the war is asked to draw the one place she swore to leave blank.',
    '{"minutes": 127, "genres": ["adventure", "drama"]}'
  )
) as m (id, title, release_year, description, metadata)
on conflict (id) do nothing;

insert into public.movie_sessions (id, streamer_id, title, movie_id, status, visibility, starts_at, started_at, ended_at)
select
  s.id::uuid, 'a0000000-0000-4000-8000-000000000001', s.title, s.movie_id::uuid, s.status, s.visibility,
  s.started_at, s.started_at, s.ended_at
from (values
  (
    '5e551000-0000-4000-8000-000000000001', 'Friday Movie Night', 'f1100000-0000-4000-8000-000000000005',
    'live', 'public', now() - interval '40 minutes', null::timestamptz
  ),
  (
    '5e551000-0000-4000-8000-000000000002', 'Director''s cut with friends', 'f1100000-0000-4000-8000-000000000002',
    'live', 'private', now() - interval '10 minutes', null
  ),
  (
    '5e551000-0000-4000-8000-000000000003', 'Last week: Silent Cartographer', 'f1100000-0000-4000-8000-000000000005',
    'ended', 'public', now() - interval '7 days 3 hours', now() - interval '7 days'
  )
) as s (id, title, movie_id, status, visibility, started_at, ended_at)
on conflict (id) do nothing;

-- Of the viewers, only Lina and Otto can see the private session.
insert into public.session_members (session_id, user_id, role)
values
  ('5e551000-0000-4000-8000-000000000002', 'a0000000-0000-4000-8000-000000000003', 'moderator'),
  ('5e551000-0000-4000-8000-000000000002', 'a0000000-0000-4000-8000-000000000004', 'viewer')
on conflict (session_id, user_id) do nothing;

insert into public.chat_messages (id, session_id, user_id, body, reply_to, created_at)
select
  ('c4a70000-0000-4000-8000-' || lpad(m.n::text, 12, '0'))::uuid,
  '5e551000-0000-4000-8000-000000000001',
  ('a0000000-0000-4000-8000-' || lpad(m.author::text, 12, '0'))::uuid,
  m.body,
  ('c4a70000-0000-4000-8000-' || lpad(m.reply_to::text, 12, '0'))::uuid,
  now() - m.ago
from (values
  (1, 1, 'Good evening everybody, lights down, phones away (except for this chat).', null, interval '11 minutes'),
  (2, 3, 'hello hello! popcorn is ready 🍿', null, interval '10 minutes 40 seconds'),
  (3, 4, 'Just made it. What did I miss?', null, interval '9 minutes 50 seconds'),
  (4, 5, 'Only the title card, you are fine', 3, interval '9 minutes 30 seconds'),
  (5, 6, 'This opening shot. Every time.', null, interval '8 minutes'),
  (6, 7, 'the sound design is so good with headphones', null, interval '7 minutes 10 seconds'),
  (7, 2, 'Reminder: no spoilers please, half of us have not seen it.', null, interval '6 minutes 20 seconds'),
  (8, 8, 'I promise to gasp quietly', 7, interval '5 minutes 55 seconds'),
  (9, 3, 'she is going to open the drawer', null, interval '4 minutes'),
  (10, 4, 'SHE OPENED THE DRAWER', 9, interval '3 minutes 50 seconds'),
  (11, 1, 'While the credits of part one roll: the vote for the next movie is open!', null, interval '2 minutes'),
  (12, 5, 'Paper Dragons, no discussion 🐉', null, interval '1 minute 20 seconds')
) as m (n, author, body, reply_to, ago)
order by m.n
on conflict (id) do nothing;

insert into public.voting_sessions (id, session_id, question, state, opens_at, closes_at, results_visibility, allow_change)
values (
  'b0115000-0000-4000-8000-000000000001', '5e551000-0000-4000-8000-000000000001', 'What do we watch next?',
  'open', now() - interval '2 minutes', now() + interval '3 hours', 'live', true
)
on conflict (id) do nothing;

insert into public.voting_options (voting_session_id, movie_id, position)
values
  ('b0115000-0000-4000-8000-000000000001', 'f1100000-0000-4000-8000-000000000001', 1),
  ('b0115000-0000-4000-8000-000000000001', 'f1100000-0000-4000-8000-000000000002', 2),
  ('b0115000-0000-4000-8000-000000000001', 'f1100000-0000-4000-8000-000000000003', 3),
  ('b0115000-0000-4000-8000-000000000001', 'f1100000-0000-4000-8000-000000000004', 4)
on conflict (voting_session_id, movie_id) do nothing;

-- Only if the poll is still open. It may have closed since the first run, and the guard would then refuse the
-- statement.
insert into public.votes (voting_session_id, user_id, movie_id)
select v.id, b.user_id::uuid, b.movie_id::uuid
from public.voting_sessions v
cross join (values
  ('a0000000-0000-4000-8000-000000000005', 'f1100000-0000-4000-8000-000000000004'),
  ('a0000000-0000-4000-8000-000000000006', 'f1100000-0000-4000-8000-000000000002'),
  ('a0000000-0000-4000-8000-000000000007', 'f1100000-0000-4000-8000-000000000004')
) as b (user_id, movie_id)
where v.id = 'b0115000-0000-4000-8000-000000000001' and v.state = 'open' and v.closes_at > now()
on conflict (voting_session_id, user_id) do nothing;
