-- What befalls a session beside its chat: votings, changes, bans. Each goes to the log, and what changes access
-- goes to usher_control.

create function usher.ballot_options(voting uuid) returns json
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_to_json(array_agg(
      (select row_to_json(x) from (select o.movie_id as movie, m.title, m.poster_path as poster) as x)
      order by o.position, o.movie_id
    )), '[]')
    from public.voting_options o
    join public.movies m on m.id = o.movie_id
    where o.voting_session_id = voting
  );
end
$$;

-- Jsonb prints with spaces; what goes out has none. Results of another shape, put there by hand, go as they are.
create function usher.compact_results(results jsonb) returns json
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    '{"total":' || (results ->> 'total') || ',"counts":[' || coalesce((
      select string_agg('{"movie":"' || (e.value ->> 'movie') || '","votes":' || (e.value ->> 'votes') || '}', ',' order by e.n)
      from jsonb_array_elements(
        case when jsonb_typeof(results -> 'counts') = 'array' then results -> 'counts' end
      ) with ordinality as e (value, n)
    ), '') || ']}',
    results::text
  )::json
$$;

-- A voting as it goes out: the row as the Data API returns it, plus the ballot.
create function usher.voting_data(voting uuid) returns json
language sql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  select row_to_json(x)
  from (
    select
      v.id, v.session_id, v.question, v.state, v.opens_at, v.closes_at, v.results_visibility, v.allow_change,
      usher.compact_results(v.results) as results, v.created_at, v.updated_at,
      usher.ballot_options(v.id) as options
    from public.voting_sessions v
    where v.id = voting
  ) as x
$$;

-- Security definer (the rest of this file): run as triggers for any writer of the tables, who may not touch the log.

create function usher.on_votings_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  voting record;
begin
  if tg_op = 'INSERT' then
    for voting in
      select n.id, n.session_id from new_rows n where n.state = 'open' order by n.session_id, n.id
    loop
      perform usher.append_event(voting.session_id, 'voting.opened', usher.voting_data(voting.id));
    end loop;
    return null;
  end if;

  for voting in
    select
      n.id,
      n.session_id,
      case
        when n.state = 'open' and o.state <> 'open' then 'voting.opened'
        when n.state = 'closed' and o.state <> 'closed' then 'voting.closed'
        else 'voting.updated'
      end as type
    from new_rows n
    join old_rows o on o.id = n.id
    where n.state <> 'draft' and to_jsonb(n) - 'updated_at' <> to_jsonb(o) - 'updated_at'
    order by n.session_id, n.id
  loop
    perform usher.append_event(voting.session_id, voting.type, usher.voting_data(voting.id));
  end loop;
  return null;
end
$$;

create function usher.on_votings_deleted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  voting record;
begin
  for voting in
    select o.id, o.session_id from old_rows o where o.state <> 'draft' order by o.session_id, o.id
  loop
    perform usher.append_event(
      voting.session_id, 'voting.deleted',
      (select row_to_json(x) from (select voting.id, voting.session_id) as x)
    );
  end loop;
  return null;
end
$$;

-- A ballot that changes under an open voting. Whoever opens first and adds the options later is served as well.
create function usher.on_options_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  voting record;
begin
  for voting in
    select v.id, v.session_id
    from public.voting_sessions v
    where v.id in (select c.voting_session_id from changed_rows c) and v.state = 'open'
    order by v.session_id, v.id
  loop
    perform usher.append_event(voting.session_id, 'voting.updated', usher.voting_data(voting.id));
    perform usher.bump_votings(array[voting.id]);
  end loop;
  return null;
end
$$;

create function usher.notify_access(session uuid, member uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pg_notify(
    (select c.control from usher.channels c),
    '{"kind":"access"'
    || coalesce(',"session":"' || session || '"', '')
    || coalesce(',"user":"' || member || '"', '')
    || '}'
  )
$$;

-- Says whose access changed, session by session; where it is many in one session, that it may be anybody's.
create function usher.notify_access_of_many(sessions uuid[], members uuid[]) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select usher.notify_access(c.session_id, case when c.count <= 20 then c.user_id end)
  from (
    select d.session_id, d.user_id, count(*) over (partition by d.session_id) as count
    from (select distinct * from unnest(sessions, members) as u (session_id, user_id)) as d
  ) as c
$$;

-- Closes these votings where they are open: first the rows and boxes of all, then the heads of their sessions and of
-- those whose log the caller will write to.
-- Security definer: called by a trigger and by close_due_votings; nobody else may.
create function usher.close_votings(votings uuid[], sessions uuid[]) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  closed integer;
begin
  if coalesce(cardinality(votings), 0) = 0 then
    return 0;
  end if;
  perform 1 from public.voting_sessions v where v.id = any (votings) order by v.id for no key update;
  perform pg_advisory_xact_lock(usher.ballot_lock_key(v.id))
  from (select u.id from unnest(votings) as u (id) order by u.id) as v;
  perform 1
  from usher.session_heads h
  where h.session_id = any (
    sessions || array(select v.session_id from public.voting_sessions v where v.id = any (votings))
  )
  order by h.session_id
  for no key update;
  update public.voting_sessions v set state = 'closed' where v.id = any (votings) and v.state = 'open';
  get diagnostics closed = row_count;
  return closed;
end
$$;

-- Closes the polls of an ended session before it locks the session's log.
-- Security definer: runs as a trigger for any writer of movie_sessions, who may not touch the log.
create function usher.on_sessions_updated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  changed record;
begin
  -- Nobody can vote any more: the result is known, and the log has it before the end.
  perform usher.close_votings(array(
    select v.id
    from new_rows n
    join old_rows o on o.id = n.id
    join public.voting_sessions v on v.session_id = n.id and v.state = 'open'
    where n.status = 'ended' and o.status <> 'ended'
  ), array(select n.id from new_rows n));
  for changed in
    select
      n.id,
      row_to_json(n) as data,
      (n.visibility, n.status, n.streamer_id, n.chat_enabled)
        is distinct from (o.visibility, o.status, o.streamer_id, o.chat_enabled) as is_access
    from new_rows n
    join old_rows o on o.id = n.id
    where to_jsonb(n) - 'updated_at' <> to_jsonb(o) - 'updated_at'
    order by n.id
  loop
    perform usher.append_event(changed.id, 'session.updated', changed.data);
    if changed.is_access then
      perform usher.notify_access(changed.id, null);
    end if;
  end loop;
  return null;
end
$$;

create function usher.on_sessions_gone() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access(o.id, null) from old_rows o;
  return null;
end
$$;

create function usher.append_bans(sessions uuid[], members uuid[], untils timestamptz[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  log record;
begin
  for log in
    select
      b.session_id,
      -- The reason is between the moderators and the user: it does not go out to all.
      array_agg((select row_to_json(x) from (select b.user_id, b.until) as x) order by b.user_id) as datas
    from unnest(sessions, members, untils) as b (session_id, user_id, until)
    group by b.session_id
    order by b.session_id
  loop
    perform usher.append_events(log.session_id, 'member.banned', array_fill(null::uuid, array[cardinality(log.datas)]), log.datas);
  end loop;
  perform usher.notify_access_of_many(sessions, members);
end
$$;

create function usher.on_bans_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.append_bans(array_agg(n.session_id), array_agg(n.user_id), array_agg(n.until))
  from new_rows n
  having count(*) > 0;
  return null;
end
$$;

create function usher.on_bans_updated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.append_bans(array_agg(n.session_id), array_agg(n.user_id), array_agg(n.until))
  from new_rows n
  join old_rows o on o.session_id = n.session_id and o.user_id = n.user_id
  where o.until is distinct from n.until
  having count(*) > 0;
  return null;
end
$$;

create function usher.on_bans_lifted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  ban record;
begin
  for ban in
    select
      o.session_id,
      array_agg((select row_to_json(x) from (select o.user_id) as x) order by o.user_id) as datas
    from old_rows o
    -- Nothing is said of a user who is gone.
    where exists (select 1 from public.profiles p where p.id = o.user_id)
    group by o.session_id
    order by o.session_id
  loop
    perform usher.append_events(ban.session_id, 'member.unbanned', array_fill(null::uuid, array[cardinality(ban.datas)]), ban.datas);
  end loop;
  perform usher.notify_access_of_many(array_agg(o.session_id), array_agg(o.user_id)) from old_rows o having count(*) > 0;
  return null;
end
$$;

create function usher.on_members_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.user_id))
  from changed_rows c
  having count(*) > 0;
  return null;
end
$$;

create function usher.on_profile_role_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access(null, new.id);
  return null;
end
$$;

revoke execute on function
  usher.ballot_options(uuid), usher.compact_results(jsonb), usher.voting_data(uuid), usher.on_votings_changed(),
  usher.on_votings_deleted(), usher.on_options_changed(), usher.notify_access(uuid, uuid),
  usher.notify_access_of_many(uuid[], uuid[]), usher.close_votings(uuid[], uuid[]), usher.on_sessions_updated(), usher.on_sessions_gone(),
  usher.append_bans(uuid[], uuid[], timestamptz[]),
  usher.on_bans_created(), usher.on_bans_updated(), usher.on_bans_lifted(), usher.on_members_changed(), usher.on_profile_role_changed()
  from public;

-- The names matter: `logged` runs before `tallied`, so that sessions are locked before tallies.

create trigger voting_sessions_logged_created
  after insert on public.voting_sessions
  referencing new table as new_rows
  for each statement
  execute function usher.on_votings_changed();

create trigger voting_sessions_logged_updated
  after update on public.voting_sessions
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_votings_changed();

create trigger voting_sessions_logged_deleted
  after delete on public.voting_sessions
  referencing old table as old_rows
  for each statement
  execute function usher.on_votings_deleted();

create trigger voting_options_logged_created
  after insert on public.voting_options
  referencing new table as changed_rows
  for each statement
  execute function usher.on_options_changed();

create trigger voting_options_logged_updated
  after update on public.voting_options
  referencing new table as changed_rows
  for each statement
  execute function usher.on_options_changed();

create trigger voting_options_logged_deleted
  after delete on public.voting_options
  referencing old table as changed_rows
  for each statement
  execute function usher.on_options_changed();

create trigger movie_sessions_logged_updated
  after update on public.movie_sessions
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_sessions_updated();

create trigger movie_sessions_logged_deleted
  after delete on public.movie_sessions
  referencing old table as old_rows
  for each statement
  execute function usher.on_sessions_gone();

create trigger session_bans_logged_created
  after insert on public.session_bans
  referencing new table as new_rows
  for each statement
  execute function usher.on_bans_created();

create trigger session_bans_logged_updated
  after update on public.session_bans
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_bans_updated();

create trigger session_bans_logged_deleted
  after delete on public.session_bans
  referencing old table as old_rows
  for each statement
  execute function usher.on_bans_lifted();

create trigger session_members_logged_created
  after insert on public.session_members
  referencing new table as changed_rows
  for each statement
  execute function usher.on_members_changed();

create trigger session_members_logged_updated
  after update on public.session_members
  referencing new table as changed_rows
  for each statement
  execute function usher.on_members_changed();

create trigger session_members_logged_deleted
  after delete on public.session_members
  referencing old table as changed_rows
  for each statement
  execute function usher.on_members_changed();

create trigger profiles_logged_role
  after update on public.profiles
  for each row
  when (old.role is distinct from new.role)
  execute function usher.on_profile_role_changed();
