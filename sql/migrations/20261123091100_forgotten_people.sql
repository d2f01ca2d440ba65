-- Whose account is gone, the log does not name: not by name and not by id. Their messages go with the account; what
-- stays is what was done to them and what they did as moderators or streamers.

-- Few rows of the log: messages are found by their own index.
create index session_events_person_idx on usher.session_events (
  (coalesce(data ->> 'deleted_by', data ->> 'user_id', data ->> 'streamer_id'))
)
where type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated');

-- As before, and where the row is gone the author's id goes too: the nil uuid stands for somebody.
-- Security definer: called by our triggers; nobody else may.
create or replace function usher.redact_messages(ids uuid[], deleted_at timestamptz[], deleted_by uuid[]) returns void
language sql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
  update usher.session_events e
  set data = (
    select (
      '{' || string_agg(
        to_json(f.key)::text || ':' || case f.key
          when 'body' then 'null'
          when 'deleted_at' then coalesce(to_json(d.at)::text, 'null')
          when 'deleted_by' then coalesce(to_json(d.by)::text, 'null')
          when 'user_id' then case
            when exists (select 1 from public.chat_messages m where m.id = d.id) then f.value::text
            else '"00000000-0000-0000-0000-000000000000"'
          end
          when 'author' then case
            when exists (select 1 from public.chat_messages m where m.id = d.id) then f.value::text
            else 'null'
          end
          else f.value::text
        end,
        ',' order by f.n
      ) || '}'
    )::json
    from json_each(e.data) with ordinality as f (key, value, n)
  )
  from unnest(ids, deleted_at, deleted_by) as d (id, at, by)
  where e.message_id = d.id and e.type in ('chat.created', 'chat.updated')
$$;

-- As before, and it names nobody whose account goes with the message.
-- Security definer: runs as a trigger for any writer of chat_messages, who may not touch the log.
create or replace function usher.on_messages_removed() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  gone record;
begin
  select array_agg(o.session_id order by o.created_at, o.id) as sessions,
    array_agg(o.id order by o.created_at, o.id) as ids,
    array_agg(coalesce(o.deleted_at, now()) order by o.created_at, o.id) as ats,
    array_agg(
      -- Who deletes their own account is not named.
      (
        select p.id
        from public.profiles p
        where p.id = case when o.deleted_at is null then auth.uid() else o.deleted_by end
      )
      order by o.created_at, o.id
    ) as bys
  into gone
  from old_rows o;
  if gone.ids is not null then
    perform usher.append_deletions(gone.sessions, gone.ids, gone.ats, gone.bys);
  end if;
  return null;
end
$$;

-- Takes an id out of the log.
-- Security definer: called by the trigger below; nobody else may.
create function usher.forget_person(person uuid) returns void
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
begin
  with named as (
    select e.session_id, e.seq, e.message_id
    from usher.session_events e
    where coalesce(e.data ->> 'deleted_by', e.data ->> 'user_id', e.data ->> 'streamer_id') = person::text
      and e.type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated')
  ),
  -- What a message's deletion says, the earlier rows of that message say as well.
  affected as (
    select n.session_id, n.seq from named n
    union
    select e.session_id, e.seq
    from usher.session_events e
    where e.message_id = any (array(select n.message_id from named n where n.message_id is not null))
  )
  update usher.session_events e
  set data = replace(
    replace(e.data::text, '"deleted_by":"' || person || '"', '"deleted_by":null'),
    '"' || person || '"', '"00000000-0000-0000-0000-000000000000"'
  )::json
  from affected a
  where e.session_id = a.session_id and e.seq = a.seq;
end
$$;

-- As before, with the heads of the sessions whose log names the account.
-- Security definer: called by the triggers on profiles and movie_sessions; nobody else may.
create or replace function usher.lock_for_deletion(sessions uuid[], account uuid) returns void
language plpgsql
security definer
set search_path = ''
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
  -- Not for update: a voter who is in the box may still need the key of the voting for its tally.
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
  perform 1
  from usher.session_heads h
  where h.session_id = any (array(
    select unnest(sessions)
    union
    select m.session_id from public.chat_messages m where m.user_id = account
    union
    select e.session_id
    from usher.session_events e
    where coalesce(e.data ->> 'deleted_by', e.data ->> 'user_id', e.data ->> 'streamer_id') = account::text
      and e.type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated')
  ))
  order by h.session_id
  for update;
end
$$;

-- Security definer: runs as a trigger for whoever deletes an account, who may not touch the log.
create or replace function usher.on_profile_deleting() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform usher.lock_for_deletion(
    array(select s.id from public.movie_sessions s where s.streamer_id = old.id order by s.id for update), old.id
  );
  perform usher.forget_person(old.id);
  return old;
end
$$;

revoke execute on function usher.forget_person(uuid) from public;

-- Accounts and messages that went before.
update usher.session_events e
set data = (
  select (
    '{' || string_agg(
      to_json(f.key)::text || ':' || case f.key
        when 'user_id' then '"00000000-0000-0000-0000-000000000000"'
        else f.value::text
      end,
      ',' order by f.n
    ) || '}'
  )::json
  from json_each(e.data) with ordinality as f (key, value, n)
)
where (
    e.type in ('chat.created', 'chat.updated')
    and not exists (select 1 from public.chat_messages m where m.id = e.message_id)
  )
  or (
    e.type in ('member.banned', 'member.unbanned')
    and not exists (select 1 from public.profiles p where p.id = (e.data ->> 'user_id')::uuid)
  );
