-- The events of a session other than chat: polls, changes of the session, and bans. Each goes to the log. Changes of
-- access also go to the channel usher_control.

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

-- Prints poll results without spaces, because jsonb prints them with spaces. Results of any other shape, written by
-- hand, stay unchanged.
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

-- Returns a poll as the gateway sends it: the row as the Data API returns it, plus the ballot. With `earlier_state`, it
-- shows the poll in that state, without results.
create function usher.voting_data(voting uuid, earlier_state text) returns json
language sql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  select row_to_json(x)
  from (
    select
      v.id, v.session_id, v.question, coalesce(earlier_state, v.state) as state, v.opens_at, v.closes_at,
      v.results_visibility, v.allow_change,
      usher.compact_results(case when earlier_state is null then v.results end) as results, v.created_at, v.updated_at,
      usher.ballot_options(v.id) as options
    from public.voting_sessions v
    where v.id = voting
  ) as x
$$;

-- Security definer (all triggers below): they run for any writer of their tables; writers have no rights on the log.

create function usher.on_voting_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  type text;
begin
  if tg_op = 'INSERT' then
    type := case when new.state = 'open' then 'voting.opened' end;
  elsif new.state <> 'draft' and to_jsonb(new) - 'updated_at' <> to_jsonb(old) - 'updated_at' then
    type := case
      when new.state = 'open' and old.state <> 'open' then 'voting.opened'
      when new.state = 'closed' and old.state <> 'closed' then 'voting.closed'
      else 'voting.updated'
    end;
  end if;
  if type is not null then
    perform usher.record_event(new.session_id, type, new.id, null);
  end if;
  return null;
end
$$;

-- Records nothing if the session is deleted too, because its log goes with it.
create function usher.on_voting_deleted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  perform 1 from public.movie_sessions s where s.id = old.session_id;
  if found and old.state <> 'draft' then
    perform usher.record_event(
      old.session_id, 'voting.deleted', old.id,
      (select row_to_json(x) from (select old.id, old.session_id) as x)
    );
  end if;
  return null;
end
$$;

-- Records a change of the ballot of an open poll. So it also works to open a poll first and add its options later.
create function usher.on_option_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  voting record;
begin
  for voting in
    select v.id, v.session_id
    from public.voting_sessions v
    -- Two polls, if an owner moves an option to another ballot.
    where v.id in (old.voting_session_id, new.voting_session_id) and v.state = 'open'
  loop
    perform usher.record_event(voting.session_id, 'voting.updated', voting.id, null);
    perform usher.record_vote(voting.id, '00000000-0000-0000-0000-000000000000', 0);
  end loop;
  return null;
end
$$;

create function usher.notify_access(session uuid, member uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
set trace_notify = off
as $$
  select pg_notify(
    (select c.control from usher.channels c where c.only_row),
    '{"kind":"access"'
    || coalesce(',"session":"' || session || '"', '')
    || coalesce(',"user":"' || member || '"', '')
    || '}'
  )
$$;

-- Notifies the gateway whose access changed, once per user and session. Above 20 users in a session, one notice covers
-- the whole session.
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

-- Closes the open ones among these polls. It first locks all rows and then all ballots, each in the order of ids.
-- Security definer: called only by a trigger and by close_due_votings.
create function usher.close_votings(votings uuid[]) returns integer
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
  update public.voting_sessions v set state = 'closed' where v.id = any (votings) and v.state = 'open';
  get diagnostics closed = row_count;
  return closed;
end
$$;

create function usher.on_session_updated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  if to_jsonb(new) - 'updated_at' = to_jsonb(old) - 'updated_at' then
    return null;
  end if;
  if new.status = 'ended' and old.status <> 'ended' then
    -- Keeps the place in the log for the close of the poll, which comes before the update: see on_sessions_ended.
    perform usher.record_event(new.id, 'session.ended', null, null);
  end if;
  perform usher.record_event(new.id, 'session.updated', new.id, null);
  if (new.visibility, new.status, new.streamer_id, new.chat_enabled)
    is distinct from (old.visibility, old.status, old.streamer_id, old.chat_enabled)
  then
    perform usher.notify_access(new.id, null);
  end if;
  if (new.visibility = 'private') <> (old.visibility = 'private') then
    -- Votes in private sessions are not in the movies' totals.
    insert into usher.vote_total_changes (voting_session_id)
    select v.id from public.voting_sessions v where v.session_id = new.id;
  end if;
  return null;
end
$$;

-- Closes the polls of ended sessions. It closes all polls of one statement together, so that locks are taken in one
-- order. An ended session accepts no votes, so the result is final. The event of the close comes before the session's
-- own event.
create function usher.on_sessions_ended() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
-- A plan that was made for one session would compare every row with every other.
set enable_nestloop = off
as $$
declare
  ended record;
begin
  perform usher.gather_events();
  with places as (
    delete from usher.pending_events p
    where p.xact = pg_current_xact_id() and p.type = 'session.ended'
    returning p.session_id, p.n
  )
  select array_agg(v.id) as votings, array_agg(v.n) as places
  into ended
  from (
    select
      p.n,
      (select o.id from public.voting_sessions o where o.session_id = p.session_id and o.state = 'open') as id
    from places p
  ) as v
  where v.id is not null;
  if ended.votings is not null then
    perform usher.close_votings(ended.votings);
    update usher.pending_events p
    set n = v.n
    from unnest(ended.votings, ended.places) as v (id, n)
    where p.xact = pg_current_xact_id() and p.type = 'voting.closed' and p.subject = v.id;
  end if;
  return null;
end
$$;

create function usher.on_session_gone() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.notify_access(old.id, null);
  return null;
end
$$;

-- The event leaves out the reason of a ban, which is only for the user and the moderators.
create function usher.on_ban_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
as $$
begin
  if tg_op <> 'DELETE' then
    perform usher.record_event(
      new.session_id, 'member.banned', null,
      (select row_to_json(x) from (select new.user_id, new.until) as x)
    );
    return null;
  end if;
  -- Records nothing if the user or the session is deleted.
  perform 1
  from public.profiles p
  join public.movie_sessions s on s.id = old.session_id
  where p.id = old.user_id;
  if found then
    perform usher.record_event(
      old.session_id, 'member.unbanned', null, (select row_to_json(x) from (select old.user_id) as x)
    );
  end if;
  return null;
end
$$;

-- Notifies the gateway whose access changed, once per statement, so that many changes go together.
create function usher.on_bans_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' then
    -- `except` instead of a join: there is no index, and a plan that was made for one row would compare every row with
    -- every other.
    perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.user_id))
    from (
      select n.session_id, n.user_id, n.until from changed_rows n
      except
      select o.session_id, o.user_id, o.until from old_rows o
    ) as c
    having count(*) > 0;
    return null;
  end if;
  perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.user_id))
  from changed_rows c
  having count(*) > 0;
  return null;
end
$$;

create function usher.on_members_changed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' then
    -- A table owner may move a membership to another user. Then the previous member loses access too.
    perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.user_id))
    from (
      select n.session_id, n.user_id from changed_rows n
      union
      select o.session_id, o.user_id from old_rows o
    ) as c
    having count(*) > 0;
    return null;
  end if;
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
  usher.ballot_options(uuid), usher.compact_results(jsonb), usher.voting_data(uuid, text), usher.on_voting_changed(),
  usher.on_voting_deleted(), usher.on_option_changed(), usher.notify_access(uuid, uuid),
  usher.notify_access_of_many(uuid[], uuid[]), usher.close_votings(uuid[]), usher.on_session_updated(),
  usher.on_sessions_ended(), usher.on_session_gone(), usher.on_ban_changed(), usher.on_bans_changed(),
  usher.on_members_changed(), usher.on_profile_role_changed()
  from public;

create trigger "00_usher_logged"
  after insert or update on public.voting_sessions
  for each row
  execute function usher.on_voting_changed();

create trigger "00_usher_deleted"
  after delete on public.voting_sessions
  for each row
  execute function usher.on_voting_deleted();

create trigger "00_usher_logged"
  after insert or update or delete on public.voting_options
  for each row
  execute function usher.on_option_changed();

create trigger "00_usher_updated"
  after update on public.movie_sessions
  for each row
  when (old.* is distinct from new.*)
  execute function usher.on_session_updated();

create trigger movie_sessions_ended
  after update on public.movie_sessions
  for each statement
  execute function usher.on_sessions_ended();

create trigger movie_sessions_gone
  after delete on public.movie_sessions
  for each row
  execute function usher.on_session_gone();

create trigger "00_usher_banned"
  after insert or delete on public.session_bans
  for each row
  execute function usher.on_ban_changed();

create trigger "00_usher_changed"
  after update on public.session_bans
  for each row
  when (old.until is distinct from new.until)
  execute function usher.on_ban_changed();

create trigger session_bans_logged_created
  after insert on public.session_bans
  referencing new table as changed_rows
  for each statement
  execute function usher.on_bans_changed();

create trigger session_bans_logged_updated
  after update on public.session_bans
  referencing old table as old_rows new table as changed_rows
  for each statement
  execute function usher.on_bans_changed();

create trigger session_bans_logged_deleted
  after delete on public.session_bans
  referencing old table as changed_rows
  for each statement
  execute function usher.on_bans_changed();

create trigger session_members_logged_created
  after insert on public.session_members
  referencing new table as changed_rows
  for each statement
  execute function usher.on_members_changed();

create trigger session_members_logged_updated
  after update on public.session_members
  referencing old table as old_rows new table as changed_rows
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

create trigger session_members_truncated
  before truncate on public.session_members
  for each statement
  execute function usher.refuse_truncate();

create trigger session_bans_truncated
  before truncate on public.session_bans
  for each statement
  execute function usher.refuse_truncate();
