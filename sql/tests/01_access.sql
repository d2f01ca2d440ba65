-- Who may touch what at all: grants, before any policy.
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
  'no table of usher is granted to anybody'
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
  'anon executes admission, the reading of chat and the predicates of policies, nothing else'
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
  'the gateway executes its own functions, nothing else'
);

-- With an empty path Postgres looks for types and tables in pg_temp first. A function that a security definer function
-- calls runs as its owner too, so every function has the path. SQL-standard bodies are resolved at creation.
select is_empty(
  $$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace in ('usher'::regnamespace, 'public'::regnamespace)
      and p.prosqlbody is null
      and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
      and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
  $$,
  'every function looks in pg_catalog first and in pg_temp last'
);

-- A caller who turns trace_notify on is sent the names of the channels.
select is_empty(
  $$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace = 'usher'::regnamespace
      and p.prosrc ~ '\mpg_notify\M'
      and not coalesce(p.proconfig @> array['trace_notify=off'], false)
  $$,
  'no function that notifies names its channel to the caller'
);

select ok(not has_table_privilege(r.name, t.name, 'truncate'), format('%s may not truncate %s', r.name, t.name))
from (values ('anon'), ('authenticated')) as r (name)
cross join (values
  ('public.profiles'), ('public.movies'), ('public.movie_sessions'), ('public.session_members'),
  ('public.session_bans'), ('public.voting_sessions'), ('public.voting_options'), ('public.chat_messages'),
  ('public.votes'), ('public.overlay_tokens')
) as t (name);

select ok(not has_column_privilege('authenticated', c.name, c.attribute, 'update'), format('nobody updates %s.%s', c.name, c.attribute))
from (values
  ('public.profiles', 'role'), ('public.movies', 'vote_total'), ('public.movie_sessions', 'streamer_id'),
  ('public.voting_sessions', 'results'), ('public.chat_messages', 'deleted_by'), ('public.chat_messages', 'created_at')
) as c (name, attribute);

select ok(not has_column_privilege(r.name, 'public.profiles', 'preferences', 'select'), format('%s does not read preferences', r.name))
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

select ok(exists (select 1 from pg_roles where rolname = 'usher_gateway' and rolcanlogin and not rolinherit and not rolsuper and not rolbypassrls), 'the gateway logs in, inherits nothing, bypasses nothing');
select ok(pg_has_role('usher_gateway', 'anon', 'member') and pg_has_role('usher_gateway', 'authenticated', 'member'), 'the gateway may become anon and authenticated');
select ok(not pg_has_role('usher_gateway', 'service_role', 'member'), 'the gateway may not become service_role');

select * from finish();
rollback;
