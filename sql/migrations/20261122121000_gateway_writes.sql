-- The gateway's writes: messages or votes of many users in one transaction, each under its author's own claims.
--
-- Row level security and the guards decide as they do over REST. Each item has its own subtransaction, so a refusal
-- affects only that item. The triggers record events as for every writer. The batch settles them at its end, because
-- its results include the numbers.
--
-- The gateway sets the lock timeout of a batch. An item that does not get its lock is refused as `busy`, and so are its
-- author's later items for the same session or poll. The other items then wait only briefly for locks. If the batch
-- cannot lock a log or a tally, the whole batch fails.

-- Returns the refusal code for an SQLSTATE, as clients see it.
create function usher.refusal_of(state text, constraint_name text, out refusal text, out detail text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  refusal := case state
    when 'US001' then 'slow_mode'
    when 'US002' then 'banned'
    when 'US003' then 'session_ended'
    when 'US004' then 'forbidden'
    when 'US005' then 'not_found'
    when 'US006' then 'too_large'
    when 'US007' then 'bad_request'
    when 'US008' then 'voting_closed'
    when 'US009' then 'conflict'
    when 'US010' then 'rate_limited'
    when '42501' then 'forbidden'
    when '55P03' then 'busy'
    when '23503' then case constraint_name
      when 'chat_messages_session_id_fkey' then 'not_found'
      when 'chat_messages_user_id_fkey' then 'forbidden'
      when 'chat_messages_reply_to_fkey' then 'bad_request'
      when 'votes_user_id_fkey' then 'forbidden'
      when 'votes_option_fkey' then 'bad_request'
    end
  end;
  if refusal is null then
    refusal := 'internal';
    detail := state;
  elsif constraint_name = 'chat_messages_reply_to_fkey' then
    detail := 'reply_to';
  elsif constraint_name = 'votes_option_fkey' then
    detail := 'movie';
  end if;
end
$$;

create function usher.is_uuid(value jsonb) returns boolean
language sql
immutable
return jsonb_typeof(value) = 'string'
  and (value #>> '{}') ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';

-- Checks the author of an item. Returns the name of the invalid field, or null.
create function usher.check_author(item jsonb) returns text
language sql
immutable
return case
  when jsonb_typeof(item) is distinct from 'object' then 'item'
  when jsonb_typeof(item -> 'role') is distinct from 'string' then 'role'
  when jsonb_typeof(item -> 'claims') is distinct from 'object' then 'claims'
  when item ->> 'role' = 'authenticated' and not coalesce(usher.is_uuid(item -> 'claims' -> 'sub'), false) then 'claims'
end;

-- Returns the log numbers of messages. A message that is not in the log has no row. If an owner has reused an id, the
-- newest number counts.
-- Security definer: called by post_messages as usher_gateway. It returns only numbers.
create function usher.message_numbers(ids uuid[]) returns table (message_id uuid, seq bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  return query
    select e.message_id, (array_agg(e.seq order by e.at desc, e.seq desc))[1]
    from usher.session_events e
    where e.message_id = any (ids) and e.type = 'chat.created'
    group by e.message_id;
end
$$;

-- Begins a batch: checks the role and clears all claims that the connection may still have.
create function usher.begin_batch() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_has_role(session_user, 'usher_gateway', 'member') then
    raise exception using errcode = 'insufficient_privilege', message = 'only usher_gateway may run batches';
  end if;
  -- auth.uid() prefers these legacy settings to the claims, so a leftover would act as another user.
  perform set_config('request.jwt.claim', '', true),
    set_config('request.jwt.claim.sub', '', true),
    set_config('request.jwt.claim.role', '', true),
    set_config('request.jwt.claim.email', '', true);
end
$$;

-- Ends the part of a batch that acts for users. It clears the claims, and runs a project's deferred triggers before the
-- batch settles, as they would run at the commit.
create function usher.end_batch() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('request.jwt.claims', '', true), set_config('request.jwt.claim.sub', '', true);
  set constraints all immediate;
end
$$;

-- Shortens the lock timeout after an item did not get its lock, so that the other items of the batch do not wait as
-- long.
create function usher.wait_no_more() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('lock_timeout', '10ms', true);
end
$$;

-- Takes the slow mode locks of a whole batch in one order. If each message took its own, two batches with the same
-- authors could deadlock.
-- Security definer: called by post_messages as usher_gateway. It only takes locks, which last until the transaction
-- ends.
create function usher.take_turns(batch jsonb) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  perform pg_advisory_xact_lock(t.key)
  from (
    select distinct usher.pace_lock_key(s.id, i.author) as key
    from (
      select
        case when usher.is_uuid(p.value -> 'session') then (p.value ->> 'session')::uuid end as session,
        case when usher.is_uuid(p.value -> 'claims' -> 'sub') then (p.value -> 'claims' ->> 'sub')::uuid end as author
      from jsonb_array_elements(batch) as p (value)
    ) as i
    join public.movie_sessions s on s.id = i.session
    where s.slow_mode_seconds > 0 and i.author is not null
    order by 1
  ) as t;
end
$$;

-- Posts a batch of messages. Runs as usher_gateway, not as its owner, because a security definer function cannot change
-- the role.
create function usher.post_messages(batch jsonb)
returns table (
  item integer, seq bigint, message uuid, created boolean, refusal text, retry_after_ms integer, detail text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  entry_role constant text := current_setting('role');
  entry_wait constant text := current_setting('lock_timeout');
  acting text := entry_role;
  ignored text;
  size constant integer := jsonb_array_length(batch);
  post record;
  state text;
  violated text;
  named record;
  error_detail text;
  posted uuid;
  -- The sessions and authors of messages that did not get a lock, each as one text.
  blocked text[] := '{}';
  written integer;
  -- The items that were inserted, in this order, and the ids of the messages that they became.
  inserted integer[] := '{}';
  made uuid[];
  messages uuid[] := array_fill(null::uuid, array[size]);
  are_created boolean[] := array_fill(false, array[size]);
  refusals text[] := array_fill(null::text, array[size]);
  retries integer[] := array_fill(null::integer, array[size]);
  details text[] := array_fill(null::text, array[size]);
begin
  perform usher.begin_batch();

  begin
    perform usher.take_turns(batch);
  exception
    when lock_not_available then
      -- Each message then takes its own lock, and only a blocked one is refused.
      perform usher.wait_no_more();
  end;

  for post in
    select
      p.value,
      p.n::integer as n,
      p.value ->> 'role' as role,
      p.value ->> 'claims' as claims,
      coalesce(p.value -> 'claims' ->> 'sub', '') as author,
      p.value ->> 'body' as body,
      coalesce(
        usher.check_author(p.value),
        case
          when not coalesce(usher.is_uuid(p.value -> 'session'), false) then 'session'
          when not coalesce(usher.is_uuid(p.value -> 'nonce'), false) then 'nonce'
          when jsonb_typeof(coalesce(p.value -> 'reply_to', 'null')) <> 'null'
            and not usher.is_uuid(p.value -> 'reply_to') then 'reply_to'
          when coalesce(jsonb_typeof(p.value -> 'body'), '') <> 'string' then 'body'
        end
      ) as flaw
    from jsonb_array_elements(batch) with ordinality as p (value, n)
    order by p.n
  loop
    if post.flaw is not null then
      refusals[post.n] := 'bad_request';
      details[post.n] := post.flaw;
      continue;
    elsif post.role not in ('anon', 'authenticated') then
      refusals[post.n] := 'forbidden';
      continue;
    elsif blocked <> '{}' and lower((post.value ->> 'session') || post.author) = any (blocked) then
      refusals[post.n] := 'busy';
      continue;
    end if;

    if acting <> post.role then
      acting := set_config('role', post.role, true);
    end if;
    ignored := set_config('request.jwt.claims', post.claims, true);
    -- auth.uid() reads this setting first, so it need not parse the claims each time.
    ignored := set_config('request.jwt.claim.sub', post.author, true);
    begin
      -- No `returning` and no `on conflict`: both would make Postgres evaluate the select policy as well.
      posted := gen_random_uuid();
      insert into public.chat_messages (id, session_id, user_id, body, nonce, reply_to)
      values (
        posted, (post.value ->> 'session')::uuid, auth.uid(), post.body,
        (post.value ->> 'nonce')::uuid, (post.value ->> 'reply_to')::uuid
      );
      get diagnostics written = row_count;
      if written > 0 then
        messages[post.n] := posted;
        are_created[post.n] := true;
        inserted := inserted || post.n;
        continue;
      end if;
      -- A trigger of the project has dropped the row.
      state := 'US004';
      violated := null;
    exception
      when transaction_rollback then
        -- A deadlock or a serialization failure is no result. The gateway sends the batch again, and the nonces prevent
        -- duplicates.
        raise;
      when others then
        get stacked diagnostics
          state = returned_sqlstate, violated = constraint_name, error_detail = pg_exception_detail;
    end;

    -- The message was refused, or an earlier attempt has already written it. An earlier message is acknowledged even if
    -- its author may no longer write.
    posted := null;
    if state like 'US%' or state = '23505' then
      select m.id into posted
      from public.chat_messages m
      where m.session_id = (post.value ->> 'session')::uuid
        and m.user_id = auth.uid()
        and m.nonce = (post.value ->> 'nonce')::uuid;
    end if;
    acting := set_config('role', entry_role, true);
    if posted is not null then
      messages[post.n] := posted;
    else
      if state = '55P03' then
        blocked := blocked || lower((post.value ->> 'session') || post.author);
        perform usher.wait_no_more();
      end if;
      named := usher.refusal_of(state, violated);
      refusals[post.n] := named.refusal;
      details[post.n] := coalesce(named.detail, case when state = 'US007' then error_detail end);
      if state = 'US001' then
        retries[post.n] := substring(error_detail from 'retry_after_ms=(\d+)')::integer;
      end if;
    end if;
  end loop;

  perform set_config('role', entry_role, true), set_config('lock_timeout', entry_wait, true);
  perform usher.end_batch();
  made := usher.settle();
  -- All rows are locked now. Only the commit can still wait: for other commits that notify, not for a locked session.
  -- So it gets a longer timeout.
  perform set_config('lock_timeout', '5s', true);
  -- A project's trigger may have changed the id of a message. The messages are in the order of the items.
  if cardinality(made) = cardinality(inserted) then
    for k in 1..cardinality(made) loop
      messages[inserted[k]] := made[k];
    end loop;
  end if;
  -- If a message was inserted but is not in the log, a trigger has removed it.
  return query
    select
      i.n - 1, s.seq, case when not i.is_removed then messages[i.n] end, are_created[i.n] and not i.is_removed,
      case when i.is_removed then 'forbidden' else refusals[i.n] end, retries[i.n], details[i.n]
    from generate_series(1, size) as g (n)
    left join usher.message_numbers(messages) as s on s.message_id = messages[g.n]
    cross join lateral (select g.n, are_created[g.n] and s.seq is null) as i (n, is_removed)
    order by i.n;
end
$$;

-- Casts, changes and withdraws a batch of votes. Runs as usher_gateway, not as its owner, because a security definer
-- function cannot change the role.
create function usher.cast_votes(batch jsonb)
returns table (item integer, refusal text, retry_after_ms integer, detail text, voting uuid, movie uuid)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  entry_role constant text := current_setting('role');
  entry_wait constant text := current_setting('lock_timeout');
  acting text := entry_role;
  ignored text;
  size constant integer := jsonb_array_length(batch);
  vote record;
  state text;
  violated text;
  named record;
  error_detail text;
  -- The poll and voter of the last vote that did not get a lock, as one text. One value suffices, because the votes of
  -- one voter in a poll are adjacent.
  blocked text := '';
  stored uuid;
  votings uuid[] := array_fill(null::uuid, array[size]);
  movies uuid[] := array_fill(null::uuid, array[size]);
  refusals text[] := array_fill(null::text, array[size]);
  details text[] := array_fill(null::text, array[size]);
begin
  perform usher.begin_batch();

  -- Sorted by poll and voter, so that two batches with the same users cannot deadlock. The votes of one user keep their
  -- order.
  for vote in
    select
      p.value,
      p.n::integer as n,
      p.value ->> 'role' as role,
      coalesce(p.value -> 'again' = 'true', false) as is_again,
      p.value ->> 'claims' as claims,
      coalesce(p.value -> 'claims' ->> 'sub', '') as author,
      coalesce(
        usher.check_author(p.value),
        case
          when not coalesce(usher.is_uuid(p.value -> 'voting'), false) then 'voting'
          when jsonb_typeof(coalesce(p.value -> 'movie', 'null')) <> 'null'
            and not usher.is_uuid(p.value -> 'movie') then 'movie'
        end
      ) as flaw
    from jsonb_array_elements(batch) with ordinality as p (value, n)
    order by lower(p.value ->> 'voting') collate "C", lower(p.value -> 'claims' ->> 'sub') collate "C", p.n
  loop
    if vote.flaw is not null then
      refusals[vote.n] := 'bad_request';
      details[vote.n] := vote.flaw;
      continue;
    end if;
    votings[vote.n] := (vote.value ->> 'voting')::uuid;
    movies[vote.n] := (vote.value ->> 'movie')::uuid;
    if vote.role not in ('anon', 'authenticated') then
      refusals[vote.n] := 'forbidden';
      continue;
    elsif lower((vote.value ->> 'voting') || vote.author) = blocked then
      refusals[vote.n] := 'busy';
      continue;
    end if;

    if acting <> vote.role then
      acting := set_config('role', vote.role, true);
    end if;
    ignored := set_config('request.jwt.claims', vote.claims, true);
    ignored := set_config('request.jwt.claim.sub', vote.author, true);
    begin
      if movies[vote.n] is null then
        -- Withdrawing no vote is fine, but not if the poll is closed or hidden from the caller.
        perform usher.enter_ballot(votings[vote.n], true);
        delete from public.votes v
        where v.voting_session_id = votings[vote.n] and v.user_id = auth.uid();
        continue when found;
      else
        -- `on conflict` has already evaluated the select policy, so `returning` adds no check.
        insert into public.votes as v (voting_session_id, user_id, movie_id)
        values (votings[vote.n], auth.uid(), movies[vote.n])
        on conflict on constraint votes_pkey
        do update set movie_id = excluded.movie_id where v.movie_id <> excluded.movie_id
        returning v.movie_id into stored;
        if found then
          movies[vote.n] := stored;
          continue;
        end if;
      end if;
      -- Nothing changed: the vote was already stored, or a trigger of the project prevented the change.
      select v.movie_id into stored
      from public.votes v
      where v.voting_session_id = votings[vote.n] and v.user_id = auth.uid();
      if stored is distinct from movies[vote.n] then
        refusals[vote.n] := 'forbidden';
      end if;
    exception
      when transaction_rollback then
        -- A deadlock or a serialization failure is no result. The gateway sends the batch again.
        raise;
      when others then
        get stacked diagnostics
          state = returned_sqlstate, violated = constraint_name, error_detail = pg_exception_detail;
        -- The gateway sends a batch again if it lost the answer, so an earlier attempt may have stored this vote. Such
        -- a vote is accepted, even if the poll has closed since. The query is a separate statement: role anon has no
        -- rights on the table, so as part of the condition it would fail the whole batch once its plan is cached.
        if vote.is_again and vote.role = 'authenticated' and (state like 'US%' or violated is not null) then
          if (
            select v.movie_id
            from public.votes v
            where v.voting_session_id = votings[vote.n] and v.user_id = auth.uid()
          ) is not distinct from movies[vote.n] then
            continue;
          end if;
        end if;
        acting := set_config('role', entry_role, true);
        if state = '55P03' then
          blocked := lower((vote.value ->> 'voting') || vote.author);
          perform usher.wait_no_more();
        end if;
        named := usher.refusal_of(state, violated);
        refusals[vote.n] := named.refusal;
        details[vote.n] := coalesce(named.detail, case when state = 'US007' then error_detail end);
    end;
  end loop;

  perform set_config('role', entry_role, true), set_config('lock_timeout', entry_wait, true);
  perform usher.end_batch();
  perform usher.settle();
  perform set_config('lock_timeout', '5s', true);
  return query
    select i.n - 1, refusals[i.n], null::integer, details[i.n], votings[i.n], movies[i.n]
    from generate_series(1, size) as i (n)
    order by i.n;
end
$$;

revoke execute on function
  usher.refusal_of(text, text), usher.is_uuid(jsonb), usher.check_author(jsonb), usher.message_numbers(uuid[]),
  usher.begin_batch(), usher.end_batch(), usher.wait_no_more(), usher.take_turns(jsonb), usher.post_messages(jsonb),
  usher.cast_votes(jsonb)
  from public;

-- Includes the functions that the two batch functions call as the gateway.
grant execute on function
  usher.refusal_of(text, text), usher.is_uuid(jsonb), usher.check_author(jsonb), usher.message_numbers(uuid[]),
  usher.settle(), usher.begin_batch(), usher.end_batch(), usher.wait_no_more(), usher.take_turns(jsonb),
  usher.post_messages(jsonb), usher.cast_votes(jsonb)
  to usher_gateway;
