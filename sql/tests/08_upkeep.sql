-- Upkeep: what leaves the log and what stays, where it then begins; what the buckets take.
begin;
create extension if not exists pgtap;
select plan(24);

insert into auth.users (id, raw_user_meta_data) values ('aa000000-0000-4000-8000-000000000001', '{"username": "tap_one"}');
insert into public.movie_sessions (id, streamer_id, title, status)
select ('5e000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'aa000000-0000-4000-8000-000000000001', 'one', 'live'
from generate_series(1, 2) as n;
insert into public.chat_messages (session_id, user_id, body)
select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'text ' || n from generate_series(1, 10) as n;
insert into public.chat_messages (session_id, user_id, body)
select '5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000001', 'text ' || n from generate_series(1, 2) as n;

do $$ begin perform usher.settle(); end $$;

-- The numbers that the log of the first session has, and the number before them.
create function pg_temp.kept() returns text
language sql
as $$
  select format('%s | %s..%s', h.floor, min(e.seq), max(e.seq))
  from usher.session_heads h
  join usher.session_events e on e.session_id = h.session_id
  where h.session_id = '5e000000-0000-4000-8000-000000000001'
  group by h.floor
$$;

select is(usher.trim_logs('1 day', 100, 100), 0::bigint, 'what is young and few stays');
update usher.session_events set at = now() - interval '2 days'
where session_id = '5e000000-0000-4000-8000-000000000001' and seq <= 4;
select is(usher.trim_logs('1 day', 100, 3), 3::bigint, 'what is old goes, so much at a time');
select is(pg_temp.kept(), '3 | 4..10', 'and the log says where it begins');
select is(usher.trim_logs('1 day', 100, 100), 1::bigint, 'the rest of it the next time');
select is(pg_temp.kept(), '4 | 5..10', 'and nothing else');
select is(usher.trim_logs('1 day', 3, 100), 3::bigint, 'beyond so many the oldest go');
select is(pg_temp.kept(), '7 | 8..10', 'and so many stay');
select is(
  (select count(*) from usher.session_events where session_id = '5e000000-0000-4000-8000-000000000002'), 2::bigint,
  'each session has its own count'
);
select is_empty($$select 1 from usher.events_after('5e000000-0000-4000-8000-000000000001', 6, 100, 100000)$$, 'below the floor there is no page, rather than one with a hole');
select results_eq(
  $$select seq from usher.events_after('5e000000-0000-4000-8000-000000000001', 7, 2, 100000)$$, $$values (8::bigint), (9)$$,
  'from the floor on there is, of so many events'
);
select results_eq(
  $$select seq from usher.events_after('5e000000-0000-4000-8000-000000000001', 7, 100, 1)$$, $$values (8::bigint)$$,
  'or so many bytes, but one at least'
);
select is(usher.trim_logs('0', 0, 100), 3::bigint, 'whatever is asked for');
select is(pg_temp.kept(), '9 | 10..10', 'the newest event stays');
insert into public.chat_messages (session_id, user_id, body)
values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'next');
do $$ begin perform usher.settle(); end $$;
select is(pg_temp.kept(), '9 | 10..11', 'and numbers go on');

-- The gateway's role trims within bounds.
select throws_ok(format('select usher.trim_events(%s)', arguments), '22023', null, format('trim_events(%s) is refused', arguments))
from (values ($$'0 s', 0, 100$$), ($$'59 minutes', 100, 100$$), ($$null, 100, 100$$), ($$'1 day', 99, 100$$), ($$'1 day', null, 100$$),
  ($$'1 day', 100, 100001$$), ($$'1 day', 100, null$$), ($$'1 day', 100, -1$$)) as a (arguments);
update usher.session_events set at = now() - interval '2 hours' where session_id = '5e000000-0000-4000-8000-000000000001';
select is(usher.trim_events('1 hour', 100, 100), 1::bigint, 'within them it trims');

-- The storage service refuses what is larger or of another kind.
select results_eq(
  $$select id::text, public, file_size_limit::bigint, allowed_mime_types
  from storage.buckets where id in ('avatars', 'posters') order by id$$,
  $$values
    ('avatars', true, 1048576::bigint, '{image/png,image/jpeg,image/webp}'::text[]),
    ('posters', true, 5242880, '{image/png,image/jpeg,image/webp}')$$,
  'pictures of so many bytes, and nothing else'
);

select * from finish();
rollback;
