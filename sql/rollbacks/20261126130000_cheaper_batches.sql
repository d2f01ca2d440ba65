-- Takes the cheaper batches back.

drop function usher.settle_messages(uuid[], boolean[]);

create function usher.settle_messages(ids uuid[]) returns table (message_id uuid, seq bigint)
language plpgsql
security definer
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  noted constant text := rtrim(coalesce(current_setting('usher.messages', true), ''));
begin
  if noted <> '' then
    perform usher.append_messages(string_to_array(noted, ' ')::uuid[]);
    perform set_config('usher.messages', '', true);
  end if;
  return query
    select e.message_id, e.seq
    from usher.session_events e
    where e.message_id = any (ids) and e.type = 'chat.created';
end
$$;

create or replace function usher.require_chatter(session uuid, body text, is_new boolean) returns boolean
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  caller record;
  wait_ms integer;
begin
  if body is null or body = '' then
    raise exception using errcode = 'US007', message = 'a message has at least one character', detail = 'body';
  elsif char_length(body) > 2000 then
    raise exception using errcode = 'US006', message = 'a message has at most 2000 characters';
  end if;

  select * into caller from usher.standing(require_chatter.session);
  -- The usual case is decided by one look; only a refusal asks for its name.
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
    perform pg_advisory_xact_lock(usher.pace_lock_key(session, auth.uid()));
    select ceil(1000 * (caller.slow_mode_seconds - extract(epoch from clock_timestamp() - max(m.created_at))))
    into wait_ms
    from public.chat_messages m
    where m.user_id = auth.uid() and m.session_id = require_chatter.session;
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
    -- A setting and not a variable: with a failed item its part goes away.
    perform set_config(
      'usher.messages', coalesce(current_setting('usher.messages', true), '') || string_agg(n.id || ' ', ''), true
    )
    from new_rows n
    having count(*) > 0;
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

create or replace function usher.append_messages(ids uuid[]) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  log record;
begin
  for log in
    select
      m.session_id,
      array_agg(m.id order by i.n) as messages,
      array_agg(usher.message_data(row_to_json(m), m.user_id) order by i.n) as datas
    from unnest(ids) with ordinality as i (id, n)
    join public.chat_messages m on m.id = i.id
    group by m.session_id
    order by m.session_id
  loop
    perform usher.append_events(log.session_id, 'chat.created', log.messages, log.datas);
  end loop;
end
$$;

create or replace function usher.enter_ballot(voting uuid, as_caller boolean, out allow_change boolean)
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  ballot record;
  caller record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    -- An older snapshot would show a voting as open that has closed.
    raise exception using errcode = 'feature_not_supported', message = 'voting needs isolation level read committed';
  end if;
  perform pg_advisory_xact_lock_shared(usher.ballot_lock_key(voting));

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

create or replace function usher.on_votes_cast() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
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

    begin
      perform set_config('role', post.role, true), set_config('request.jwt.claims', post.claims, true);
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
      perform set_config('role', post.role, true), set_config('request.jwt.claims', post.claims, true);
      select m.id into posted
      from public.chat_messages m
      where m.session_id = (post.value ->> 'session')::uuid
        and m.user_id = auth.uid()
        and m.nonce = (post.value ->> 'nonce')::uuid;
    end if;
    perform set_config('role', entry_role, true);
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
    left join usher.settle_messages(array_remove(messages, null)) as s on s.message_id = messages[i.n]
    order by i.n;
  perform usher.end_batch();
end
$$;

create or replace function usher.cast_votes(batch jsonb)
returns table (item integer, refusal text, retry_after_ms integer, detail text, voting uuid, movie uuid)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  entry_role constant text := current_setting('role');
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
      p.value ->> 'claims' as claims,
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

    begin
      perform set_config('role', vote.role, true), set_config('request.jwt.claims', vote.claims, true);
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
        perform set_config('role', entry_role, true);
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

create or replace function usher.end_batch() returns void
language plpgsql
set search_path = ''
as $$
begin
  perform set_config('usher.batching', '', true), set_config('request.jwt.claims', '', true);
end
$$;

revoke execute on function usher.settle_messages(uuid[]) from public;
grant execute on function usher.settle_messages(uuid[]) to usher_gateway;
