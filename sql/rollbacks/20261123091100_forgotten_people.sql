-- Lets the log keep the ids of people who are gone, from here on.

create or replace function usher.on_profile_deleting() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform usher.lock_for_deletion(
    array(select s.id from public.movie_sessions s where s.streamer_id = old.id order by s.id for update), old.id
  );
  return old;
end
$$;

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
  ))
  order by h.session_id
  for update;
end
$$;

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
      case when o.deleted_at is null then auth.uid() else o.deleted_by end order by o.created_at, o.id
    ) as bys
  into gone
  from old_rows o;
  if gone.ids is not null then
    perform usher.append_deletions(gone.sessions, gone.ids, gone.ats, gone.bys);
  end if;
  return null;
end
$$;

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

drop function usher.forget_person(uuid);
drop index usher.session_events_person_idx;
