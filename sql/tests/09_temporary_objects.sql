-- Temporary objects: no function may run a caller's code with the rights of its owner.
--
-- If search_path does not list pg_temp last, Postgres searches it first for types and relations. A caller could then
-- create a temporary domain named uuid, and any security definer function that uses `uuid` would run the domain's CHECK.
--
-- In this test, each role with any rights creates temporary domains, types with casts, views, functions and operators
-- with the names that Usher's functions use. Then it calls every function that it may execute, and fires every trigger
-- that it can. Each of these objects checks which role runs it.
--
-- The calls come from the catalog, so a new function is covered without a change here. The last assertion lists
-- functions that no call reaches; add a line for them to `writes`.
begin;
create extension if not exists pgtap;
-- The tests act as the gateway. A superuser may do that already; Supabase's `postgres` first needs the role.
do $$
begin
  -- Since Postgres 16, the creator of a role is a member that cannot become the role.
  if not pg_has_role(
    session_user, 'usher_gateway', case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end
  ) then
    execute format('grant usher_gateway to %I', session_user);
  end if;
end
$$;
select plan(9);

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;

-- 1 is the streamer, 2 a viewer, 3 is banned, 4 gets deleted.
insert into auth.users (id, raw_user_meta_data)
select pg_temp.id('aa', n), jsonb_build_object('username', 'tap_' || n) from generate_series(1, 4) as n;
update public.profiles set role = 'admin' where id = pg_temp.id('aa', 1);
insert into public.movies (id, title, created_by)
select pg_temp.id('ff', n), 'Movie ' || n, pg_temp.id('aa', 1) from generate_series(1, 4) as n;
-- 1 is public, 2 has slow mode and is for members, 3 gets deleted.
insert into public.movie_sessions (id, streamer_id, title, status, visibility, slow_mode_seconds)
values
  (pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'one', 'live', 'public', 0),
  (pg_temp.id('5e', 2), pg_temp.id('aa', 1), 'two', 'live', 'members', 5),
  (pg_temp.id('5e', 3), pg_temp.id('aa', 4), 'three', 'live', 'public', 0);
insert into public.session_members (session_id, user_id)
select pg_temp.id('5e', 2), pg_temp.id('aa', n) from generate_series(1, 2) as n;
insert into public.session_bans (session_id, user_id) values (pg_temp.id('5e', 1), pg_temp.id('aa', 3));
-- 1 is open, 2 is a draft, 3 is open and past its closing time.
insert into public.voting_sessions (id, session_id, question, opens_at)
values
  (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'one?', null),
  (pg_temp.id('bb', 2), pg_temp.id('5e', 1), 'two?', null),
  (pg_temp.id('bb', 3), pg_temp.id('5e', 2), 'three?', now() - interval '1 hour');
insert into public.voting_options (voting_session_id, movie_id)
select pg_temp.id('bb', v), pg_temp.id('ff', m) from generate_series(1, 3) as v cross join generate_series(1, 2) as m;
update public.voting_sessions
set state = 'open', closes_at = case id when pg_temp.id('bb', 3) then now() - interval '1 minute' end
where id <> pg_temp.id('bb', 2);
insert into public.votes (voting_session_id, user_id, movie_id)
values (pg_temp.id('bb', 1), pg_temp.id('aa', 2), pg_temp.id('ff', 1));
insert into public.chat_messages (id, session_id, user_id, body)
select pg_temp.id('cc', n), pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'text ' || n from generate_series(1, 3) as n;
insert into public.overlay_tokens (id, session_id, label, expires_at)
values (pg_temp.id('dd', 1), pg_temp.id('5e', 1), 'obs', now() + interval '1 day');
do $$
begin
  if has_table_privilege('auth.users', 'insert with grant option') then
    grant insert, delete on auth.users to service_role;
  end if;
  perform usher.settle();
end
$$;

-- The calls --------------------------------------------------------------------------------------------------

-- Returns a value for an argument, as SQL. All ids are of one kind. Other types have one fixed value each.
create function pg_temp.argument(name text, type regtype, kind text, batch jsonb) returns text
language sql
as $$
  select case
    when kind is null then 'null'
    when name = 'batch' and type = 'jsonb'::regtype then quote_literal(batch)
    when type = 'uuid'::regtype then quote_literal(pg_temp.id(kind, 1))
    when type = 'uuid[]'::regtype then quote_literal(array[pg_temp.id(kind, 1), pg_temp.id(kind, 2), pg_temp.id(kind, 3)])
    when type = 'boolean[]'::regtype then '''{t,t,f}'''
    when type = 'boolean'::regtype then '''t'''
    when type = 'text'::regtype then '''draft'''
    when type = 'text[]'::regtype then '''{draft,open}'''
    when name = 'max_count' then '''100'''
    when type in ('integer'::regtype, 'bigint'::regtype, 'smallint'::regtype) then '''5'''
    when type in ('json'::regtype, 'jsonb'::regtype) then '''{"username": "wish", "total": 1}'''
    when type = 'interval'::regtype then '''1 day'''
    when type = 'timestamptz'::regtype then '''2026-01-01'''
    else 'null'
  end || (select format('::pg_catalog.%I', t.typname) from pg_type t where t.oid = type)
$$;

-- Returns a batch for both post_messages and cast_votes: each item has the fields of a message and of a vote.
create function pg_temp.batch() returns jsonb
language sql
as $$
  select jsonb_agg(jsonb_build_object(
    'role', role.name,
    'claims', jsonb_build_object('sub', pg_temp.id('aa', author), 'role', role.name),
    'session', pg_temp.id('5e', session), 'nonce', pg_temp.id('0e', author), 'body', body, 'reply_to', pg_temp.id('cc', 1),
    'voting', pg_temp.id('bb', session), 'movie', case when body <> '' then pg_temp.id('ff', 2) end
  ))
  from (values ('authenticated'), ('anon')) as role (name)
  cross join generate_series(1, 3) as author
  cross join generate_series(1, 2) as session
  cross join (values ('hello'), ('')) as text (body)
$$;

create temp table calls (role name, claims jsonb, statement text);

-- Every function that a role may execute: with nulls, and with ids of each kind if it takes ids.
insert into calls (role, claims, statement)
select r.name, c.claims, format(
  'select * from %I.%I(%s)', f.schema, f.proname,
  (
    select string_agg(
      pg_temp.argument(coalesce(f.proargnames[a.n], ''), f.proargtypes[a.n - 1], k.kind, pg_temp.batch()), ', ' order by a.n
    )
    from generate_series(1, f.pronargs) as a (n)
  )
)
from (
  select p.*, p.pronamespace::regnamespace::text as schema
  from pg_proc p
  where p.pronamespace in ('usher'::regnamespace, 'public'::regnamespace) and p.prorettype <> 'trigger'::regtype
    and p.prokind = 'f' and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
) as f
cross join (values ('usher_gateway'), ('anon'), ('authenticated'), ('service_role')) as r (name)
cross join (values (null), ('5e'), ('bb'), ('cc'), ('aa'), ('dd')) as k (kind)
join (values
  ('usher_gateway', '{}'::jsonb),
  ('service_role', '{"role": "service_role"}'),
  ('anon', jsonb_build_object('role', 'anon', 'sub', pg_temp.id('dd', 1), 'usher_overlay', pg_temp.id('5e', 1))),
  ('authenticated', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.id('aa', 1))),
  ('authenticated', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.id('aa', 2)))
) as c (role, claims) on c.role = r.name
where has_function_privilege(r.name, f.oid, 'execute')
  and (k.kind is null or k.kind = '5e' or f.proargtypes::oid[] && array['uuid'::regtype::oid, 'uuid[]'::regtype::oid]);

-- Every trigger. $id(kind,n) is one of the rows above. Each statement runs alone, once as an admin and streamer and
-- once as service_role.
create temp table writes (statement text);
insert into writes
values
  ($$insert into public.chat_messages (session_id, user_id, body) values ($id(5e,1), $id(aa,1), 'new')$$),
  ($$insert into public.chat_messages (session_id, user_id, body) values ($id(5e,1), $id(aa,1), 'new'), ($id(5e,2), $id(aa,1), 'new')$$),
  ($$update public.chat_messages set body = 'edited'$$),
  ($$insert into public.chat_messages (session_id, user_id, body, deleted_at) values ($id(5e,1), $id(aa,1), 'new', 'now')$$),
  -- Counts as the 20th row of its statement.
  ($$update public.chat_messages set body = 'edited' where set_config('usher.messages_changed', '19', true) <> ''$$),
  ($$insert into public.chat_messages (session_id, user_id, body) values ($id(5e,1), $id(aa,1), ' ')$$),
  ($$update public.chat_messages set deleted_at = 'now'$$),
  ($$delete from public.chat_messages$$),
  ($$insert into public.votes (voting_session_id, user_id, movie_id) values ($id(bb,1), $id(aa,1), $id(ff,1)) on conflict (voting_session_id, user_id) do update set movie_id = $id(ff,2)$$),
  ($$update public.votes set movie_id = $id(ff,2)$$),
  ($$delete from public.votes$$),
  ($$insert into public.voting_sessions (session_id, question) values ($id(5e,1), 'new?')$$),
  ($$update public.voting_sessions set question = 'edited?', results_visibility = 'after_close'$$),
  ($$update public.voting_sessions set state = 'closed' where id = $id(bb,1)$$),
  ($$delete from public.voting_sessions where id = $id(bb,2)$$),
  ($$delete from public.voting_sessions$$),
  ($$insert into public.voting_options (voting_session_id, movie_id) values ($id(bb,1), $id(ff,3))$$),
  ($$update public.voting_options set position = 7$$),
  ($$delete from public.voting_options where voting_session_id = $id(bb,2)$$),
  ($$insert into public.movie_sessions (streamer_id, title) values ($id(aa,1), 'new')$$),
  ($$update public.movie_sessions set title = 'edited', slow_mode_seconds = 7$$),
  ($$update public.movie_sessions set status = 'ended'$$),
  ($$update public.movie_sessions set visibility = 'private'$$),
  ($$delete from public.movie_sessions$$),
  ($$insert into public.session_members (session_id, user_id, role) values ($id(5e,1), $id(aa,4), 'moderator')$$),
  ($$update public.session_members set role = 'moderator'$$),
  ($$delete from public.session_members$$),
  ($$insert into public.session_bans (session_id, user_id, banned_by) values ($id(5e,1), $id(aa,2), $id(aa,1))$$),
  ($$update public.session_bans set until = 'tomorrow', banned_by = $id(aa,1)$$),
  ($$delete from public.session_bans$$),
  ($$update public.profiles set username = 'renamed', display_name = 'Renamed', preferences = '{}' where id = $id(aa,1)$$),
  ($$update public.profiles set role = 'streamer' where id = $id(aa,2)$$),
  ($$delete from public.profiles$$),
  ($$insert into public.movies (title, created_by) values ('new', $id(aa,1))$$),
  ($$update public.movies set title = 'edited'$$),
  ($$delete from public.movies where id = $id(ff,4)$$),
  ($$update public.overlay_tokens set revoked_at = 'now'$$),
  ($$delete from public.overlay_tokens$$),
  ($$select public.issue_overlay_token($id(5e,1), $id(aa,1))$$),
  ($$insert into auth.users (id, raw_user_meta_data) values ($id(aa,9), '{"username": "tap_1", "name": "  "}')$$),
  ($$delete from auth.users$$);

insert into calls (role, claims, statement)
select
  r.name,
  jsonb_build_object('role', r.name) || case r.name
    when 'authenticated' then jsonb_build_object('sub', pg_temp.id('aa', 1)) else '{}'
  end,
  (
    select string_agg(coalesce(quote_literal(pg_temp.id(p.parts[2], p.parts[3]::integer)), p.parts[1]), '' order by p.n)
    from regexp_matches(w.statement, '(.*?)(?:\$id\((\w+),(\d+)\)|$)', 'g') with ordinality as m (parts, n)
    cross join lateral (values (array[m.parts[1], null, null], 2 * m.n), (m.parts, 2 * m.n + 1)) as p (parts, n)
    where p.parts[2] is not null or p.n % 2 = 0
  )
from writes w
cross join (values ('authenticated'), ('service_role')) as r (name);

-- The caller's own objects -----------------------------------------------------------------------------------

-- Returns the statements that create a role's temporary objects. The function `spy` detects that it runs as a role that
-- the attacker cannot become. It then raises, and counts in a sequence, which a rollback does not undo.
--
-- The two kinds take the names of types differently: as domains with a CHECK, or as types with casts. Both also create
-- views with the names of tables, functions and operators.
create function pg_temp.arsenal(role name, kind text) returns setof text
language plpgsql
as $$
declare
  sources constant text := (select string_agg(p.prosrc, ' ') from pg_proc p where p.pronamespace = 'usher'::regnamespace);
  words constant name[] := array(select distinct m[1] from regexp_matches(sources, '[a-z]\w*', 'g') as m);
  -- The types that Usher's functions name, and those that casts between them use.
  types constant name[] := array(
    select t.typname
    from pg_type t
    where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'r', 'm') and t.typcategory <> 'A'
      and (
        t.typname = any (words)
        or t.typname in ('varchar', 'bool', 'int2', 'int4', 'int8', 'numeric', 'oid', 'regclass')
      )
    order by t.typname
  );
begin
  return next 'create sequence pg_temp.caught; grant all on sequence pg_temp.caught to public';
  return next format(
    $spy$
      create function pg_temp.spy(value anyelement) returns bool
      language plpgsql
      as $body$
      begin
        if not pg_catalog.pg_has_role(%L, current_user, 'member') then
          perform pg_catalog.nextval('pg_temp.caught');
          raise exception using errcode = 'MX666', message = 'runs as ' || current_user;
        end if;
        return true;
      end
      $body$
    $spy$,
    role
  );
  return next $spy$
    create function pg_temp.spy_on_rows() returns trigger
    language plpgsql
    as $body$ begin perform pg_temp.spy(1); return new; end $body$
  $spy$;

  if kind = 'domains' then
    return query
      select format('create domain pg_temp.%1$I as pg_catalog.%1$I check (pg_temp.spy(value))', n.name)
      from unnest(types || array(select '_' || u from unnest(types) as u)::name[]) as n (name);
    return next 'create type pg_temp.anything as (a text, b text, c text)';
    return next 'create domain pg_temp.record as pg_temp.anything check (pg_temp.spy(1))';
  else
    return query select format('create type pg_temp.%I as enum (%L)', n, 'x') from unnest(types || 'record'::name) as n;
    return query
      select format(
        $cast$
          create function pg_temp.%3$I(source pg_catalog.%2$I) returns pg_temp.%1$I
          language plpgsql
          as 'begin perform pg_temp.spy(1); return ''x''; end';
          create cast (pg_catalog.%2$I as pg_temp.%1$I) with function pg_temp.%3$I(pg_catalog.%2$I) as implicit
        $cast$,
        target, source, 'to_' || target
      )
      from unnest(types) as target
      cross join unnest('{text,uuid,jsonb,int4,int8,bool,timestamptz}'::name[]) as source;
  end if;

  -- Views with the names of Usher's tables, and of the transition tables in triggers.
  return query
    select format(
      $view$
        create view pg_temp.%1$I as select %2$s where pg_temp.spy(1);
        create trigger spy instead of insert or update or delete on pg_temp.%1$I
          for each row execute function pg_temp.spy_on_rows();
        grant all on pg_temp.%1$I to public
      $view$,
      v.name, v.columns
    )
    from (
      select
        c.relname as name,
        string_agg(format('null::%s as %I', a.atttypid::regtype, a.attname), ', ' order by a.attnum) as columns
      from pg_class c
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relkind = 'r'
        and (c.relnamespace in ('public'::regnamespace, 'usher'::regnamespace) or c.oid = 'auth.users'::regclass)
      group by c.relname
      union all
      select r, 'null::uuid as id, null::uuid as session_id'
      from unnest('{new_rows,old_rows,changed_rows}'::name[]) as r
    ) as v;

  -- Functions with the names that Usher's functions call, and operators.
  return query
    select format(
      'create function pg_temp.%I(%s) returns %s language plpgsql as %L',
      p.proname, pg_get_function_identity_arguments(p.oid), p.prorettype::regtype,
      'begin perform pg_temp.spy(1); return null; end'
    )
    from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and not p.proretset and p.provariadic = 0
      and not (p.proargtypes::oid[] || p.prorettype) && array(select t.oid from pg_type t where t.typtype = 'p')
      and p.proname = any (words);
  return query
    select format(
      $operator$
        create function pg_temp.%5$I(l %2$s, r %3$s) returns %4$s
        language plpgsql
        as 'begin perform pg_temp.spy(1); return null; end';
        create operator pg_temp.%1$s (leftarg = %2$s, rightarg = %3$s, function = pg_temp.%5$I)
      $operator$,
      o.oprname, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype, 'operator_' || o.oid
    )
    from pg_operator o
    where o.oprnamespace = 'pg_catalog'::regnamespace and position(' ' || o.oprname || ' ' in sources) > 0
      and (o.oprleft = o.oprright or o.oprleft in ('json'::regtype, 'jsonb'::regtype))
      and array[o.oprleft, o.oprright] <@ array(
        select t.oid from pg_type t where t.typnamespace = 'pg_catalog'::regnamespace and t.typname = any (types)
      );
end
$$;

-- Creates the objects as a role, tries all calls of that role with a search path, and undoes everything. Returns the
-- calls that ran the role's code as the owner, or ''.
create function pg_temp.attack(attacker name, kind text, attacked_path text) returns text
language plpgsql
-- So that this function does not use the objects that it creates.
set search_path = pg_catalog, pg_temp
as $$
declare
  made text;
  ours regprocedure;
  try pg_temp.calls;
  state text;
  context text;
  caught text[] := '{}';
  notes_before bigint := 0;
  notes bigint;
begin
  -- A function keeps the plans from its first call. Altering it makes Postgres parse it again.
  for ours in
    select p.oid
    from pg_proc p
    where p.pronamespace in ('usher'::regnamespace, 'public'::regnamespace) and p.prokind = 'f'
      and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
  loop
    execute format('alter function %s cost 100', ours);
  end loop;
  for made in select a.made from pg_temp.arsenal(attacker, kind) as a (made) loop
    perform set_config('role', attacker, true);
    execute made;
    perform set_config('role', 'none', true);
  end loop;

  for try in select * from pg_temp.calls c where c.role = attacker loop
    begin
      perform set_config('request.jwt.claims', try.claims::text, true), set_config('role', attacker, true);
      perform set_config('search_path', attacked_path, true);
      execute try.statement;
      -- Runs the deferred triggers as the commit would. A caller cannot do this at any other time.
      set constraints all immediate;
      perform set_config('role', 'none', true);
      perform usher.settle();
      raise exception using errcode = 'MX000';
    exception
      when others then
        get stacked diagnostics state = returned_sqlstate, context = pg_exception_context;
    end;
    select s.last_value + s.is_called::integer into notes from pg_temp.caught s;
    if state = 'MX666' or notes > notes_before + 1 then
      caught := caught || format(E'%s\n%s', try.statement, case state when 'MX666' then context end);
      notes_before := notes - 1;
    end if;
  end loop;
  raise exception using errcode = 'MX001', message = array_to_string(caught[1:3], E'\n');
exception
  when sqlstate 'MX001' then
    return sqlerrm;
end
$$;

-- Only a superuser may set this. Other owners try the same calls without the check of reached functions.
do $$
begin
  set local track_functions = 'all';
exception
  when insufficient_privilege then null;
end
$$;

select is(
  pg_temp.attack(r.role, a.kind, a.path), '',
  format('no code of %s runs as the owner: %s, with the path %s', r.role, a.kind, a.path)
)
from (values ('usher_gateway'), ('anon'), ('authenticated'), ('service_role')) as r (role)
cross join (values ('domains', '""'), ('types', 'pg_temp, pg_catalog')) as a (kind, path);

select case when current_setting('track_functions') <> 'all' then skip('calls are not counted', 1) else is_empty(
  $$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace in ('usher'::regnamespace, 'public'::regnamespace) and p.prokind = 'f'
      -- Postgres resolved this body at creation and may inline it.
      and p.prosqlbody is null
      and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
      and coalesce(pg_stat_get_xact_function_calls(p.oid), 0) = 0
      -- The first two only raise, and Postgres does not count calls that raise. Only the owner's functions call the
      -- third.
      and p.oid not in (
        'usher.refuse_truncate()'::regprocedure, 'usher.refuse_blank_message()'::regprocedure,
        'usher.append_event(uuid, text, json)'::regprocedure
      )
  $$,
  'a call reaches every function'
) end;

select * from finish();
rollback;
