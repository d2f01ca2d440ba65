-- Deleting an account or a session: the order of locks, and the traces in the log.
--
-- All writers take locks in one order, so that they cannot deadlock:
--
-- 1. sessions and accounts
-- 2. messages
-- 3. polls
-- 4. ballot locks, by poll
-- 5. at the commit, in usher.settle: heads by session, log rows, then tallies by poll and movie
--
-- Before a session or an account is deleted, the triggers here take these locks in this order, because the cascade
-- would take them in another.
--
-- If one statement deletes several sessions, it still takes them one by one, in the order of its rows. A vote at that
-- moment may fail and need to be cast again.

-- The log does not name a deleted person, neither by name nor by id. A person's messages are deleted with the account.
-- It keeps the actions of moderators against that person, and the person's own actions as a moderator or streamer.

-- A partial index over few log rows. Messages have their own index.
create index session_events_person_idx on usher.session_events (
  (coalesce(data ->> 'deleted_by', data ->> 'user_id', data ->> 'streamer_id'))
)
where type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated');

-- Returns the sessions whose log contains these people's ids.
-- Security definer (the next two): called only by usher.settle.
create function usher.logs_naming(people uuid[]) returns uuid[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return array(
    select distinct e.session_id
    from usher.session_events e
    where coalesce(e.data ->> 'deleted_by', e.data ->> 'user_id', e.data ->> 'streamer_id') = any (people::text[])
      and e.type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated')
  );
end
$$;

-- Removes people's ids from the log.
create function usher.forget_people(people uuid[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  person uuid;
begin
  foreach person in array people loop
    with named as (
      select e.session_id, e.seq, e.message_id
      from usher.session_events e
      where coalesce(e.data ->> 'deleted_by', e.data ->> 'user_id', e.data ->> 'streamer_id') = person::text
        and e.type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated')
    ),
    -- The earlier rows of a deleted message contain the same id.
    affected as (
      select n.session_id, n.seq from named n
      union
      select e.session_id, e.seq
      from usher.session_events e
      where e.message_id = any (array(select n.message_id from named n where n.message_id is not null))
    )
    update usher.session_events e
    set data = usher.forget_in(e.data, person)
    from affected a
    where e.session_id = a.session_id and e.seq = a.seq;
  end loop;
end
$$;

-- Returns the data of an event without a person's id.
create function usher.forget_in(data json, person uuid) returns json
language sql
immutable
return replace(
  replace(data::text, '"deleted_by":"' || person || '"', '"deleted_by":null'),
  '"' || person || '"', '"00000000-0000-0000-0000-000000000000"'
)::json;

-- Takes the locks that deleting these sessions or this account needs before the commit.
-- Security definer: called only by the two triggers below.
create function usher.lock_for_deletion(sessions uuid[], account uuid) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  perform 1
  from public.chat_messages m
  where m.user_id = account
  order by m.session_id, m.created_at
  for update;
  perform 1
  from public.chat_messages m
  where m.session_id = any (sessions)
  order by m.session_id, m.created_at
  for update;
  -- Not `for update`: a voter who holds the ballot lock may still need the poll's key for the tally.
  perform 1 from public.voting_sessions v where v.session_id = any (sessions) order by v.id for no key update;
  perform case
    when b.goes then pg_advisory_xact_lock(usher.ballot_lock_key(b.voting_id))
    else pg_advisory_xact_lock_shared(usher.ballot_lock_key(b.voting_id))
  end
  from (
    select u.voting_id, bool_or(u.goes) as goes
    from (
      select v.id as voting_id, true as goes from public.voting_sessions v where v.session_id = any (sessions)
      union all
      select w.voting_session_id, false from public.votes w where w.user_id = account
    ) as u
    group by u.voting_id
    order by u.voting_id
  ) as b;
end
$$;

-- Security definer (the next two): run as triggers for the user who deletes; users have no rights on the log.
create function usher.on_session_deleting() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.lock_for_deletion(array[old.id], null);
  return old;
end
$$;

create function usher.on_profile_deleting() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  perform usher.lock_for_deletion(
    array(select s.id from public.movie_sessions s where s.streamer_id = old.id order by s.id for update), old.id
  );
  -- The log is redacted at the commit. Events that this transaction has recorded so far are redacted here.
  perform usher.gather_events();
  update usher.pending_events p
  set data = usher.forget_in(p.data, old.id)
  where p.xact = pg_current_xact_id() and p.data is not null;
  perform usher.record_event(null, 'account.deleted', old.id, null);
  -- A token can outlive its account. Its holder may then watch like a stranger, but not write.
  perform usher.notify_access(null, old.id);
  return old;
end
$$;

revoke execute on function
  usher.logs_naming(uuid[]), usher.forget_people(uuid[]), usher.forget_in(json, uuid), usher.lock_for_deletion(uuid[], uuid), usher.on_session_deleting(),
  usher.on_profile_deleting()
  from public;

create trigger movie_sessions_deleting
  before delete on public.movie_sessions
  for each row
  execute function usher.on_session_deleting();

create trigger profiles_deleting
  before delete on public.profiles
  for each row
  execute function usher.on_profile_deleting();
