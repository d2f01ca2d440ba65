-- Grants: the rights of each role, before any policy.
begin;
create extension if not exists pgtap;
select plan(59);

select ok(c.relrowsecurity, format('row level security is on for %s', c.oid::regclass))
from pg_class c
where c.relkind = 'r' and c.relnamespace in ('public'::regnamespace, 'usher'::regnamespace)
order by c.oid::regclass::text;

select is(
  (
    select count(*)::integer
    from pg_class c
    cross join (values ('anon'), ('authenticated'), ('service_role'), ('usher_gateway')) as r (name)
    cross join (values ('select'), ('insert'), ('update'), ('delete'), ('truncate')) as p (privilege)
    where c.relkind = 'r' and c.relnamespace = 'usher'::regnamespace
      and has_table_privilege(r.name, c.oid, p.privilege)
  ),
  0,
  'no role has rights on a table of usher'
);

select is(
  (
    select array_agg(distinct p.proname::text order by p.proname::text)
    from pg_proc p
    where p.pronamespace = 'usher'::regnamespace and has_function_privilege('anon', p.oid, 'execute')
  ),
  array[
    'admit', 'banned_sessions', 'enter_ballot', 'has_ink', 'holds_address', 'is_admin', 'is_line', 'is_overlay', 'is_staff', 'is_streamer',
    'joined_sessions', 'message_positions', 'messages_before',
    'moderated_sessions', 'moderates_voting', 'my_votes', 'outranks', 'owns_session', 'profile_role',
    'require_chatter', 'require_writer', 'standing'
  ],
  'anon may execute admission, chat history and functions of policies, and no other'
);

select is(
  (
    select array_agg(distinct p.proname::text order by p.proname::text)
    from pg_proc p
    where p.pronamespace = 'usher'::regnamespace and has_function_privilege('usher_gateway', p.oid, 'execute')
  ),
  array[
    'admit_many', 'begin_batch', 'bucket_settings', 'cast_votes', 'channel_names', 'check_author', 'close_due_voting',
    'close_due_votings', 'due_votings', 'end_batch', 'epoch', 'events_after', 'heads', 'is_uuid', 'message_numbers',
    'post_messages', 'refusal_of', 'session_of', 'session_snapshot', 'settle', 'take_turns', 'tallies', 'trim_events',
    'update_vote_totals', 'wait_no_more'
  ],
  'the gateway may execute its own functions and no other'
);

-- With an empty path, Postgres looks for types and tables in pg_temp first. A function that a security definer function
-- calls also runs as its owner, so every function sets the path. Postgres resolves SQL-standard bodies at creation.
select is_empty(
  $$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace in ('usher'::regnamespace, 'public'::regnamespace)
      and p.prosqlbody is null
      and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
      and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
  $$,
  'every function searches pg_catalog first and pg_temp last'
);

-- With trace_notify on, Postgres sends the channel names to the caller.
select is_empty(
  $$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace = 'usher'::regnamespace
      and p.prosrc ~ '\mpg_notify\M'
      and not coalesce(p.proconfig @> array['trace_notify=off'], false)
  $$,
  'every function that notifies turns trace_notify off'
);

select ok(not has_table_privilege(r.name, t.name, 'truncate'), format('%s cannot truncate %s', r.name, t.name))
from (values ('anon'), ('authenticated')) as r (name)
cross join (values
  ('public.profiles'), ('public.movies'), ('public.movie_sessions'), ('public.session_members'),
  ('public.session_bans'), ('public.voting_sessions'), ('public.voting_options'), ('public.chat_messages'),
  ('public.votes'), ('public.overlay_tokens')
) as t (name);

select ok(not has_column_privilege('authenticated', c.name, c.attribute, 'update'), format('authenticated cannot update %s.%s', c.name, c.attribute))
from (values
  ('public.profiles', 'role'), ('public.movies', 'vote_total'), ('public.movie_sessions', 'streamer_id'),
  ('public.voting_sessions', 'results'), ('public.chat_messages', 'deleted_by'), ('public.chat_messages', 'created_at')
) as c (name, attribute);

select ok(not has_column_privilege(r.name, 'public.profiles', 'preferences', 'select'), format('%s cannot read preferences', r.name))
from (values ('anon'), ('authenticated')) as r (name);

select is(
  (
    select count(*)::integer
    from pg_constraint f
    where f.contype = 'f' and f.connamespace in ('public'::regnamespace, 'usher'::regnamespace)
      and not exists (
        select 1
        from pg_index i
        where i.indrelid = f.conrelid
          and (i.indkey::smallint[])[0 : cardinality(f.conkey) - 1] @> f.conkey
          and (i.indkey::smallint[])[0 : cardinality(f.conkey) - 1] <@ f.conkey
      )
  ),
  0,
  'each foreign key has an index'
);

select ok(exists (select 1 from pg_roles where rolname = 'usher_gateway' and rolcanlogin and not rolinherit and not rolsuper and not rolbypassrls), 'the gateway can log in, inherits no rights and bypasses no policy');
select ok(pg_has_role('usher_gateway', 'anon', 'member') and pg_has_role('usher_gateway', 'authenticated', 'member'), 'the gateway can become anon and authenticated');
select ok(not pg_has_role('usher_gateway', 'service_role', 'member'), 'the gateway cannot become service_role');

select * from finish();
rollback;
