-- Maintenance: which rows trimming deletes, where the log then begins, and the limits of the buckets.
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

-- Returns the floor of the first session's log, and its first and last numbers.
create function pg_temp.kept() returns text
language sql
as $$
  select format('%s | %s..%s', h.floor, min(e.seq), max(e.seq))
  from usher.session_heads h
  join usher.session_events e on e.session_id = h.session_id
  where h.session_id = '5e000000-0000-4000-8000-000000000001'
  group by h.floor
$$;

select is(usher.trim_logs('1 day', 100, 100), 0::bigint, 'trimming keeps young events within the count');
update usher.session_events set at = now() - interval '2 days'
where session_id = '5e000000-0000-4000-8000-000000000001' and seq <= 4;
select is(usher.trim_logs('1 day', 100, 3), 3::bigint, 'trimming deletes old events, at most one batch');
select is(pg_temp.kept(), '3 | 4..10', 'the floor is the last deleted number');
select is(usher.trim_logs('1 day', 100, 100), 1::bigint, 'the next call deletes the remaining old events');
select is(pg_temp.kept(), '4 | 5..10', 'trimming keeps all young events');
select is(usher.trim_logs('1 day', 3, 100), 3::bigint, 'trimming deletes the oldest events beyond the count');
select is(pg_temp.kept(), '7 | 8..10', 'trimming keeps exactly the count');
select is(
  (select count(*) from usher.session_events where session_id = '5e000000-0000-4000-8000-000000000002'), 2::bigint,
  'the count applies to each session separately'
);
select is_empty($$select 1 from usher.events_after('5e000000-0000-4000-8000-000000000001', 6, 100, 100000)$$, 'a read below the floor returns nothing, not a page with a gap');
select results_eq(
  $$select seq from usher.events_after('5e000000-0000-4000-8000-000000000001', 7, 2, 100000)$$, $$values (8::bigint), (9)$$,
  'a read from the floor returns at most max_events'
);
select results_eq(
  $$select seq from usher.events_after('5e000000-0000-4000-8000-000000000001', 7, 100, 1)$$, $$values (8::bigint)$$,
  'a read returns at most max_bytes, but at least one event'
);
select is(usher.trim_logs('0', 0, 100), 3::bigint, 'trimming to zero events deletes all but one');
select is(pg_temp.kept(), '9 | 10..10', 'trimming always keeps the newest event');
insert into public.chat_messages (session_id, user_id, body)
values ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'next');
do $$ begin perform usher.settle(); end $$;
select is(pg_temp.kept(), '9 | 10..11', 'numbers continue after trimming');

-- The gateway's role can trim only within bounds.
select throws_ok(format('select usher.trim_events(%s)', arguments), '22023', null, format('trim_events(%s) is refused', arguments))
from (values ($$'0 s', 0, 100$$), ($$'59 minutes', 100, 100$$), ($$null, 100, 100$$), ($$'1 day', 99, 100$$), ($$'1 day', null, 100$$),
  ($$'1 day', 100, 100001$$), ($$'1 day', 100, null$$), ($$'1 day', 100, -1$$)) as a (arguments);
update usher.session_events set at = now() - interval '2 hours' where session_id = '5e000000-0000-4000-8000-000000000001';
select is(usher.trim_events('1 hour', 100, 100), 1::bigint, 'trim_events deletes old events within the bounds');

-- The storage service enforces these settings.
select results_eq(
  $$select id::text, public, file_size_limit::bigint, allowed_mime_types
  from storage.buckets where id in ('avatars', 'posters') order by id$$,
  $$values
    ('avatars', true, 1048576::bigint, '{image/png,image/jpeg,image/webp}'::text[]),
    ('posters', true, 5242880, '{image/png,image/jpeg,image/webp}')$$,
  'the buckets accept only pictures, up to their size limit'
);

select * from finish();
rollback;
