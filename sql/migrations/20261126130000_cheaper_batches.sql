-- What one item of a batch costs: the same rules with fewer queries.
--
-- Each query within a function starts and ends an executor, and each function with settings of its own sets and resets
-- them. So the check of an author asks once, the trigger leaves the batch's own messages to the batch, the log of all
-- sessions is written at once, and what is set for an item is assigned and not queried.

-- As before, but the usual case, a public session without slow mode, is decided by one look at two tables.
-- Security definer: called by policy and guard as authenticated; reads for the caller about the caller.
create or replace function usher.require_chatter(session uuid, body text, is_new boolean) returns boolean
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  author constant uuid := auth.uid();
  caller record;
  wait_ms integer;
begin
  if body is null or body = '' then
    raise exception using errcode = 'US007', message = 'a message has at least one character', detail = 'body';
  elsif char_length(body) > 2000 then
    raise exception using errcode = 'US006', message = 'a message has at most 2000 characters';
  end if;

  perform 1
  from public.movie_sessions s
  left join public.session_bans b on b.session_id = s.id and b.user_id = author
  where s.id = require_chatter.session
    and s.visibility = 'public'
    and s.status <> 'ended'
    and s.chat_enabled
    and s.slow_mode_seconds = 0
    and b.user_id is null;
  if found and author is not null then
    return true;
  end if;

  select * into caller from usher.standing(require_chatter.session);
  -- Only a refusal asks for its name.
  if not found or caller.ban_until is not null or caller.ended or not caller.writer then
    perform usher.require_writer(require_chatter.session);
  end if;
  if caller.moderator then
    return true;
  elsif not caller.chat_enabled then
    raise exception using errcode = 'US004', message = 'the chat is switched off';
  end if;

  if is_new and caller.slow_mode_seconds > 0 then
    -- An author passes one message at a time, so that two at once cannot both be the first.
    perform pg_advisory_xact_lock(usher.pace_lock_key(session, author));
    select ceil(1000 * (caller.slow_mode_seconds - extract(epoch from clock_timestamp() - max(m.created_at))))
    into wait_ms
    from public.chat_messages m
    where m.user_id = author and m.session_id = require_chatter.session;
    if wait_ms > 0 then
      raise exception using
        errcode = 'US001',
        message = format('wait %s s before the next message', ceil(wait_ms / 1000.0)),
        detail = 'retry_after_ms=' || wait_ms;
    end if;
  end if;
  return true;
end
$$;

-- As before, but the batch itself remembers what it inserts: only what other triggers add to it is noted.
-- Security definer: runs as a trigger for any writer of chat_messages, who may not touch the log.
create or replace function usher.on_messages_created() returns trigger
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  log record;
begin
  if usher.is_batching() then
    if pg_trigger_depth() > 1 then
      -- A setting and not a variable: with a failed item its part goes away.
      perform set_config(
        'usher.messages', coalesce(current_setting('usher.messages', true), '') || string_agg(n.id || ' ', ''), true
      )
      from new_rows n
      having count(*) > 0;
    end if;
    return null;
  end if;

  for log in
    select
      r.session_id,
      array_agg(r.id order by r.created_at, r.n) as messages,
      array_agg(usher.message_data(r.data, r.user_id) order by r.created_at, r.n) as datas
    from (
      select n.id, n.session_id, n.user_id, n.created_at, row_to_json(n) as data, row_number() over () as n
      from new_rows n
    ) as r
    group by r.session_id
    order by r.session_id
  loop
    perform usher.append_events(log.session_id, 'chat.created', log.messages, log.datas);
  end loop;
  return null;
end
$$;

-- Appends chat.created for these messages in the order in which they were made, to all their sessions at once, and
-- tells the listeners as append_events does. Messages that were deleted meanwhile, or whose session is going, are left out.
-- Security definer: called by usher.settle_messages; nobody else may.
create or replace function usher.append_messages(ids uuid[]) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  whole_events_max constant integer := 20;
  payload_bytes_max constant integer := 7900;
  stamp timestamptz;
  told bigint;
begin
  perform 1
  from usher.session_heads h
  where h.session_id = any (array(select m.session_id from public.chat_messages m where m.id = any (ids)))
  order by h.session_id
  for no key update;
  -- Read behind the locks, so that times ascend with the numbers.
  stamp := clock_timestamp();

  with created as materialized (
    select
      m.session_id,
      m.id,
      row_number() over (partition by m.session_id order by m.created_at, i.n) as place,
      (
        left(row_to_json(m)::text, -1) || ',"author":'
        || coalesce((
          select row_to_json(a)::text
          from (select p.username, p.display_name, p.avatar_path, p.role from public.profiles p where p.id = m.user_id) as a
        ), 'null') || '}'
      )::json as data
    from unnest(ids) with ordinality as i (id, n)
    join public.chat_messages m on m.id = i.id
  ),
  heads as (
    update usher.session_heads h
    set seq = h.seq + c.count
    from (select n.session_id, max(n.place) as count from created n group by n.session_id) as c
    where h.session_id = c.session_id
    returning h.session_id, h.seq - c.count as before, c.count
  ),
  logged as (
    insert into usher.session_events as e (session_id, seq, type, at, message_id, data)
    select n.session_id, h.before + n.place, 'chat.created', stamp, n.id, n.data
    from created n
    join heads h on h.session_id = n.session_id
    returning e.session_id, e.seq, e.data
  )
  select count(pg_notify('usher_events', case when octet_length(t.whole) < payload_bytes_max then t.whole else t.hint end))
  into told
  from (
    select
      l.session_id,
      l.seq,
      '{"s":"' || l.session_id || '","q":' || l.seq || '}' as hint,
      case when l.seq <= h.before + whole_events_max then
        '{"s":"' || l.session_id || '","q":' || l.seq
          || ',"e":' || usher.wire_event(l.seq, 'chat.created', stamp, l.data) || '}'
      end as whole
    from logged l
    join heads h on h.session_id = l.session_id
    where l.seq <= h.before + whole_events_max or l.seq = h.before + h.count
    order by l.session_id, l.seq
  ) as t;
end
$$;

-- As before, and told which messages the batch has made.
drop function usher.settle_messages(uuid[]);

-- Appends what the batch has made and gives the numbers of these messages.
-- Security definer: called by post_messages as usher_gateway; what is in the log already is not appended again.
create function usher.settle_messages(ids uuid[], are_created boolean[]) returns table (message_id uuid, seq bigint)
language plpgsql
security definer
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  noted constant text := rtrim(coalesce(current_setting('usher.messages', true), ''));
  created uuid[] := array(
    select i.id
    from unnest(ids, are_created) as i (id, is_created)
    where i.is_created and not exists (select 1 from usher.session_events e where e.message_id = i.id)
  );
begin
  if noted <> '' then
    created := created || string_to_array(noted, ' ')::uuid[];
    perform set_config('usher.messages', '', true);
  end if;
  if cardinality(created) > 0 then
    perform usher.append_messages(created);
  end if;
  return query
    select e.message_id, e.seq
    from usher.session_events e
    where e.message_id = any (ids) and e.type = 'chat.created';
end
$$;

-- Posts messages. Runs as usher_gateway, not as its owner: a security definer function may not change role.
create or replace function usher.post_messages(batch jsonb)
returns table (
  item integer, seq bigint, message uuid, created boolean, refusal text, retry_after_ms integer, detail text
)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  entry_role constant text := current_setting('role');
  acting text := entry_role;
  ignored text;
  size constant integer := jsonb_array_length(batch);
  post record;
  state text;
  violated text;
  named record;
  error_detail text;
  posted uuid;
  messages uuid[] := array_fill(null::uuid, array[size]);
  are_created boolean[] := array_fill(false, array[size]);
  refusals text[] := array_fill(null::text, array[size]);
  retries integer[] := array_fill(null::integer, array[size]);
  details text[] := array_fill(null::text, array[size]);
begin
  perform usher.begin_batch();

  perform usher.take_turns(batch);

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
    end if;

    if acting <> post.role then
      acting := set_config('role', post.role, true);
    end if;
    ignored := set_config('request.jwt.claims', post.claims, true);
    -- What auth.uid() looks for first: it need not parse the claims, again and again.
    ignored := set_config('request.jwt.claim.sub', post.author, true);
    begin
      -- Nothing is returned and no conflict is named: either would have the policy for reading evaluated as well.
      posted := gen_random_uuid();
      insert into public.chat_messages (id, session_id, user_id, body, nonce, reply_to)
      values (
        posted, (post.value ->> 'session')::uuid, auth.uid(), post.body,
        (post.value ->> 'nonce')::uuid, (post.value ->> 'reply_to')::uuid
      );
      messages[post.n] := posted;
      are_created[post.n] := true;
      continue;
    exception
      when transaction_rollback then
        -- Nobody's fault and no answer: the gateway sends the batch again, the nonces keep it from doubling.
        raise;
      when others then
        get stacked diagnostics
          state = returned_sqlstate, violated = constraint_name, error_detail = pg_exception_detail;
    end;

    -- Not written: it was before, or it may not be. What was written before is acknowledged even where the
    -- author may not write any more.
    posted := null;
    if state like 'US%' or violated = 'chat_messages_nonce_key' then
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
      named := usher.refusal_of(state, violated);
      refusals[post.n] := named.refusal;
      details[post.n] := coalesce(named.detail, case when state = 'US007' then error_detail end);
      if state = 'US001' then
        retries[post.n] := substring(error_detail from 'retry_after_ms=(\d+)')::integer;
      end if;
    end if;
  end loop;

  perform set_config('role', entry_role, true);
  return query
    select
      i.n - 1, s.seq, messages[i.n], are_created[i.n], refusals[i.n], retries[i.n], details[i.n]
    from generate_series(1, size) as i (n)
    left join usher.settle_messages(messages, are_created) as s on s.message_id = messages[i.n]
    order by i.n;
  perform usher.end_batch();
end
$$;

-- As before, but the usual case, a voting in a public session, is decided by one look.
-- Security definer: called by the guard as authenticated; tells whether the caller may vote.
create or replace function usher.enter_ballot(voting uuid, as_caller boolean, out allow_change boolean)
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  voter constant uuid := auth.uid();
  ballot record;
  caller record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    -- An older snapshot would show a voting as open that has closed.
    raise exception using errcode = 'feature_not_supported', message = 'voting needs isolation level read committed';
  end if;
  perform pg_advisory_xact_lock_shared(usher.ballot_lock_key(voting));

  select v.allow_change
  into allow_change
  from public.voting_sessions v
  join public.movie_sessions s on s.id = v.session_id
  left join public.session_bans b on b.session_id = s.id and b.user_id = voter
  where v.id = voting
    and v.state = 'open'
    and (v.closes_at is null or v.closes_at > clock_timestamp())
    and s.visibility = 'public'
    and s.status <> 'ended'
    and b.user_id is null;
  if found and (voter is not null or not as_caller) then
    return;
  end if;

  select v.session_id, v.state, v.closes_at, v.allow_change
  into ballot
  from public.voting_sessions v
  where v.id = voting;
  if not found then
    raise exception using errcode = 'US005', message = 'no such voting';
  end if;

  if as_caller then
    select * into caller from usher.standing(ballot.session_id);
    if not found then
      raise exception using errcode = 'US005', message = 'no such voting';
    elsif caller.ban_until is not null or caller.ended or not caller.writer then
      perform usher.require_writer(ballot.session_id);
    end if;
  end if;

  if ballot.state <> 'open' or ballot.closes_at <= clock_timestamp() then
    raise exception using errcode = 'US008', message = 'the voting is not open';
  end if;
  allow_change := ballot.allow_change;
end
$$;

-- As before; in a batch what happened is noted at once. In the batch's own statements one voter casts one vote.
-- Security definer (these two): run as triggers for any writer of votes, who may not touch the tallies.
create or replace function usher.on_votes_cast() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if usher.is_batching() then
    perform set_config(
      'usher.votes',
      coalesce(current_setting('usher.votes', true), '')
        || string_agg(n.voting_session_id || ',' || n.movie_id || ',1 ', ''),
      true
    )
    from new_rows n
    having count(*) > 0;
    return null;
  end if;
  perform usher.record_votes(array_agg(n.voting_session_id), array_agg(n.movie_id), array_agg(n.votes))
  from (select r.voting_session_id, r.movie_id, count(*) as votes from new_rows r group by 1, 2) as n;
  return null;
end
$$;

create or replace function usher.on_votes_changed() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (select 1 from new_rows) then
    -- Whatever inserts and would have updated comes by here.
    return null;
  end if;
  perform usher.record_votes(array_agg(d.voting_session_id), array_agg(d.movie_id), array_agg(d.delta))
  from (
    select c.voting_session_id, c.movie_id, sum(c.delta)::bigint as delta
    from (
      select n.voting_session_id, n.movie_id, 1 as delta from new_rows n
      union all
      select o.voting_session_id, o.movie_id, -1 from old_rows o
    ) as c
    group by 1, 2
    having sum(c.delta) <> 0
  ) as d;
  return null;
end
$$;

-- Casts, changes and withdraws votes, as before. Runs as usher_gateway, not as its owner: a security definer function may not
-- change role.
create or replace function usher.cast_votes(batch jsonb)
returns table (item integer, refusal text, retry_after_ms integer, detail text, voting uuid, movie uuid)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  entry_role constant text := current_setting('role');
  acting text := entry_role;
  ignored text;
  size constant integer := jsonb_array_length(batch);
  vote record;
  state text;
  violated text;
  named record;
  error_detail text;
  votings uuid[] := array_fill(null::uuid, array[size]);
  movies uuid[] := array_fill(null::uuid, array[size]);
  refusals text[] := array_fill(null::text, array[size]);
  details text[] := array_fill(null::text, array[size]);
begin
  perform usher.begin_batch();

  -- In the order of votings and voters: another batch with the same users waits for this one and not each for the
  -- other. A user's own votes keep their order.
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
    end if;

    if acting <> vote.role then
      acting := set_config('role', vote.role, true);
    end if;
    ignored := set_config('request.jwt.claims', vote.claims, true);
    ignored := set_config('request.jwt.claim.sub', vote.author, true);
    begin
      if movies[vote.n] is null then
        -- Withdrawing nothing is fine, yet not from a voting that is closed or not the caller's to see.
        perform usher.enter_ballot(votings[vote.n], true);
        delete from public.votes v
        where v.voting_session_id = votings[vote.n] and v.user_id = auth.uid();
      else
        insert into public.votes as v (voting_session_id, user_id, movie_id)
        values (votings[vote.n], auth.uid(), movies[vote.n])
        on conflict on constraint votes_pkey
        do update set movie_id = excluded.movie_id where v.movie_id <> excluded.movie_id;
      end if;
    exception
      when transaction_rollback then
        -- Nobody's fault and no answer: the gateway sends the batch again.
        raise;
      when others then
        get stacked diagnostics
          state = returned_sqlstate, violated = constraint_name, error_detail = pg_exception_detail;
        -- A batch that is sent again, its answer being lost, asks for what it may have done: that stands, though the
        -- voting has closed since.
        if vote.is_again and (state like 'US%' or violated is not null) and (
          select v.movie_id
          from public.votes v
          where v.voting_session_id = votings[vote.n] and v.user_id = auth.uid()
        ) is not distinct from movies[vote.n] then
          continue;
        end if;
        acting := set_config('role', entry_role, true);
        named := usher.refusal_of(state, violated);
        refusals[vote.n] := named.refusal;
        details[vote.n] := coalesce(named.detail, case when state = 'US007' then error_detail end);
    end;
  end loop;

  perform set_config('role', entry_role, true);
  perform usher.settle_votes();
  perform usher.end_batch();
  return query
    select i.n - 1, refusals[i.n], null::integer, details[i.n], votings[i.n], movies[i.n]
    from generate_series(1, size) as i (n)
    order by i.n;
end
$$;

-- As before, and the subject is nobody's either.
create or replace function usher.end_batch() returns void
language plpgsql
set search_path = ''
as $$
begin
  perform set_config('usher.batching', '', true),
    set_config('request.jwt.claims', '', true),
    set_config('request.jwt.claim.sub', '', true);
end
$$;

revoke execute on function usher.settle_messages(uuid[], boolean[]) from public;
grant execute on function usher.settle_messages(uuid[], boolean[]) to usher_gateway;
