-- The chat history of a session, newest first: the messages in the log by number, then older ones that have left the
-- log.

-- Returns the positions of the newest messages before a number, or before a message that has left the log. A place is
-- the number, or the time in microseconds and the id. It skips deleted messages and other events. After 2,000 rows of
-- the log, or of the table behind it, it stops: the last row then has a place and no id, and the search continues from
-- there.
--
-- Each lookup is a scalar subquery, because with a join the planner may read a whole log for one page.
-- Security definer: called by messages_before as anon and authenticated, which cannot read the log. It returns nothing
-- about sessions that are hidden from the caller.
create function usher.message_positions(
  session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer
)
returns table (id uuid, seq bigint, place text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
-- The planner estimates the cost by all rows that a page could skip, and compiling for that takes longer than the
-- query.
set jit = off
as $$
#variable_conflict use_variable
declare
  looked_at_max constant integer := 2000;
  looked_at integer := 0;
  found_count integer := 0;
  candidate record;
  bound timestamptz;
begin
  perform 1
  from usher.standing(message_positions.session) s
  where s.ban_until is distinct from 'infinity';
  if not found then
    return;
  end if;

  if before_id is null then
    for candidate in
      select
        e.seq, e.message_id,
        e.type = 'chat.created' and (
          select m.deleted_at is null and m.session_id = e.session_id
          from public.chat_messages m
          where m.id = e.message_id
        ) as counts
      from usher.session_events e
      where e.session_id = message_positions.session and e.seq < coalesce(before_seq, 9223372036854775807)
      order by e.seq desc
      limit looked_at_max
    loop
      looked_at := looked_at + 1;
      place := candidate.seq::text;
      if candidate.counts then
        found_count := found_count + 1;
        id := candidate.message_id;
        seq := candidate.seq;
        return next;
        exit when found_count >= max_messages;
      end if;
    end loop;
    if found_count < max_messages and looked_at = looked_at_max then
      id := null;
      seq := null;
      return next;
    end if;
    if found_count >= max_messages or looked_at = looked_at_max then
      return;
    end if;
    -- A message that has left the log is older than the oldest event in the log.
    select e.at
    into bound
    from usher.session_events e
    where e.session_id = message_positions.session
    order by e.seq
    limit 1;
    bound := coalesce(bound, 'infinity');
  else
    bound := 'epoch'::timestamptz + before_at_us * interval '1 microsecond';
  end if;

  seq := null;
  looked_at := 0;
  for candidate in
    select
      m.id, m.created_at,
      m.deleted_at is null and (
        select e.seq
        from usher.session_events e
        where e.message_id = m.id and e.type = 'chat.created'
        limit 1
      ) is null as counts
    from public.chat_messages m
    where m.session_id = message_positions.session
      and m.created_at <= bound
      and (before_id is null or m.created_at < bound or m.id < before_id)
    order by m.created_at desc, m.id desc
    limit looked_at_max
  loop
    looked_at := looked_at + 1;
    place := (extract(epoch from candidate.created_at) * 1000000)::bigint || '_' || candidate.id;
    if candidate.counts then
      found_count := found_count + 1;
      id := candidate.id;
      return next;
      exit when found_count >= max_messages;
    end if;
  end loop;
  if found_count < max_messages and looked_at = looked_at_max then
    id := null;
    return next;
  end if;
end
$$;

-- Returns a page of messages as JSON texts, and the place at which the next page begins, or null at the end.
-- Runs as the caller, so that the project's own policies on chat_messages decide which messages the caller sees.
create function usher.messages_before(
  session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer,
  out messages text[], out next text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  select
    coalesce(array_agg(v.message order by p.n) filter (where v.message is not null), '{}'),
    -- Counts the positions found, not the messages that the caller may see, so that a hidden message does not end the
    -- history.
    case
      when count(p.id) >= max_messages or count(p.id) < count(*) then (array_agg(p.place order by p.n desc))[1]
    end
  into messages, next
  from usher.message_positions(
    messages_before.session, before_seq, before_at_us, before_id, max_messages
  ) with ordinality as p (id, seq, place, n)
  left join lateral (
    select left(row_to_json(m)::text, -1)
      || ',"seq":' || coalesce(p.seq::text, 'null')
      || ',"author":' || coalesce(
        (
          select row_to_json(a)::text
          from (
            select o.username, o.display_name, o.avatar_path, o.role
            from public.profiles o
            where o.id = m.user_id
          ) as a
        ),
        'null'
      )
      || '}' as message
    from public.chat_messages m
    where m.id = p.id
    offset 0
  ) as v on true;
end
$$;

revoke execute on function
  usher.message_positions(uuid, bigint, bigint, uuid, integer),
  usher.messages_before(uuid, bigint, bigint, uuid, integer)
  from public;

grant execute on function
  usher.message_positions(uuid, bigint, bigint, uuid, integer),
  usher.messages_before(uuid, bigint, bigint, uuid, integer)
  to anon, authenticated;
