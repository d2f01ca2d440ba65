-- What the migrations make, for reading. Written by pg_dump 15 and kept by a test; not a source.

CREATE SCHEMA public;

COMMENT ON SCHEMA public IS 'standard public schema';

CREATE SCHEMA usher;

COMMENT ON SCHEMA usher IS 'Internals of the Usher gateway: the event log, the vote tallies and the functions that the gateway calls. Do not expose it through the Data API.';

CREATE TABLE public.overlay_tokens (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    label text NOT NULL,
    created_by uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT overlay_tokens_expires_at_check CHECK ((expires_at > created_at)),
    CONSTRAINT overlay_tokens_label_check CHECK (((char_length(label) >= 1) AND (char_length(label) <= 64)))
);

COMMENT ON TABLE public.overlay_tokens IS 'The overlay tokens that were issued. The table does not store the tokens themselves.';

COMMENT ON COLUMN public.overlay_tokens.revoked_at IS 'Set it to any time to revoke the token. The database replaces it with the current time, and live overlays stop within a second.';

CREATE FUNCTION public.issue_overlay_token(session uuid, issuer uuid, label text DEFAULT 'OBS'::text, days integer DEFAULT 90) RETURNS public.overlay_tokens
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  live_tokens_max constant integer := 20;
  days_max constant integer := 400;
  issued public.overlay_tokens;
begin
  if days is null or days not between 1 and days_max then
    raise exception using errcode = 'US007', message = format('days must be between 1 and %s', days_max), detail = 'days';
  elsif issue_overlay_token.label is null or char_length(issue_overlay_token.label) not between 1 and 64 then
    raise exception using errcode = 'US007', message = 'label must have 1 to 64 characters', detail = 'label';
  end if;
  -- Issues one token at a time per session, so that the count below stays correct.
  perform pg_advisory_xact_lock(hashtextextended('usher.overlay:' || session, 0));
  perform 1
  from public.movie_sessions s
  left join public.profiles p on p.id = issuer
  where s.id = session and (s.streamer_id = issuer or p.role = 'admin');
  if not found then
    -- The same error if the session does not exist, so that strangers cannot probe for sessions.
    raise exception using errcode = 'US004', message = 'only the streamer of a session can issue its overlay tokens';
  end if;
  if live_tokens_max <= (
    select count(*)
    from public.overlay_tokens t
    where t.session_id = session and t.revoked_at is null and t.expires_at > now()
  ) then
    raise exception using
      errcode = 'US009', message = format('a session has at most %s overlay tokens: revoke one', live_tokens_max);
  end if;
  insert into public.overlay_tokens (session_id, label, created_by, expires_at)
  values (session, issue_overlay_token.label, issuer, now() + make_interval(days => days))
  returning * into issued;
  return issued;
end
$$;

COMMENT ON FUNCTION public.issue_overlay_token(session uuid, issuer uuid, label text, days integer) IS 'Records an overlay token if the issuer owns the session. For the Edge Function that signs the tokens.';

CREATE TABLE public.profiles (
    id uuid NOT NULL,
    username text NOT NULL,
    display_name text NOT NULL,
    avatar_path text,
    role text DEFAULT 'viewer'::text NOT NULL,
    preferences jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT profiles_avatar_path_check CHECK (((char_length(avatar_path) >= 1) AND (char_length(avatar_path) <= 512))),
    CONSTRAINT profiles_display_name_check CHECK (((char_length(display_name) >= 1) AND (char_length(display_name) <= 64))),
    CONSTRAINT profiles_preferences_check CHECK (((jsonb_typeof(preferences) = 'object'::text) AND (octet_length((preferences)::text) <= 16384))),
    CONSTRAINT profiles_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'streamer'::text, 'moderator'::text, 'admin'::text]))),
    CONSTRAINT profiles_username_check CHECK ((username ~ '^[a-z0-9_]{3,32}$'::text))
);

COMMENT ON TABLE public.profiles IS 'The public profile of each user, one row per account.';

COMMENT ON COLUMN public.profiles.avatar_path IS 'Path of the picture in the bucket avatars.';

COMMENT ON COLUMN public.profiles.role IS 'The user''s role on the whole platform. Only service_role and direct SQL can change it.';

COMMENT ON COLUMN public.profiles.preferences IS 'The user''s own settings. Read them through my_profile(); other users cannot read them.';

CREATE FUNCTION public.my_profile() RETURNS SETOF public.profiles
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 1
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select p.* from public.profiles p where p.id = (select auth.uid())
$$;

COMMENT ON FUNCTION public.my_profile() IS 'The caller''s own profile with its preferences, which no other user can read.';

CREATE FUNCTION usher.access_changed(session uuid DEFAULT NULL::uuid, "user" uuid DEFAULT NULL::uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.notify_access(access_changed.session, access_changed."user");
end
$$;

COMMENT ON FUNCTION usher.access_changed(session uuid, "user" uuid) IS 'Makes the gateway check access again. For triggers of the app. A null user is everyone, a null session is every session.';

CREATE FUNCTION usher.admit(session uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  caller record;
  may_write boolean;
begin
  if auth.jwt() ? 'usher_overlay' then
    return case
      when usher.is_overlay(admit.session) then '{"send": false, "vote": false, "moderate": false, "mine": {}}'::jsonb
      else '{"refused": "forbidden"}'
    end;
  end if;
  perform 1 from public.movie_sessions s where s.id = admit.session;
  if not found then
    return null;
  end if;
  select * into caller from usher.standing(admit.session);
  if not found then
    return null;
  elsif caller.ban_until = 'infinity' then
    return '{"refused": "banned"}';
  end if;
  may_write := caller.writer and caller.ban_until is null and not caller.ended;
  return jsonb_strip_nulls(jsonb_build_object(
    'send', may_write and (caller.chat_enabled or caller.moderator),
    'vote', may_write,
    'moderate', caller.moderator,
    'mine', usher.my_votes(admit.session),
    -- The end of a time-out: then the permissions change, and the gateway should ask again.
    'ask_again_ms', ceil(1000 * extract(epoch from caller.ban_until - clock_timestamp()))
  ));
end
$$;

CREATE FUNCTION usher.admit_many(batch jsonb) RETURNS TABLE(item integer, admission jsonb, failure text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  entry_role constant text := current_setting('role');
  acting text := entry_role;
  ignored text;
  caller record;
begin
  ignored := set_config('request.jwt.claim.role', '', true);
  ignored := set_config('request.jwt.claim.email', '', true);
  for caller in
    select
      p.n::integer as n,
      p.value ->> 'role' as role,
      p.value ->> 'claims' as claims,
      coalesce(p.value -> 'claims' ->> 'sub', '') as subject,
      p.value ->> 'session' as session,
      usher.check_author(p.value) is null
        and coalesce(usher.is_uuid(p.value -> 'session'), false)
        and p.value ->> 'role' in ('anon', 'authenticated') as is_caller
    from jsonb_array_elements(batch) with ordinality as p (value, n)
    order by p.n
  loop
    item := caller.n - 1;
    admission := null;
    failure := null;
    if not caller.is_caller then
      failure := '22023';
      return next;
      continue;
    end if;
    if acting <> caller.role then
      acting := set_config('role', caller.role, true);
    end if;
    ignored := set_config('request.jwt.claims', caller.claims, true);
    -- auth.uid() reads this setting first, so it need not parse the claims.
    ignored := set_config('request.jwt.claim.sub', caller.subject, true);
    begin
      admission := usher.admit(caller.session::uuid);
    exception
      when others then
        failure := sqlstate;
        acting := set_config('role', entry_role, true);
        if failure = '55P03' then
          perform usher.wait_no_more();
        end if;
    end;
    return next;
  end loop;
  ignored := set_config('role', entry_role, true);
  ignored := set_config('request.jwt.claims', '', true);
  ignored := set_config('request.jwt.claim.sub', '', true);
end
$$;

CREATE FUNCTION usher.append_event(session uuid, type text, data json) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return usher.append_to_log(session, type, null, data);
end
$$;

CREATE FUNCTION usher.append_to_log(session uuid, type text, message uuid, data json) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET trace_notify TO 'off'
    SET enable_seqscan TO 'off'
    AS $$
declare
  last bigint;
  channel text;
  is_told boolean;
  stamp timestamptz;
  event text;
begin
  update usher.session_heads h
  set seq = h.seq + 1
  where h.session_id = append_to_log.session
  returning h.seq, (select c.events from usher.channels c where c.only_row)
  into last, channel;
  if not found then
    return null;
  end if;
  -- Read after the lock is taken, so that times ascend with the numbers.
  stamp := clock_timestamp();
  insert into usher.session_events (session_id, seq, type, at, message_id, data)
  values (session, last, append_to_log.type, stamp, message, append_to_log.data);
  event := usher.wire_event(last, type, stamp, data);
  -- An assignment, here and elsewhere on the hot path: `perform` runs a query, which costs more.
  is_told := pg_notify(channel, usher.event_payload(session, last, event)) is not null;
  return last;
end
$$;

CREATE FUNCTION usher.append_to_logs(sessions uuid[], types text[], messages uuid[], datas json[], whole_events_max integer DEFAULT 20) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET trace_notify TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_material TO 'off'
    AS $$
declare
  stamp timestamptz;
  -- The sessions in the order of their ids, the number of events of each, and the newest number of each before them.
  logs uuid[];
  counts bigint[];
  heads bigint[];
  told bigint;
begin
  select array_agg(c.session_id), array_agg(c.count)
  into logs, counts
  from (select s.session_id, count(*) from unnest(sessions) as s (session_id) group by 1 order by 1) as c;

  select array_agg(l.seq)
  into heads
  from (
    select h.seq
    from usher.session_heads h
    where h.session_id = any (logs)
    order by h.session_id
    for no key update
  ) as l;
  if coalesce(cardinality(heads), 0) <> cardinality(logs) then
    -- Some sessions have no log. Calls itself with the others, whose heads are locked now.
    select array_agg(e.session_id), array_agg(e.type), array_agg(e.message_id), array_agg(e.data)
    into sessions, types, messages, datas
    from (
      select u.*
      from unnest(sessions, types, messages, datas) with ordinality as u (session_id, type, message_id, data, n)
      where exists (select 1 from usher.session_heads h where h.session_id = u.session_id)
      order by u.n
    ) as e;
    if sessions is not null then
      perform usher.append_to_logs(sessions, types, messages, datas, whole_events_max);
    end if;
    return;
  end if;

  update usher.session_heads h
  set seq = h.seq + c.count
  from unnest(logs, counts) as c (session_id, count)
  where h.session_id = c.session_id;
  stamp := clock_timestamp();

  with numbered as materialized (
    select
      e.session_id, e.type, e.message_id, e.data, e.place,
      heads[e.log] + e.place as seq,
      e.place = counts[e.log] as is_last
    from (
      select
        u.*,
        -- Ranked by id, because `logs` is sorted by id.
        (dense_rank() over (order by u.session_id))::integer as log,
        row_number() over (partition by u.session_id order by u.n) as place
      from unnest(sessions, types, messages, datas) with ordinality as u (session_id, type, message_id, data, n)
    ) as e
  ),
  logged as (
    insert into usher.session_events (session_id, seq, type, at, message_id, data)
    select n.session_id, n.seq, n.type, stamp, n.message_id, n.data
    from numbered n
  )
  select count(pg_notify(
    (select c.events from usher.channels c where c.only_row), usher.event_payload(t.session_id, t.seq, t.event)
  ))
  into told
  from (
    select
      n.session_id, n.seq,
      case when n.place <= whole_events_max then usher.wire_event(n.seq, n.type, stamp, n.data) end as event
    from numbered n
    where n.place <= whole_events_max or n.is_last
    order by n.session_id, n.seq
  ) as t;
end
$$;

CREATE FUNCTION usher.apply_votes(votings uuid[], movie_ids uuid[], deltas bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET trace_notify TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_material TO 'off'
    AS $$
declare
  gone uuid[];
begin
  insert into usher.vote_tallies as t (voting_session_id, movie_id, slot, votes, revision)
  select d.voting_id, d.movie_id, usher.tally_slot(), d.delta, 1
  from unnest(votings, movie_ids, deltas) as d (voting_id, movie_id, delta)
  where (d.delta <> 0 or d.movie_id = '00000000-0000-0000-0000-000000000000')
    and exists (select 1 from public.voting_sessions v where v.id = d.voting_id)
  order by d.voting_id, d.movie_id
  on conflict on constraint vote_tallies_pkey
  do update set votes = t.votes + excluded.votes, revision = t.revision + 1;

  with changed as (
    insert into usher.vote_total_changes (voting_session_id)
    select distinct c.id from unnest(votings) as c (id)
    returning voting_session_id as id
  )
  select array_agg(c.id) filter (where not exists (select 1 from public.voting_sessions v where v.id = c.id))
  into gone
  from (select d.id, pg_notify((select n.votes from usher.channels n where n.only_row), d.id::text) from changed d) as c;
  if gone is not null then
    delete from usher.vote_tallies t where t.voting_session_id = any (gone);
  end if;
end
$$;

CREATE FUNCTION usher.ballot_lock_key(voting uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN hashtextextended(('usher.ballot:'::text || (voting)::text), (0)::bigint);

CREATE FUNCTION usher.ballot_options(voting uuid) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.banned_sessions() RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return query
    select b.session_id
    from public.session_bans b
    join public.movie_sessions s on s.id = b.session_id
    where b.user_id = auth.uid() and b.until is null and s.streamer_id <> b.user_id;
end
$$;

CREATE FUNCTION usher.begin_batch() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.bucket_settings(OUT name text, OUT is_public boolean, OUT bytes_max bigint, OUT mime_types text[]) RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select b.id, coalesce(b.public, false), b.file_size_limit, b.allowed_mime_types
  from storage.buckets b
  where b.id in ('avatars', 'posters')
$$;

CREATE FUNCTION usher.cast_votes(batch jsonb) RETURNS TABLE(item integer, refusal text, retry_after_ms integer, detail text, voting uuid, movie uuid)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION usher.channel_names(OUT events text, OUT votes text, OUT control text) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  select c.events, c.votes, c.control
  into channel_names.events, channel_names.votes, channel_names.control
  from usher.channels c
  where c.only_row;
end
$$;

CREATE FUNCTION usher.is_uuid(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN ((jsonb_typeof(value) = 'string'::text) AND ((value #>> '{}'::text[]) ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'::text));

CREATE FUNCTION usher.check_author(item jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (jsonb_typeof(item) IS DISTINCT FROM 'object'::text) THEN 'item'::text WHEN (jsonb_typeof((item -> 'role'::text)) IS DISTINCT FROM 'string'::text) THEN 'role'::text WHEN (jsonb_typeof((item -> 'claims'::text)) IS DISTINCT FROM 'object'::text) THEN 'claims'::text WHEN (((item ->> 'role'::text) = 'authenticated'::text) AND (NOT COALESCE(usher.is_uuid(((item -> 'claims'::text) -> 'sub'::text)), false))) THEN 'claims'::text ELSE NULL::text END;

CREATE FUNCTION usher.close_due_voting(voting uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform 1
  from public.voting_sessions v
  where v.id = voting and v.state = 'open' and v.closes_at <= clock_timestamp()
  for no key update;
  return found and usher.close_votings(array[voting]) > 0;
end
$$;

CREATE FUNCTION usher.close_due_votings() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  stamp constant timestamptz := clock_timestamp();
  due uuid[];
begin
  select array_agg(d.id)
  into due
  from (
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= stamp
    order by v.id
    for no key update skip locked
  ) as d;
  return usher.close_votings(due);
end
$$;

CREATE FUNCTION usher.close_votings(votings uuid[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.compact_results(results jsonb) RETURNS json
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.count_votes(voting uuid) RETURNS jsonb
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select jsonb_build_object(
    'total', coalesce(sum(c.votes), 0),
    'counts', coalesce(jsonb_agg(jsonb_build_object('movie', c.movie_id, 'votes', c.votes) order by c.position, c.movie_id), '[]')
  )
  from (
    select o.movie_id, o.position, count(v.user_id) as votes
    from public.voting_options o
    left join public.votes v on v.voting_session_id = o.voting_session_id and v.movie_id = o.movie_id
    where o.voting_session_id = count_votes.voting
    group by o.movie_id, o.position
  ) as c
$$;

CREATE FUNCTION usher.count_writes(kind text, session uuid, rows integer, is_row boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_variable
declare
  author constant uuid := auth.uid();
  request constant timestamptz := statement_timestamp();
  bound usher.write_limits;
  size interval;
  this_bucket timestamptz;
  part numeric;
  current integer := rows;
  previous integer := 0;
  at_once integer := rows;
  rows_max integer;
  window_max integer;
  wait_ms bigint;
begin
  select * into bound from usher.write_limits l where l.kind = kind;
  if not found then
    return true;
  end if;
  -- Counts only in sessions that exist, so that a caller cannot fill the table with random ids. The nil uuid means all
  -- of them.
  if not is_row and session is distinct from '00000000-0000-0000-0000-000000000000' then
    perform 1 from public.movie_sessions m where m.id = session;
    if not found then
      return true;
    end if;
  end if;
  size := make_interval(secs => bound.window_seconds);
  this_bucket := date_bin(size, clock_timestamp(), 'epoch');

  if author is not null then
    insert into usher.write_counts as c
      (author, session_id, kind, bucket_start, current, previous, request_at, request_rows)
    values (author, session, kind, this_bucket, rows, 0, request, rows)
    on conflict on constraint write_counts_pkey
    do update set
      bucket_start = this_bucket,
      current = case c.bucket_start when this_bucket then c.current else 0 end + rows,
      previous = case c.bucket_start when this_bucket then c.previous when this_bucket - size then c.current else 0 end,
      request_at = request,
      request_rows = case c.request_at when request then c.request_rows else 0 end + rows
    returning c.current, c.previous, case when is_row then c.request_rows else rows end
    into current, previous, at_once;
  end if;

  if at_once > bound.rows_per_statement or current + previous > bound.rows_per_window then
    rows_max := bound.rows_per_statement;
    window_max := bound.rows_per_window;
    if coalesce((select s.moderator from usher.standing(session) s), usher.is_streamer()) then
      rows_max := bound.moderator_rows_per_statement;
      window_max := bound.moderator_rows_per_window;
    end if;
    -- The part of this bucket that has passed. The previous bucket counts for the rest of the window.
    part := extract(epoch from clock_timestamp() - this_bucket) / bound.window_seconds;
    if at_once > least(rows_max, window_max) then
      raise exception using
        errcode = 'US010',
        message = format('a request can write at most %s rows of this kind in a session', least(rows_max, window_max)),
        detail = 'rows_max=' || least(rows_max, window_max);
    elsif current + previous * (1 - part) > window_max then
      -- The time until enough rows of the previous bucket have left the window, or else of this bucket.
      wait_ms := ceil(1000 * bound.window_seconds * case
        when current <= window_max then 1 - part - (window_max - current)::numeric / previous
        else 2 - part - (window_max - at_once)::numeric / (current - at_once)
      end);
      raise exception using
        errcode = 'US010',
        message = format('too many writes; wait %s s', ceil(wait_ms / 1000.0)),
        detail = 'retry_after_ms=' || wait_ms;
    end if;
  end if;

  -- One new row in ten also deletes up to 100 rows that are too old to count.
  if current = rows and previous = 0 and random() < 0.1 then
    delete from usher.write_counts c
    where c.ctid = any (array(
      select d.ctid
      from usher.write_counts d
      where d.bucket_start < this_bucket - interval '2 hours'
      order by d.bucket_start
      limit 100
      for update skip locked
    ));
  end if;
  return true;
end
$$;

CREATE FUNCTION usher.create_profile(account uuid, metadata jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  wish text := (
    select lower(metadata ->> w.field)
    from unnest(array['username', 'user_name', 'preferred_username']) with ordinality as w (field, n)
    where jsonb_typeof(metadata -> w.field) = 'string' and lower(metadata ->> w.field) ~ '^[a-z0-9_]{3,32}$'
    order by w.n
    limit 1
  );
  candidate text := wish;
  shown constant text := (
    select s.name
    from unnest(array['display_name', 'full_name', 'name']) with ordinality as f (field, n)
    cross join lateral (select left(btrim(metadata ->> f.field), 64)) as s (name)
    where jsonb_typeof(metadata -> f.field) = 'string'
      and usher.is_line(s.name)
      and not usher.holds_address(metadata ->> f.field)
    order by f.n
    limit 1
  );
begin
  if wish is null then
    wish := 'user';
    candidate := 'user_' || substr(replace(account::text, '-', ''), 1, 8);
  end if;
  -- A username that is taken gets a random suffix.
  for attempt in 1..20 loop
    begin
      insert into public.profiles (id, username, display_name)
      values (account, candidate, coalesce(shown, candidate))
      on conflict (id) do nothing;
      return;
    exception
      when unique_violation then
        candidate := left(wish, 23) || '_' || substr(md5(random()::text || account::text), 1, 8);
    end;
  end loop;
  raise exception 'found no free username for account %', account;
end
$_$;

CREATE FUNCTION usher.due_votings(max_count integer) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  stamp constant timestamptz := clock_timestamp();
begin
  return query
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= stamp
    order by v.closes_at, v.id
    limit greatest(max_count, 0);
end
$$;

CREATE FUNCTION usher.end_batch() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform set_config('request.jwt.claims', '', true), set_config('request.jwt.claim.sub', '', true);
  set constraints all immediate;
end
$$;

CREATE FUNCTION usher.enter_ballot(voting uuid, as_caller boolean, OUT allow_change boolean) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  voter constant uuid := auth.uid();
  ballot record;
  caller record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    -- An older snapshot would show a closed poll as open.
    raise exception using
      errcode = 'feature_not_supported',
      message = format(
        'voting needs isolation level read committed; this transaction has %s',
        current_setting('transaction_isolation')
      ),
      hint = 'Begin it with: begin isolation level read committed';
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
    raise exception using errcode = 'US005', message = 'no such poll';
  end if;

  if as_caller then
    select * into caller from usher.standing(ballot.session_id);
    if not found then
      raise exception using errcode = 'US005', message = 'no such poll';
    elsif caller.ban_until is not null or caller.ended or not caller.writer then
      perform usher.require_writer(ballot.session_id);
    end if;
  end if;

  if ballot.state <> 'open' or ballot.closes_at <= clock_timestamp() then
    raise exception using errcode = 'US008', message = 'the poll is not open';
  end if;
  allow_change := ballot.allow_change;
end
$$;

CREATE FUNCTION usher.epoch() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select left(md5(
      concat_ws(
        ':', i.id, i.xmin, 'usher.session_events'::regclass::oid, d.oid, c.system_identifier,
        left(pg_walfile_name(pg_current_wal_lsn()), 8)
      )
    ), 12)
    from usher.identity i
    cross join pg_control_system() c
    join pg_database d on d.datname = current_database()
  );
end
$$;

CREATE FUNCTION usher.event_data(type text, subject uuid) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  if type like 'voting.%' then
    return usher.voting_data(subject, case when type = 'voting.opened' then 'open' end);
  elsif type = 'session.updated' then
    return (select row_to_json(s) from public.movie_sessions s where s.id = subject);
  end if;
  return null;
end
$$;

CREATE FUNCTION usher.event_payload(session uuid, seq bigint, event text) RETURNS text
    LANGUAGE sql STABLE
    RETURN (((('{"s":"'::text || session) || '","q":'::text) || seq) || CASE WHEN (octet_length((((((('{"s":"'::text || session) || '","q":'::text) || seq) || ',"e":'::text) || event) || '}'::text)) < 7900) THEN ((',"e":'::text || event) || '}'::text) ELSE '}'::text END);

CREATE FUNCTION usher.events_after(session uuid, after bigint, max_events integer, max_bytes integer) RETURNS TABLE(seq bigint, event text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
    select p.seq, p.event
    from (
      select
        w.seq,
        w.event,
        row_number() over (order by w.seq) as n,
        sum(octet_length(w.event)) over (order by w.seq) as bytes
      from (
        select e.seq, usher.wire_event(e.seq, e.type, e.at, e.data) as event
        from usher.session_events e
        where e.session_id = events_after.session and e.seq > events_after.after
        order by e.seq
        limit greatest(events_after.max_events, 0)
      ) as w
    ) as p
    -- Consecutive from after + 1, or nothing. So a caller below the floor never gets events with a gap.
    where p.seq = events_after.after + p.n and (p.n = 1 or p.bytes <= events_after.max_bytes)
    order by p.seq;
end
$$;

CREATE FUNCTION usher.expect_events() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  has_others boolean;
begin
  select t.has_others into has_others from usher.pending_transactions t where t.xact = pg_current_xact_id();
  if not found then
    insert into usher.pending_transactions (has_events, has_others) values (true, true);
  elsif not has_others then
    update usher.pending_transactions t
    set has_events = true, has_others = true
    where t.xact = pg_current_xact_id();
  end if;
end
$$;

CREATE FUNCTION usher.fold_events(tx xid8) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
declare
  gone constant uuid[] := array(
    select p.session_id
    from usher.pending_events p
    where p.xact = tx and p.type = 'session.deleted'
      and not exists (select 1 from public.movie_sessions s where s.id = p.session_id)
  );
  is_repeated boolean;
begin
  if cardinality(gone) > 0 then
    delete from usher.pending_events p
    where p.xact = tx and p.type <> 'session.deleted' and p.session_id = any (gone);
  end if;

  select count(p.subject) > count(distinct p.subject)
  into is_repeated
  from usher.pending_events p
  where p.xact = tx;
  if not is_repeated then
    return;
  end if;

  delete from usher.pending_events p
  where p.xact = tx and p.n = any (array(
    select e.n
    from (
      select
        r.n,
        r.type,
        r.state,
        r.n = max(r.n) over (partition by r.subject, r.type) as is_last,
        bool_or(r.type in ('chat.created', 'voting.opened', 'voting.closed')) over (partition by r.subject) as is_told,
        max(r.n) filter (where r.type = 'chat.created') over before as created_before,
        max(r.n) filter (where r.type = 'chat.deleted') over before as deleted_before,
        max(r.n) filter (where r.type = 'chat.created') over (partition by r.subject) as created_last
      from (
        select
          q.n, q.type, q.subject,
          case when q.type like 'chat.%' then (
            select case when m.deleted_at is null then 'live' else 'deleted' end
            from public.chat_messages m
            where m.id = q.subject
          ) end as state
        from usher.pending_events q
        where q.xact = tx and q.subject is not null
      ) as r
      window before as (partition by r.subject order by r.n rows between unbounded preceding and 1 preceding)
    ) as e
    where case e.type
      when 'chat.created' then e.state is null
      when 'chat.updated' then e.state is distinct from 'live' or e.is_told or not e.is_last
      when 'chat.deleted' then
        coalesce(e.deleted_before > coalesce(e.created_before, 0), false)
        or (e.state = 'live' and coalesce(e.created_last, 0) < e.n)
        or (e.state is null and e.created_before is not null)
      when 'voting.updated' then e.is_told or not e.is_last
      when 'session.updated' then not e.is_last
      else false
    end
  ));
end
$$;

CREATE FUNCTION usher.forget_in(data json, person uuid) RETURNS json
    LANGUAGE sql IMMUTABLE
    RETURN (replace(replace((data)::text, (('"deleted_by":"'::text || person) || '"'::text), '"deleted_by":null'::text), (('"'::text || person) || '"'::text), '"00000000-0000-0000-0000-000000000000"'::text))::json;

CREATE FUNCTION usher.forget_people(people uuid[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.gather_events() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  insert into usher.pending_events (n, depth, session_id, type, subject)
  select 0, t.depth, t.session_id, 'chat.created', t.message_id
  from usher.pending_transactions t
  where t.xact = pg_current_xact_id() and t.message_id is not null;
  if found then
    update usher.pending_transactions t set message_id = null, has_events = true where t.xact = pg_current_xact_id();
  end if;
end
$$;

CREATE FUNCTION usher.guard_chat_message() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (new.id, new.session_id, new.user_id) <> (old.id, old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'the id, session and author of a message cannot change';
  end if;
  if row_security_active(tg_relid) then
    if old.deleted_at is not null then
      raise exception using errcode = 'US009', message = 'the message is deleted';
    end if;
    if new.body is distinct from old.body then
      if new.user_id is distinct from auth.uid() then
        raise exception using errcode = 'US004', message = 'only the author can edit a message';
      end if;
      perform usher.require_chatter(new.session_id, new.body, false);
    end if;
    if new.deleted_at is not null then
      new.deleted_at := clock_timestamp();
      new.deleted_by := auth.uid();
    end if;
  end if;
  if new.body is distinct from old.body then
    new.edited_at := clock_timestamp();
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_display_name() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if usher.holds_address(new.display_name) and (tg_op = 'INSERT' or new.display_name <> old.display_name) then
    raise exception using
      errcode = 'US007', message = 'display_name must not contain an e-mail address', detail = 'display_name';
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_lines() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  changed constant jsonb := to_jsonb(new);
  before constant jsonb := case when tg_op = 'UPDATE' then to_jsonb(old) else '{}' end;
  field text;
begin
  foreach field in array tg_argv loop
    if changed ->> field is distinct from before ->> field and not usher.is_line(changed ->> field) then
      raise exception using
        errcode = 'US007',
        message = format('%s must be one line of visible text', field),
        detail = field;
    end if;
  end loop;
  return new;
end
$$;

CREATE FUNCTION usher.guard_movie_session() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if tg_op = 'UPDATE' then
    if new.id <> old.id then
      raise exception using errcode = 'US007', message = 'the id of a session cannot change';
    end if;
    if row_security_active(tg_relid) then
      if old.status = 'ended' and new.status <> 'ended' then
        raise exception using errcode = 'US003', message = 'an ended session cannot be reopened';
      end if;
      if old.status = 'live' and new.status = 'scheduled' then
        raise exception using errcode = 'US009', message = 'a live session cannot go back to scheduled; end it instead';
      end if;
      if not (old.streamer_id = auth.uid() or usher.is_admin())
        and (new.title, new.movie_id, new.status, new.visibility, new.starts_at)
          is distinct from (old.title, old.movie_id, old.status, old.visibility, old.starts_at)
      then
        raise exception using errcode = 'US004', message = 'moderators can change only slow mode and chat';
      end if;
    end if;
  end if;
  if new.status in ('live', 'ended') and new.started_at is null then
    new.started_at := now();
  end if;
  if new.status = 'ended' and new.ended_at is null then
    new.ended_at := greatest(now(), new.started_at);
  elsif new.status <> 'ended' then
    new.ended_at := null;
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_overlay_token() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (new.id, new.session_id) <> (old.id, old.session_id) then
    raise exception using errcode = 'US007', message = 'the id and session of an overlay token cannot change';
  end if;
  if row_security_active(tg_relid) then
    if new.revoked_at is null and old.revoked_at is not null then
      raise exception using errcode = 'US009', message = 'a revoked token cannot be restored';
    end if;
    new.revoked_at := coalesce(old.revoked_at, case when new.revoked_at is not null then now() end);
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_session_ban() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if tg_op = 'UPDATE' and (new.session_id, new.user_id) <> (old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'a ban cannot move to another user or session';
  end if;
  if row_security_active(tg_relid) then
    new.banned_by := auth.uid();
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_vote() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  as_caller constant boolean := row_security_active(tg_relid);
  allow_change boolean;
begin
  if tg_op = 'DELETE' then
    if not as_caller then
      -- The owner's deletes come from deleted accounts, options and polls. They are always allowed, but a close must
      -- wait for them too, so they take the lock.
      perform pg_advisory_xact_lock_shared(usher.ballot_lock_key(old.voting_session_id));
    elsif not usher.enter_ballot(old.voting_session_id, true) then
      raise exception using errcode = 'US009', message = 'a vote in this poll is final';
    end if;
    return old;
  end if;

  allow_change := usher.enter_ballot(new.voting_session_id, as_caller);
  if tg_op = 'UPDATE' then
    if (new.voting_session_id, new.user_id) <> (old.voting_session_id, old.user_id) then
      raise exception using errcode = 'US007', message = 'the poll and the voter of a vote cannot change';
    elsif new.movie_id <> old.movie_id and not allow_change and as_caller then
      raise exception using errcode = 'US009', message = 'a vote in this poll is final';
    end if;
    new.updated_at := now();
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_voting_request() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if row_security_active(tg_relid) then
    perform usher.require_writer(new.session_id);
    if tg_op = 'UPDATE' and old.state = 'closed' then
      raise exception using errcode = 'US008', message = 'a closed poll is final';
    end if;
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.guard_voting_session() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if tg_op = 'INSERT' then
    if new.state = 'closed' then
      new.results := coalesce(new.results, usher.count_votes(new.id));
    else
      new.results := null;
    end if;
  else
    if (new.id, new.session_id) <> (old.id, old.session_id) then
      raise exception using errcode = 'US007', message = 'the id and session of a poll cannot change';
    elsif new.state <> old.state and (old.state, new.state) not in (('draft', 'open'), ('open', 'closed')) then
      raise exception using
        errcode = 'US009', message = format('a poll cannot go from %s to %s', old.state, new.state);
    end if;
    -- Waits for voters before a count starts or ends: at the close, and where the counts become public or secret.
    if old.state = 'open' and (new.state <> 'open' or new.results_visibility <> old.results_visibility) then
      if current_setting('transaction_isolation') <> 'read committed' then
        -- An older snapshot would miss votes that were committed during the wait.
        raise exception using
          errcode = 'feature_not_supported',
          message = format(
            'closing a poll or showing its counts needs isolation level read committed; this transaction has %s',
            current_setting('transaction_isolation')
          ),
          hint = 'Begin it with: begin isolation level read committed';
      end if;
      perform pg_advisory_xact_lock(usher.ballot_lock_key(new.id));
    end if;
    if old.state = 'open' and new.state = 'closed' then
      new.closes_at := least(new.closes_at, greatest(clock_timestamp(), new.opens_at + interval '1 microsecond'));
      new.results := usher.count_votes(new.id);
    elsif old.state <> 'closed' then
      new.results := null;
    end if;
    new.updated_at := now();
  end if;

  if new.state = 'open' and (tg_op = 'INSERT' or old.state <> 'open') then
    new.opens_at := least(new.opens_at, now());
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.has_ink(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (value ~ '[^\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f-\u1160\u1680\u17b4-\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]'::text);

CREATE FUNCTION usher.heads(sessions uuid[]) RETURNS TABLE(session_id uuid, head bigint, floor bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
    select h.session_id, h.seq, h.floor
    from usher.session_heads h
    where h.session_id = any (heads.sessions);
end
$$;

CREATE FUNCTION usher.holds_address(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (value ~ '[^\u0001-\u0020\u00a0@][@\ufe6b\uff20][^\u0001-\u0020\u00a0@]'::text);

CREATE FUNCTION usher.is_admin() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return coalesce(usher.profile_role() = 'admin', false);
end
$$;

CREATE FUNCTION usher.is_line(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (usher.has_ink(value) AND (value !~ '[\u0001-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb]'::text));

CREATE FUNCTION usher.is_overlay(session uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return exists (
    select 1
    from public.overlay_tokens t
    where t.id = auth.uid()
      and t.session_id = is_overlay.session
      and t.revoked_at is null
      and t.expires_at > clock_timestamp()
  );
end
$$;

CREATE FUNCTION usher.is_row_checked(setting text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return set_config(setting, (coalesce(nullif(current_setting(setting, true), ''), '0')::integer + 1)::text, true)::integer % 20 = 0;
end
$$;

CREATE FUNCTION usher.is_staff() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return coalesce(usher.profile_role() in ('moderator', 'admin'), false);
end
$$;

CREATE FUNCTION usher.is_streamer() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return coalesce(usher.profile_role() in ('streamer', 'admin'), false);
end
$$;

CREATE FUNCTION usher.joined_sessions() RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return query
    select m.session_id from public.session_members m where m.user_id = auth.uid();
end
$$;

CREATE FUNCTION usher.limit_rows() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.refuse_rows_above(tg_argv[0], current_setting(tg_argv[1])::integer);
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;

CREATE FUNCTION usher.limit_writes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  sessions uuid[];
  ignored text;
begin
  if tg_argv[1] = 'session_id' then
    sessions := array(select c.session_id from changed_rows c);
  elsif tg_argv[1] = 'voting_session_id' then
    sessions := array(select usher.session_of((to_jsonb(c) ->> 'voting_session_id')::uuid) from changed_rows c);
  elsif tg_argv[1] = '' then
    sessions := array(select '00000000-0000-0000-0000-000000000000'::uuid from changed_rows);
  else
    sessions := array(select (to_jsonb(c) ->> tg_argv[1])::uuid from changed_rows c);
  end if;
  if tg_nargs > 2 then
    ignored := set_config(tg_argv[2], '0', true);
    if cardinality(sessions) > 20 then
      perform usher.refuse_rows_above(tg_argv[0], cardinality(sessions));
    end if;
  end if;
  if cardinality(sessions) = 1 then
    perform usher.count_writes(tg_argv[0], sessions[1], 1, false);
  elsif cardinality(sessions) > 1 then
    perform usher.count_writes(tg_argv[0], c.session_id, c.count, false)
    from (
      select s.session_id, count(*)::integer as count
      from unnest(sessions) as s (session_id)
      group by s.session_id
      order by s.session_id
    ) as c;
  end if;
  return null;
end
$$;

CREATE FUNCTION usher.lock_for_deletion(sessions uuid[], account uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.logs_naming(people uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  return array(
    select distinct e.session_id
    from usher.session_events e
    where coalesce(e.data ->> 'deleted_by', e.data ->> 'user_id', e.data ->> 'streamer_id') = any (people::text[])
      and e.type in ('chat.deleted', 'member.banned', 'member.unbanned', 'session.updated')
  );
end
$$;

CREATE FUNCTION usher.message_numbers(ids uuid[]) RETURNS TABLE(message_id uuid, seq bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
    select e.message_id, (array_agg(e.seq order by e.at desc, e.seq desc))[1]
    from usher.session_events e
    where e.message_id = any (ids) and e.type = 'chat.created'
    group by e.message_id;
end
$$;

CREATE FUNCTION usher.message_positions(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer) RETURNS TABLE(id uuid, seq bigint, place text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION usher.messages_before(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer, OUT messages text[], OUT next text) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.messages_of_request() RETURNS integer
    LANGUAGE sql
    RETURN (split_part(set_config('usher.messages_written'::text, ((statement_timestamp() || ' '::text) || (1 + CASE WHEN (current_setting('usher.messages_written'::text, true) ~~ (statement_timestamp() || ' %'::text)) THEN (split_part(current_setting('usher.messages_written'::text, true), ' '::text, 3))::integer ELSE 0 END)), true), ' '::text, 3))::integer;

CREATE FUNCTION usher.moderated_sessions() RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return query
    select s.id from public.movie_sessions s where s.streamer_id = auth.uid()
    union all
    select m.session_id from public.session_members m where m.user_id = auth.uid() and m.role = 'moderator';
end
$$;

CREATE FUNCTION usher.moderates_voting(voting uuid, states text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select exists (
      select 1
      from public.voting_sessions v
      where v.id = voting
        and v.state = any (states)
        and (usher.is_staff() or v.session_id in (select usher.moderated_sessions()))
    )
  );
end
$$;

CREATE FUNCTION usher.my_votes(session uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select coalesce(jsonb_object_agg(v.voting_session_id, v.movie_id), '{}')
    from public.voting_sessions s
    join public.votes v on v.voting_session_id = s.id and v.user_id = auth.uid()
    where s.session_id = my_votes.session
  );
end
$$;

CREATE FUNCTION usher.notify_access(session uuid, member uuid) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET trace_notify TO 'off'
    AS $$
  select pg_notify(
    (select c.control from usher.channels c where c.only_row),
    '{"kind":"access"'
    || coalesce(',"session":"' || session || '"', '')
    || coalesce(',"user":"' || member || '"', '')
    || '}'
  )
$$;

CREATE FUNCTION usher.notify_access_of_many(sessions uuid[], members uuid[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select usher.notify_access(c.session_id, case when c.count <= 20 then c.user_id end)
  from (
    select d.session_id, d.user_id, count(*) over (partition by d.session_id) as count
    from (select distinct * from unnest(sessions, members) as u (session_id, user_id)) as d
  ) as c
$$;

CREATE FUNCTION usher.on_account_created() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.create_profile(new.id, coalesce(new.raw_user_meta_data, '{}'));
  return new;
end
$$;

CREATE FUNCTION usher.on_ban_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_bans_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.on_commit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
declare
  is_early constant boolean := pg_trigger_depth() > 1;
  last_command bigint;
  this_command bigint;
  ignored uuid[];
begin
  if is_early then
    set constraints usher.pending_transactions_settled deferred;
  elsif new.was_called then
    update usher.pending_transactions t
    set depth = t.depth
    from usher.pending_transactions o
    where t.xact = new.xact and o.xact = new.xact
    returning o.cmin::text::bigint, t.cmin::text::bigint
    into last_command, this_command;
    if this_command = last_command + 1 then
      ignored := usher.settle();
      return null;
    end if;
  end if;
  update usher.pending_transactions t set was_called = not is_early where t.xact = new.xact;
  return null;
end
$$;

CREATE FUNCTION usher.on_members_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.on_message_created() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  has_events boolean;
begin
  -- Here too, because require_chatter does not check table owners and service roles.
  if not usher.has_ink(new.body) then
    perform usher.refuse_blank_message();
  end if;
  select t.has_events into has_events from usher.pending_transactions t where t.xact = pg_current_xact_id();
  if not found then
    insert into usher.pending_transactions (depth, session_id, message_id)
    values (pg_trigger_depth(), new.session_id, new.id);
  else
    if not has_events then
      update usher.pending_transactions t set has_events = true where t.xact = pg_current_xact_id();
    end if;
    insert into usher.pending_events (depth, session_id, type, subject)
    values (pg_trigger_depth(), new.session_id, 'chat.created', new.id);
  end if;
  -- An import of a message that is already deleted.
  if new.deleted_at is not null then
    perform usher.expect_events();
    insert into usher.pending_events (session_id, type, subject, deleted_at, deleted_by)
    values (new.session_id, 'chat.deleted', new.id, new.deleted_at, new.deleted_by);
  end if;
  return null;
end
$$;

CREATE FUNCTION usher.on_message_removed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  has_others boolean;
begin
  -- Inlines the check of usher.expect_events, so that a cascade over thousands of messages does not call it for each
  -- one.
  select t.has_others into has_others from usher.pending_transactions t where t.xact = pg_current_xact_id();
  if has_others is not true then
    perform usher.expect_events();
  end if;
  insert into usher.pending_events (session_id, type, subject, deleted_at, deleted_by)
  select
    s.id, 'chat.deleted', old.id, coalesce(old.deleted_at, now()),
    case when old.deleted_at is null then auth.uid() else old.deleted_by end
  from public.movie_sessions s
  where s.id = old.session_id;
  return null;
end
$$;

CREATE FUNCTION usher.on_message_updated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- The guard has already refused this, unless a later BEFORE trigger changed the row.
  if (new.id, new.session_id, new.user_id) <> (old.id, old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'the id, session and author of a message cannot change';
  end if;
  if new.body is distinct from old.body and not usher.has_ink(new.body) then
    perform usher.refuse_blank_message();
  end if;
  if new.deleted_at is null then
    perform usher.expect_events();
    insert into usher.pending_events (session_id, type, subject)
    values (new.session_id, 'chat.updated', new.id);
  elsif old.deleted_at is null then
    perform usher.expect_events();
    insert into usher.pending_events (session_id, type, subject, deleted_at, deleted_by)
    values (new.session_id, 'chat.deleted', new.id, new.deleted_at, new.deleted_by);
  end if;
  return null;
end
$$;

CREATE FUNCTION usher.on_option_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_overlay_tokens_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.notify_access_of_many(array_agg(c.session_id), array_agg(c.id))
  from changed_rows c
  having count(*) > 0;
  return null;
end
$$;

CREATE FUNCTION usher.on_profile_deleting() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_profile_role_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.notify_access(null, new.id);
  return null;
end
$$;

CREATE FUNCTION usher.on_session_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.record_event(old.id, 'session.deleted', null, null);
  return null;
end
$$;

CREATE FUNCTION usher.on_session_deleting() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.lock_for_deletion(array[old.id], null);
  return old;
end
$$;

CREATE FUNCTION usher.on_session_gone() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.notify_access(old.id, null);
  return null;
end
$$;

CREATE FUNCTION usher.on_session_updated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_sessions_created() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  insert into usher.session_heads (session_id)
  select n.id from new_rows n order by n.id
  on conflict on constraint session_heads_pkey do nothing;
  return null;
end
$$;

CREATE FUNCTION usher.on_sessions_ended() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_nestloop TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_vote_cast() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.record_vote(new.voting_session_id, new.movie_id, 1);
  return null;
end
$$;

CREATE FUNCTION usher.on_vote_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.record_vote(old.voting_session_id, old.movie_id, -1);
  perform usher.record_vote(new.voting_session_id, new.movie_id, 1);
  return null;
end
$$;

CREATE FUNCTION usher.on_vote_withdrawn() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.record_vote(old.voting_session_id, old.movie_id, -1);
  return null;
end
$$;

CREATE FUNCTION usher.on_voting_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.on_voting_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.on_voting_deleting() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform pg_advisory_xact_lock(usher.ballot_lock_key(old.id));
  return old;
end
$$;

CREATE FUNCTION usher.on_voting_tallied() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.record_vote(
    case when tg_op = 'DELETE' then old.id else new.id end, '00000000-0000-0000-0000-000000000000', 0
  );
  return null;
end
$$;

CREATE FUNCTION usher.outranks(session uuid, target uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select target <> auth.uid()
      and not exists (select 1 from public.movie_sessions s where s.id = outranks.session and s.streamer_id = target)
      and (
        usher.owns_session(outranks.session)
        or not (
          exists (select 1 from public.profiles p where p.id = target and p.role in ('moderator', 'admin'))
          or exists (
            select 1
            from public.session_members m
            where m.session_id = outranks.session and m.user_id = target and m.role = 'moderator'
          )
        )
      )
  );
end
$$;

CREATE FUNCTION usher.owns_session(session uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select usher.is_admin()
      or exists (select 1 from public.movie_sessions s where s.id = owns_session.session and s.streamer_id = auth.uid())
  );
end
$$;

CREATE FUNCTION usher.pace_lock_key(session uuid, author uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN hashtextextended((('usher.pace:'::text || session) || author), (0)::bigint);

CREATE FUNCTION usher.post_messages(batch jsonb) RETURNS TABLE(item integer, seq bigint, message uuid, created boolean, refusal text, retry_after_ms integer, detail text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION usher.prepare_settlement(tx xid8) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET trace_notify TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
declare
  wanted record;
  told bigint;
begin
  perform usher.fold_events(tx);
  select
    array_agg(distinct p.session_id) as sessions,
    array_agg(distinct p.session_id) filter (where p.type = 'session.deleted') as deleted_sessions,
    array_agg(distinct p.subject) filter (where p.type = 'account.deleted') as people
  into wanted
  from usher.pending_events p
  where p.xact = tx;
  if wanted.people is not null then
    wanted.sessions := wanted.sessions || usher.logs_naming(wanted.people);
  end if;
  perform 1
  from usher.session_heads h
  where h.session_id = any (wanted.sessions)
  order by h.session_id
  for no key update;

  if wanted.deleted_sessions is not null then
    delete from usher.session_events e where e.session_id = any (wanted.deleted_sessions);
    delete from usher.session_heads h
    where h.session_id = any (wanted.deleted_sessions)
      and not exists (select 1 from public.movie_sessions s where s.id = h.session_id);
    -- A session that was deleted and inserted again keeps counting, but skips one number. Its viewers then cannot
    -- continue from their old position: they start over, without the deleted messages.
    with again as (
      update usher.session_heads h
      set seq = h.seq + 1, floor = h.seq + 1
      where h.session_id = any (wanted.deleted_sessions)
      returning h.session_id, h.seq
    )
    select count(
      pg_notify((select c.events from usher.channels c where c.only_row), '{"s":"' || a.session_id || '","q":' || a.seq || '}')
    )
    into told
    from again a;
  end if;
  if wanted.people is not null then
    perform usher.forget_people(wanted.people);
  end if;
end
$$;

CREATE FUNCTION usher.profile_role() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (select p.role from public.profiles p where p.id = auth.uid());
end
$$;

CREATE FUNCTION usher.record_event(session uuid, type text, subject uuid, data json) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform usher.expect_events();
  insert into usher.pending_events (session_id, type, subject, data)
  values (session, record_event.type, record_event.subject, record_event.data);
end
$$;

CREATE FUNCTION usher.record_vote(voting uuid, movie uuid, delta bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  has_votes boolean;
begin
  select t.has_votes into has_votes from usher.pending_transactions t where t.xact = pg_current_xact_id();
  if not found then
    insert into usher.pending_transactions (has_votes) values (true);
  elsif not has_votes then
    update usher.pending_transactions t set has_votes = true where t.xact = pg_current_xact_id();
  end if;
  insert into usher.pending_votes (voting_session_id, movie_id, delta) values (voting, movie, record_vote.delta);
end
$$;

CREATE FUNCTION usher.redact(data json) RETURNS json
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select '{' || string_agg(
      to_json(f.key)::text || ':' || case when f.key = 'body' then 'null' else f.value::text end, ',' order by f.n
    ) || '}'
    from json_each(data) with ordinality as f (key, value, n)
  );
end
$$;

CREATE FUNCTION usher.redact_messages(ids uuid[], deletions jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
begin
  update usher.session_events e
  set data = (
    select (
      '{' || string_agg(
        to_json(f.key)::text || ':' || case
          when f.key = 'body' then 'null'
          when f.key in ('deleted_at', 'deleted_by') then
            coalesce((deletions -> e.message_id::text -> f.key)::text, f.value::text)
          when f.key = 'user_id' and d.is_gone then '"00000000-0000-0000-0000-000000000000"'
          when f.key = 'author' and d.is_gone then 'null'
          else f.value::text
        end,
        ',' order by f.n
      ) || '}'
    )::json
    from (select not exists (select 1 from public.chat_messages m where m.id = e.message_id) as is_gone offset 0) as d
    cross join json_each(e.data) with ordinality as f (key, value, n)
  )
  where e.message_id = any (ids) and e.type in ('chat.created', 'chat.updated');
end
$$;

CREATE FUNCTION usher.refusal_of(state text, constraint_name text, OUT refusal text, OUT detail text) RETURNS record
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION usher.refuse_blank_message() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using errcode = 'US007', message = 'a message must have at least one visible character', detail = 'body';
end
$$;

CREATE FUNCTION usher.refuse_rows_above(kind text, count integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  rows_max constant integer := usher.rows_allowed(kind);
begin
  if count > rows_max then
    raise exception using
      errcode = 'US010',
      message = format('a request can write at most %s rows of this kind', rows_max),
      detail = 'rows_max=' || rows_max;
  end if;
end
$$;

CREATE FUNCTION usher.refuse_truncate() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'feature_not_supported',
    message = format('%s cannot be truncated', tg_table_name),
    hint = 'Use delete, whose triggers update the event log, the tallies and live viewers.';
end
$$;

CREATE FUNCTION usher.refuse_used_id() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
begin
  perform 1 from usher.session_events e where e.message_id = new.id limit 1;
  if found then
    raise exception using errcode = 'US009', message = 'another message has used this id';
  end if;
  return null;
end
$$;

CREATE FUNCTION usher.require_chatter(session uuid, body text, is_new boolean) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  author constant uuid := auth.uid();
  is_limited constant boolean := is_new and session_user <> 'usher_gateway';
  written integer;
  caller record;
  wait_ms integer;
begin
  if body is null or not usher.has_ink(body) then
    perform usher.refuse_blank_message();
  elsif char_length(body) > 2000 then
    raise exception using errcode = 'US006', message = 'a message must have at most 2000 characters';
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
    if not is_limited then
      return true;
    end if;
  else
    select * into caller from usher.standing(require_chatter.session);
    -- require_writer costs more, so it is called only to raise the error.
    if not found or caller.ban_until is not null or caller.ended or not caller.writer then
      perform usher.require_writer(require_chatter.session);
    end if;
    if not caller.chat_enabled and not caller.moderator then
      raise exception using errcode = 'US004', message = 'the chat is switched off';
    elsif is_new and caller.slow_mode_seconds > 0 and not caller.moderator then
      -- The lock lets one message of an author through at a time. Otherwise two concurrent ones could both be the
      -- first.
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
  end if;
  if is_limited then
    written := usher.messages_of_request();
    -- Checked after every 20 rows, not after each row. So a limit is exact only if it is a multiple of 20.
    if written % 20 = 1 and written > 1 then
      perform usher.refuse_rows_above('messages', written);
    end if;
    return usher.count_writes('messages', session, 1, true);
  end if;
  return true;
end
$$;

CREATE FUNCTION usher.require_writer(session uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  caller record;
begin
  select * into caller from usher.standing(require_writer.session);
  if not found then
    raise exception using errcode = 'US005', message = 'no such session';
  elsif caller.ban_until = 'infinity' then
    raise exception using errcode = 'US002', message = 'you are banned from this session';
  elsif caller.ban_until is not null then
    raise exception using errcode = 'US002', message = 'you are timed out in this session';
  elsif caller.ended then
    raise exception using errcode = 'US003', message = 'the session has ended';
  elsif not exists (select 1 from public.profiles p where p.id = auth.uid()) then
    raise exception using errcode = 'US004', message = 'this account was deleted';
  elsif not caller.writer then
    raise exception using errcode = 'US004', message = 'only members can write in this session';
  end if;
end
$$;

CREATE FUNCTION usher.rows_allowed(kind text) RETURNS integer
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    select case
      when usher.is_staff() or exists (select 1 from usher.moderated_sessions())
        then greatest(l.rows_per_statement, l.moderator_rows_per_statement)
      else l.rows_per_statement
    end
    from usher.write_limits l
    where l.kind = rows_allowed.kind
  );
end
$$;

CREATE FUNCTION usher.session_of(voting uuid) RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (select v.session_id from public.voting_sessions v where v.id = voting);
end
$$;

CREATE FUNCTION usher.session_snapshot(session uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
begin
  return (
    select jsonb_build_object(
      'epoch', usher.epoch(),
      'head', h.seq,
      'floor', h.floor,
      'info', jsonb_build_object(
        'title', s.title,
        'status', s.status,
        'slow_mode_seconds', s.slow_mode_seconds,
        'chat_enabled', s.chat_enabled,
        'movie_id', s.movie_id,
        'streamer_id', s.streamer_id,
        'visibility', s.visibility
      ),
      'votings', coalesce((
        select jsonb_agg(
          jsonb_build_object(
            'voting', v.voting_id,
            'status', v.state,
            'version', v.version,
            'total', v.total,
            'counts', v.counts::jsonb,
            'closes_at', v.closes_at,
            'question', v.question,
            'results_visibility', v.results_visibility,
            'allow_change', v.allow_change,
            'options', usher.ballot_options(v.voting_id)
          )
          order by v.state = 'open' desc, v.closes_at desc nulls last, v.voting_id
        )
        from usher.voting_states(array(
          (
            select o.id
            from public.voting_sessions o
            where o.session_id = s.id and o.state = 'open'
          )
          union all
          (
            select c.id
            from public.voting_sessions c
            where c.session_id = s.id and c.state = 'closed'
            order by c.closes_at desc nulls last, c.id
            limit 5
          )
        )) v
      ), '[]')
    )
    from public.movie_sessions s
    join usher.session_heads h on h.session_id = s.id
    where s.id = session_snapshot.session
  );
end
$$;

CREATE FUNCTION usher.settle(OUT created uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    AS $$
declare
  tx constant xid8 := pg_current_xact_id_if_assigned();
  pending record;
  votes record;
  is_deleted boolean;
  data json;
  ignored bigint;
begin
  created := '{}';
  delete from usher.pending_transactions t
  where t.xact = tx
  returning t.depth, t.session_id, t.message_id, t.has_events, t.has_others, t.has_votes
  into pending;
  if not found then
    return;
  end if;

  if pending.has_events then
    if pending.message_id is not null then
      insert into usher.pending_events (n, depth, session_id, type, subject)
      values (0, pending.depth, pending.session_id, 'chat.created', pending.message_id);
    end if;
    created := usher.settle_events(tx, pending.has_others);
  elsif pending.message_id is not null then
    if pending.depth = 1 then
      created := array[pending.message_id];
    end if;
    -- The row as the Data API returns it, plus its author. Without the text if the message is deleted.
    select
      m.deleted_at is not null,
      left(row_to_json(m)::text, -1) || ',"author":' || coalesce(
        (
          select row_to_json(a)::text
          from (select p.username, p.display_name, p.avatar_path, p.role from public.profiles p where p.id = m.user_id) as a
        ),
        'null'
      ) || '}'
    into is_deleted, data
    from public.chat_messages m
    where m.id = pending.message_id;
    if is_deleted then
      data := usher.redact(data);
    end if;
    if data is not null then
      ignored := usher.append_to_log(pending.session_id, 'chat.created', pending.message_id, data);
    end if;
  end if;

  if not pending.has_votes then
    return;
  end if;
  with taken as (
    delete from usher.pending_votes v where v.xact = tx returning v.voting_session_id, v.movie_id, v.delta
  )
  select array_agg(c.voting_id) as votings, array_agg(c.movie_id) as movies, array_agg(c.delta) as deltas
  into votes
  from (
    select t.voting_session_id as voting_id, t.movie_id, sum(t.delta)::bigint as delta
    from taken t
    group by 1, 2
    order by 1, 2
  ) as c;
  if votes.votings is not null then
    perform usher.apply_votes(votes.votings, votes.movies, votes.deltas);
  end if;
end
$$;

CREATE FUNCTION usher.settle_events(tx xid8, has_others boolean) RETURNS uuid[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
declare
  -- Events per chunk. This bounds the memory for their data.
  events_max constant integer := 20000;
  chunk record;
  created constant uuid[] := array(
    select p.subject
    from usher.pending_events p
    where p.xact = tx and p.type = 'chat.created' and p.depth = 1
    order by p.n
  );
  is_prepared boolean := has_others;
  after bigint := -1;
begin
  if has_others then
    perform usher.prepare_settlement(tx);
  end if;
  loop
    select
      count(*) as count,
      max(p.n) as last,
      bool_and(p.type = 'chat.created' and p.data is not null) as is_plain,
      bool_or(p.type = 'chat.deleted') as has_deletions,
      array_agg(p.session_id) as sessions,
      array_agg(p.type) as types,
      array_agg(p.subject) as subjects,
      array_agg(case when p.type like 'chat.%' then p.subject end) as messages,
      array_agg(p.data) as datas
    into chunk
    from (
      select
        q.n, q.session_id, q.type, q.subject,
        case
          when q.type = 'chat.created' then (
            -- The same query as in usher.settle, for one message.
            select
              case when m.deleted_at is null then d.data::json else usher.redact(d.data::json) end
            from public.chat_messages m
            cross join lateral (
              select left(row_to_json(m)::text, -1) || ',"author":' || coalesce(
                (
                  select row_to_json(a)::text
                  from (
                    select o.username, o.display_name, o.avatar_path, o.role
                    from public.profiles o
                    where o.id = m.user_id
                  ) as a
                ),
                'null'
              ) || '}' as data
              offset 0
            ) as d
            where m.id = q.subject
          )
          when q.type = 'chat.updated' then (
            select row_to_json(m) from public.chat_messages m where m.id = q.subject and m.deleted_at is null
          )
          when q.type = 'chat.deleted' then (
            select row_to_json(x)
            from (
              select
                q.subject as id, q.session_id, q.deleted_at,
                -- Null if the user who deleted it has deleted their account since.
                (select o.id from public.profiles o where o.id = q.deleted_by) as deleted_by
            ) as x
          )
          else q.data
        end as data
      from usher.pending_events q
      where q.xact = tx and q.n > after
      order by q.n
      limit events_max
    ) as p;
    exit when chunk.count = 0;

    if not is_prepared and chunk.count = events_max then
      -- There is more than one chunk, so lock the heads of all chunks first.
      perform usher.prepare_settlement(tx);
      is_prepared := true;
      continue;
    end if;

    if not chunk.is_plain then
      select
        array_agg(e.session_id) as sessions, array_agg(e.type) as types, array_agg(e.message_id) as messages,
        array_agg(e.data) as datas
      into chunk.sessions, chunk.types, chunk.messages, chunk.datas
      from (
        select u.session_id, u.type, u.message_id, coalesce(u.data, usher.event_data(u.type, u.subject)) as data
        from unnest(chunk.sessions, chunk.types, chunk.subjects, chunk.messages, chunk.datas)
          with ordinality as u (session_id, type, subject, message_id, data, n)
        order by u.n
      ) as e
      where e.data is not null;
    end if;
    if chunk.has_deletions then
      perform usher.redact_messages(array_agg(e.message_id), jsonb_object_agg(e.message_id, e.data))
      from unnest(chunk.types, chunk.messages, chunk.datas) as e (type, message_id, data)
      where e.type = 'chat.deleted'
      having count(*) > 0;
    end if;
    if chunk.sessions is not null then
      perform usher.append_to_logs(
        chunk.sessions, chunk.types, chunk.messages, chunk.datas, case when after < 0 then 20 else 0 end
      );
    end if;
    exit when chunk.count < events_max;
    after := chunk.last;
  end loop;
  delete from usher.pending_events p where p.xact = tx;
  return created;
end
$$;

CREATE FUNCTION usher.standing(session uuid, OUT ban_until timestamp with time zone, OUT ended boolean, OUT moderator boolean, OUT writer boolean, OUT chat_enabled boolean, OUT slow_mode_seconds integer) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
  caller uuid := auth.uid();
begin
  return query
  select
    -- 'infinity' is a permanent ban; null is no ban now.
    case when b.user_id is not null and s.streamer_id <> b.user_id then coalesce(b.until, 'infinity') end,
    s.status = 'ended',
    staff.moderates,
    -- Without a profile, the account was deleted: a token can outlive its account.
    p.id is not null and (s.visibility = 'public' or m.user_id is not null or staff.moderates),
    s.chat_enabled,
    s.slow_mode_seconds
  from public.movie_sessions s
  left join public.session_members m on m.session_id = s.id and m.user_id = caller
  left join public.session_bans b
    on b.session_id = s.id and b.user_id = caller and (b.until is null or b.until > now())
  left join public.profiles p on p.id = caller
  cross join lateral (
    select coalesce(s.streamer_id = caller or m.role = 'moderator' or p.role in ('moderator', 'admin'), false)
  ) as staff (moderates)
  where s.id = standing.session
    and (s.visibility <> 'private' or m.user_id is not null or staff.moderates);
end
$$;

CREATE FUNCTION usher.take_turns(batch jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION usher.tallies(votings uuid[]) RETURNS TABLE(voting_id uuid, session_id uuid, masked boolean, tally text, masked_tally text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
#variable_conflict use_column
begin
  return query
    select
      v.voting_id,
      v.session_id,
      v.state = 'open' and v.results_visibility = 'after_close',
      f.head || v.counts || f.tail,
      f.head || 'null' || f.tail
    from usher.voting_states(tallies.votings) v
    cross join lateral (
      select
        '{"type":"tally","session":"' || v.session_id || '","voting":"' || v.voting_id || '","status":"' || v.state
          || '","version":' || v.version || ',"total":' || v.total || ',"counts":',
        ',"closes_at":' || coalesce(to_json(v.closes_at)::text, 'null') || '}'
    ) as f (head, tail);
end
$$;

CREATE FUNCTION usher.tally_slot() RETURNS smallint
    LANGUAGE sql
    RETURN ((pg_backend_pid() % 16))::smallint;

CREATE FUNCTION usher.touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  new.updated_at := now();
  return new;
end
$$;

CREATE FUNCTION usher.trim_events(max_age interval, max_count integer, batch integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if max_age is null or max_age < interval '1 hour' then
    raise exception using errcode = 'invalid_parameter_value', message = 'max_age must be at least 1 hour';
  elsif max_count is null or max_count < 100 then
    raise exception using errcode = 'invalid_parameter_value', message = 'max_count must be at least 100';
  elsif batch is null or batch not between 0 and 100000 then
    raise exception using errcode = 'invalid_parameter_value', message = 'batch must be between 0 and 100000';
  end if;
  return usher.trim_logs(max_age, max_count, batch);
end
$$;

CREATE FUNCTION usher.trim_logs(max_age interval, max_count integer, batch integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  oldest_kept constant timestamptz := clock_timestamp() - max_age;
  log record;
  trimmed_to bigint;
  deleted bigint := 0;
begin
  for log in
    select h.session_id, h.floor, h.seq, greatest(h.seq - max_count, h.floor) as by_count
    from usher.session_heads h
    where h.seq > h.floor + 1
      and (
        h.seq - max_count > h.floor
        or (
          select e.at
          from usher.session_events e
          where e.session_id = h.session_id and e.seq = h.floor + 1
        ) < oldest_kept
      )
    order by h.session_id
  loop
    exit when deleted >= batch;
    -- Times ascend with the numbers. So everything before the first row that is young enough can go.
    select coalesce(min(e.seq) filter (
      where (oldest_kept is null or e.at >= oldest_kept) and e.seq > log.by_count
    ), max(e.seq) + 1) - 1
    into trimmed_to
    from (
      select e.seq, e.at
      from usher.session_events e
      where e.session_id = log.session_id and e.seq > log.floor and e.seq < log.seq
      order by e.seq
      limit batch - deleted
    ) as e;
    if trimmed_to is null or trimmed_to <= log.floor then
      continue;
    end if;
    -- Takes the head first, like every writer of log rows. It skips a locked head until the next call, because it
    -- already holds other heads and must not keep them while it waits.
    perform 1 from usher.session_heads h where h.session_id = log.session_id for no key update skip locked;
    continue when not found;
    deleted := deleted + (trimmed_to - log.floor);
    update usher.session_heads h
    set floor = greatest(h.floor, trimmed_to)
    where h.session_id = log.session_id;
    delete from usher.session_events e
    where e.session_id = log.session_id and e.seq > log.floor and e.seq <= trimmed_to;
  end loop;
  return deleted;
end
$$;

CREATE FUNCTION usher.update_vote_totals() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_material TO 'off'
    AS $$
declare
  changes_max constant integer := 1000;
  taken integer;
  votings uuid[];
  locked uuid[];
  left_over integer;
begin
  with gone as (
    delete from usher.vote_total_changes c
    where c.n = any (array(
      select t.n from usher.vote_total_changes t order by t.n limit changes_max for update skip locked
    ))
    returning c.voting_session_id
  )
  select count(*), array_agg(distinct g.voting_session_id) into taken, votings from gone g;
  if taken = 0 then
    return 0;
  end if;

  select array_agg(l.id)
  into locked
  from (
    select m.id
    from public.movies m
    where m.id = any (array(select d.movie_id from usher.vote_total_differences(votings) d))
    order by m.id
    for no key update skip locked
  ) as l;

  -- Computed again after taking the locks, because another gateway may have updated the totals in the meantime.
  with differences as materialized (
    select * from usher.vote_total_differences(votings)
  ),
  counted as (
    insert into usher.movie_votes as c (voting_session_id, movie_id, votes)
    select d.voting_id, d.movie_id, d.votes
    from differences d
    where d.movie_id = any (locked)
    on conflict on constraint movie_votes_pkey do update set votes = excluded.votes
  ),
  updated as (
    update public.movies m
    set vote_total = m.vote_total + d.delta
    from (
      select e.movie_id, sum(e.delta) as delta from differences e where e.movie_id = any (locked) group by e.movie_id
    ) as d
    where m.id = d.movie_id and d.delta <> 0
  ),
  again as (
    insert into usher.vote_total_changes (voting_session_id)
    select distinct d.voting_id
    from differences d
    where d.movie_id <> all (coalesce(locked, '{}'))
      and exists (select 1 from public.movies m where m.id = d.movie_id)
    returning 1
  )
  select count(*) into left_over from again;
  delete from usher.movie_votes c where c.voting_session_id = any (votings) and c.votes = 0;
  return taken - left_over;
end
$$;

CREATE FUNCTION usher.vote_total_differences(votings uuid[]) RETURNS TABLE(voting_id uuid, movie_id uuid, votes bigint, delta bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
    select d.voting_id, d.movie_id, sum(d.votes)::bigint, sum(d.votes - d.counted)::bigint
    from (
      select t.voting_session_id as voting_id, t.movie_id, t.votes, 0 as counted
      from usher.vote_tallies t
      where t.voting_session_id = any (votings)
        and t.movie_id <> '00000000-0000-0000-0000-000000000000'
        and (
          select (v.results_visibility = 'live' or v.state = 'closed') and s.visibility <> 'private'
          from public.voting_sessions v
          join public.movie_sessions s on s.id = v.session_id
          where v.id = t.voting_session_id
        )
      union all
      select c.voting_session_id, c.movie_id, 0, c.votes
      from usher.movie_votes c
      where c.voting_session_id = any (votings)
    ) as d
    group by d.voting_id, d.movie_id
    having sum(d.votes - d.counted) <> 0;
end
$$;

CREATE FUNCTION usher.voting_data(voting uuid, earlier_state text) RETURNS json
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
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

CREATE FUNCTION usher.voting_states(votings uuid[]) RETURNS TABLE(voting_id uuid, session_id uuid, state text, results_visibility text, question text, allow_change boolean, closes_at timestamp with time zone, version bigint, total bigint, counts text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
    select
      v.id, v.session_id, v.state, v.results_visibility, v.question, v.allow_change, v.closes_at,
      coalesce((select sum(t.revision) from usher.vote_tallies t where t.voting_session_id = v.id), 0)::bigint,
      coalesce(c.total, 0)::bigint,
      '[' || coalesce(c.counts, '') || ']'
    from public.voting_sessions v
    cross join lateral (
      select
        sum(o.votes) as total,
        string_agg('{"movie":"' || o.movie_id || '","votes":' || o.votes || '}', ',' order by o.position, o.movie_id) as counts
      from (
        select
          o.movie_id, o.position,
          coalesce((
            select sum(t.votes)
            from usher.vote_tallies t
            where t.voting_session_id = o.voting_session_id and t.movie_id = o.movie_id
          ), 0)::bigint as votes
        from public.voting_options o
        where o.voting_session_id = v.id
      ) as o
    ) as c
    where v.id = any (votings) and v.state <> 'draft';
end
$$;

CREATE FUNCTION usher.wait_no_more() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform set_config('lock_timeout', '10ms', true);
end
$$;

CREATE FUNCTION usher.wire_event(seq bigint, type text, at timestamp with time zone, data json) RETURNS text
    LANGUAGE sql STABLE
    RETURN (((((((('{"seq":'::text || seq) || ',"type":"'::text) || type) || '","at":"'::text) || to_char((at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'::text)) || '","data":'::text) || (data)::text) || '}'::text);

CREATE TABLE public.chat_messages (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    user_id uuid DEFAULT auth.uid() NOT NULL,
    body text NOT NULL,
    reply_to uuid,
    nonce uuid,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    edited_at timestamp with time zone,
    deleted_at timestamp with time zone,
    deleted_by uuid,
    CONSTRAINT chat_messages_body_check CHECK ((char_length(body) <= 2000)),
    CONSTRAINT chat_messages_deleted_by_check CHECK (((deleted_by IS NULL) OR (deleted_at IS NOT NULL)))
);

COMMENT ON TABLE public.chat_messages IS 'Chat messages. To delete one, set deleted_at: the row stays, visible only to its author and to moderators.';

COMMENT ON COLUMN public.chat_messages.nonce IS 'A random id that the author chooses. A second message with the same nonce in a session is the same message.';

COMMENT ON COLUMN public.chat_messages.edited_at IS 'Set by the database when the body changes.';

COMMENT ON COLUMN public.chat_messages.deleted_at IS 'Set it to any time to delete the message. The database replaces it with the current time and sets deleted_by.';

CREATE TABLE public.movie_sessions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    streamer_id uuid DEFAULT auth.uid() NOT NULL,
    title text NOT NULL,
    movie_id uuid,
    status text DEFAULT 'scheduled'::text NOT NULL,
    visibility text DEFAULT 'public'::text NOT NULL,
    slow_mode_seconds integer DEFAULT 0 NOT NULL,
    chat_enabled boolean DEFAULT true NOT NULL,
    starts_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT movie_sessions_ended_at_check CHECK ((ended_at >= started_at)),
    CONSTRAINT movie_sessions_slow_mode_seconds_check CHECK (((slow_mode_seconds >= 0) AND (slow_mode_seconds <= 21600))),
    CONSTRAINT movie_sessions_status_check CHECK ((status = ANY (ARRAY['scheduled'::text, 'live'::text, 'ended'::text]))),
    CONSTRAINT movie_sessions_title_check CHECK (((char_length(title) >= 1) AND (char_length(title) <= 200))),
    CONSTRAINT movie_sessions_visibility_check CHECK ((visibility = ANY (ARRAY['public'::text, 'members'::text, 'private'::text])))
);

COMMENT ON TABLE public.movie_sessions IS 'A streaming session. Everyone can read public and members sessions; only members can read private ones.';

COMMENT ON COLUMN public.movie_sessions.visibility IS 'public: everyone reads and writes. members: everyone reads, members write. private: only members read and write.';

COMMENT ON COLUMN public.movie_sessions.slow_mode_seconds IS 'Minimum seconds between two messages of one user; 0 turns slow mode off. Moderators are exempt.';

CREATE TABLE public.movies (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    title text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    release_year integer,
    poster_path text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    vote_total bigint DEFAULT 0 NOT NULL,
    created_by uuid DEFAULT auth.uid(),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT movies_description_check CHECK ((char_length(description) <= 4000)),
    CONSTRAINT movies_metadata_check CHECK (((jsonb_typeof(metadata) = 'object'::text) AND (octet_length((metadata)::text) <= 65536))),
    CONSTRAINT movies_poster_path_check CHECK (((char_length(poster_path) >= 1) AND (char_length(poster_path) <= 512))),
    CONSTRAINT movies_release_year_check CHECK (((release_year >= 1870) AND (release_year <= 2200))),
    CONSTRAINT movies_title_check CHECK (((char_length(title) >= 1) AND (char_length(title) <= 200))),
    CONSTRAINT movies_vote_total_check CHECK ((vote_total >= 0))
)
WITH (fillfactor='50');

COMMENT ON TABLE public.movies IS 'Movies that people watch and vote for.';

COMMENT ON COLUMN public.movies.poster_path IS 'Path of the poster in the bucket posters.';

COMMENT ON COLUMN public.movies.vote_total IS 'Votes in all polls with public counts: polls with live results, and closed polls. Maintained by triggers.';

CREATE TABLE public.session_bans (
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    until timestamp with time zone,
    reason text,
    banned_by uuid DEFAULT auth.uid(),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT session_bans_reason_check CHECK (((char_length(reason) >= 1) AND (char_length(reason) <= 500)))
);

COMMENT ON TABLE public.session_bans IS 'Bans and time-outs. A row with an end is a time-out: the user reads but cannot write. Without an end, the user cannot read either.';

COMMENT ON COLUMN public.session_bans.until IS 'The end of a time-out. Null is a permanent ban.';

CREATE TABLE public.session_members (
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text DEFAULT 'viewer'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT session_members_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'moderator'::text])))
);

COMMENT ON TABLE public.session_members IS 'The members of each session, and its moderators.';

CREATE TABLE public.votes (
    voting_session_id uuid NOT NULL,
    user_id uuid DEFAULT auth.uid() NOT NULL,
    movie_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.votes IS 'One vote of one user in one poll. Votes are secret: users see only their own.';

CREATE TABLE public.voting_options (
    voting_session_id uuid NOT NULL,
    movie_id uuid NOT NULL,
    "position" smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.voting_options IS 'The ballot of a poll, in the order of position.';

CREATE TABLE public.voting_sessions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    question text NOT NULL,
    state text DEFAULT 'draft'::text NOT NULL,
    opens_at timestamp with time zone,
    closes_at timestamp with time zone,
    results_visibility text DEFAULT 'live'::text NOT NULL,
    allow_change boolean DEFAULT true NOT NULL,
    results jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT voting_sessions_closes_at_check CHECK ((closes_at > opens_at)),
    CONSTRAINT voting_sessions_question_check CHECK (((char_length(question) >= 1) AND (char_length(question) <= 300))),
    CONSTRAINT voting_sessions_results_check CHECK (((state = 'closed'::text) = (results IS NOT NULL))),
    CONSTRAINT voting_sessions_results_visibility_check CHECK ((results_visibility = ANY (ARRAY['live'::text, 'after_close'::text]))),
    CONSTRAINT voting_sessions_state_check CHECK ((state = ANY (ARRAY['draft'::text, 'open'::text, 'closed'::text])))
);

COMMENT ON TABLE public.voting_sessions IS 'A poll on the movie to watch. A session has at most one open poll. A closed poll is final.';

COMMENT ON COLUMN public.voting_sessions.results_visibility IS 'live: viewers see counts while the poll is open. after_close: only after the close.';

COMMENT ON COLUMN public.voting_sessions.allow_change IS 'Whether voters may change or withdraw their votes.';

COMMENT ON COLUMN public.voting_sessions.results IS 'The counts at the close: {"total", "counts": [{"movie", "votes"}]}. Set by the database.';

CREATE TABLE usher.channels (
    only_row boolean DEFAULT true NOT NULL,
    events text DEFAULT ('usher_events_'::text || replace((gen_random_uuid())::text, '-'::text, ''::text)) NOT NULL,
    votes text DEFAULT ('usher_votes_'::text || replace((gen_random_uuid())::text, '-'::text, ''::text)) NOT NULL,
    control text DEFAULT ('usher_control_'::text || replace((gen_random_uuid())::text, '-'::text, ''::text)) NOT NULL,
    CONSTRAINT channels_only_row_check CHECK (only_row)
);

COMMENT ON TABLE usher.channels IS 'The names of the NOTIFY channels. Only the gateway may know them: a role with a name can forge events and read all of them.';

CREATE TABLE usher.identity (
    only_row boolean DEFAULT true NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT identity_only_row_check CHECK (only_row)
);

CREATE TABLE usher.movie_votes (
    voting_session_id uuid NOT NULL,
    movie_id uuid NOT NULL,
    votes bigint NOT NULL
);

COMMENT ON TABLE usher.movie_votes IS 'The votes of each poll that movies.vote_total includes. Only update_vote_totals writes it.';

CREATE UNLOGGED TABLE usher.pending_events (
    xact xid8 DEFAULT pg_current_xact_id() NOT NULL,
    n bigint NOT NULL,
    depth integer DEFAULT pg_trigger_depth() NOT NULL,
    session_id uuid,
    type text NOT NULL,
    subject uuid,
    data json,
    deleted_at timestamp with time zone,
    deleted_by uuid
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE usher.pending_events IS 'The events that usher.settle() will append to the logs, in the order of n. Empty between transactions.';

COMMENT ON COLUMN usher.pending_events.subject IS 'The message, poll or person of the event.';

COMMENT ON COLUMN usher.pending_events.data IS 'The data of the event, if already known. Otherwise usher.settle() reads it from the subject''s row.';

COMMENT ON COLUMN usher.pending_events.deleted_at IS 'Used only by chat.deleted, like deleted_by.';

ALTER TABLE usher.pending_events ALTER COLUMN n ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME usher.pending_events_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 100
);

CREATE UNLOGGED TABLE usher.pending_transactions (
    xact xid8 DEFAULT pg_current_xact_id() NOT NULL,
    depth integer DEFAULT pg_trigger_depth() NOT NULL,
    session_id uuid,
    message_id uuid,
    has_events boolean DEFAULT false NOT NULL,
    has_others boolean DEFAULT false NOT NULL,
    has_votes boolean DEFAULT false NOT NULL,
    was_called boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE usher.pending_transactions IS 'The running transactions with something to settle, each with its first message. Empty between transactions.';

CREATE UNLOGGED TABLE usher.pending_votes (
    xact xid8 DEFAULT pg_current_xact_id() NOT NULL,
    voting_session_id uuid NOT NULL,
    movie_id uuid NOT NULL,
    delta bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE usher.pending_votes IS 'The changes that usher.settle() will add to the vote tallies. A nil movie_id marks a change of the poll itself.';

CREATE TABLE usher.session_events (
    session_id uuid NOT NULL,
    seq bigint NOT NULL,
    type text NOT NULL,
    at timestamp with time zone NOT NULL,
    message_id uuid,
    data json NOT NULL,
    CONSTRAINT session_events_seq_check CHECK ((seq > 0)),
    CONSTRAINT session_events_type_check CHECK (((char_length(type) >= 1) AND (char_length(type) <= 64)))
);

COMMENT ON TABLE usher.session_events IS 'The event log. Only append_to_log and append_to_logs insert rows; trim_events removes old ones.';

COMMENT ON COLUMN usher.session_events.message_id IS 'The chat message of the event.';

COMMENT ON COLUMN usher.session_events.data IS 'The exact text that the gateway sends; hence json, not jsonb.';

CREATE TABLE usher.session_heads (
    session_id uuid NOT NULL,
    seq bigint DEFAULT 0 NOT NULL,
    floor bigint DEFAULT 0 NOT NULL,
    CONSTRAINT session_heads_floor_check CHECK (((floor >= 0) AND (floor <= seq)))
)
WITH (fillfactor='20');

COMMENT ON TABLE usher.session_heads IS 'The newest number of each session''s log. The lock on this row makes events commit in the order of their numbers.';

COMMENT ON COLUMN usher.session_heads.floor IS 'The number just before the oldest row of the log.';

CREATE TABLE usher.vote_tallies (
    voting_session_id uuid NOT NULL,
    movie_id uuid NOT NULL,
    slot smallint NOT NULL,
    votes bigint NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT vote_tallies_slot_check CHECK (((slot >= 0) AND (slot <= 15)))
)
WITH (fillfactor='20');

COMMENT ON TABLE usher.vote_tallies IS 'Votes by backend slot, so that voters do not queue on one row. A tally is the sum over slots, and its version is the sum of revisions. Rows stay as long as the poll exists, so versions only grow.';

COMMENT ON COLUMN usher.vote_tallies.movie_id IS 'The nil uuid counts changes of the poll itself, which are revisions too.';

COMMENT ON COLUMN usher.vote_tallies.votes IS 'May be negative in one slot. Only the sum over slots counts.';

CREATE TABLE usher.vote_total_changes (
    n bigint NOT NULL,
    voting_session_id uuid NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE usher.vote_total_changes IS 'Polls whose votes may not be in movies.vote_total yet. Emptied by update_vote_totals.';

ALTER TABLE usher.vote_total_changes ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME usher.vote_total_changes_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE UNLOGGED TABLE usher.write_counts (
    author uuid NOT NULL,
    session_id uuid NOT NULL,
    kind text NOT NULL,
    bucket_start timestamp with time zone NOT NULL,
    current integer NOT NULL,
    previous integer NOT NULL,
    request_at timestamp with time zone,
    request_rows integer
)
WITH (fillfactor='50');

COMMENT ON TABLE usher.write_counts IS 'Recent writes of these writers, by author, session and kind.';

CREATE TABLE usher.write_limits (
    kind text NOT NULL,
    window_seconds integer NOT NULL,
    rows_per_statement integer NOT NULL,
    rows_per_window integer NOT NULL,
    moderator_rows_per_statement integer NOT NULL,
    moderator_rows_per_window integer NOT NULL,
    CONSTRAINT write_limits_window_seconds_check CHECK (((window_seconds >= 1) AND (window_seconds <= 3600)))
);

COMMENT ON TABLE usher.write_limits IS 'Limits per kind of write, for writers that bypass the gateway. Change the values with SQL. A kind without a row has no limit.';

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_nonce_key UNIQUE (session_id, user_id, nonce);

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_session_id_key UNIQUE (session_id, id);

ALTER TABLE ONLY public.movie_sessions
    ADD CONSTRAINT movie_sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.movies
    ADD CONSTRAINT movies_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.overlay_tokens
    ADD CONSTRAINT overlay_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_username_key UNIQUE (username);

ALTER TABLE ONLY public.session_bans
    ADD CONSTRAINT session_bans_pkey PRIMARY KEY (session_id, user_id);

ALTER TABLE ONLY public.session_members
    ADD CONSTRAINT session_members_pkey PRIMARY KEY (session_id, user_id);

ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_pkey PRIMARY KEY (voting_session_id, user_id);

ALTER TABLE ONLY public.voting_options
    ADD CONSTRAINT voting_options_pkey PRIMARY KEY (voting_session_id, movie_id);

ALTER TABLE ONLY public.voting_sessions
    ADD CONSTRAINT voting_sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY usher.channels
    ADD CONSTRAINT channels_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY usher.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY usher.movie_votes
    ADD CONSTRAINT movie_votes_pkey PRIMARY KEY (voting_session_id, movie_id);

ALTER TABLE ONLY usher.pending_events
    ADD CONSTRAINT pending_events_pkey PRIMARY KEY (xact, n);

ALTER TABLE ONLY usher.pending_transactions
    ADD CONSTRAINT pending_transactions_pkey PRIMARY KEY (xact);

ALTER TABLE ONLY usher.session_events
    ADD CONSTRAINT session_events_pkey PRIMARY KEY (session_id, seq);

ALTER TABLE ONLY usher.session_heads
    ADD CONSTRAINT session_heads_pkey PRIMARY KEY (session_id);

ALTER TABLE ONLY usher.vote_tallies
    ADD CONSTRAINT vote_tallies_pkey PRIMARY KEY (voting_session_id, movie_id, slot);

ALTER TABLE ONLY usher.vote_total_changes
    ADD CONSTRAINT vote_total_changes_pkey PRIMARY KEY (n);

ALTER TABLE ONLY usher.write_counts
    ADD CONSTRAINT write_counts_pkey PRIMARY KEY (author, session_id, kind);

ALTER TABLE ONLY usher.write_limits
    ADD CONSTRAINT write_limits_pkey PRIMARY KEY (kind);

CREATE INDEX chat_messages_created_at_idx ON public.chat_messages USING btree (session_id, created_at);

CREATE INDEX chat_messages_deleted_by_idx ON public.chat_messages USING btree (deleted_by) WHERE (deleted_by IS NOT NULL);

CREATE INDEX chat_messages_reply_to_idx ON public.chat_messages USING btree (session_id, reply_to) WHERE (reply_to IS NOT NULL);

CREATE INDEX chat_messages_user_id_idx ON public.chat_messages USING btree (user_id, session_id, created_at);

CREATE INDEX movie_sessions_movie_id_idx ON public.movie_sessions USING btree (movie_id);

CREATE INDEX movie_sessions_status_idx ON public.movie_sessions USING btree (status, starts_at);

CREATE INDEX movie_sessions_streamer_id_idx ON public.movie_sessions USING btree (streamer_id);

CREATE INDEX movies_created_by_idx ON public.movies USING btree (created_by);

CREATE INDEX overlay_tokens_created_by_idx ON public.overlay_tokens USING btree (created_by);

CREATE INDEX overlay_tokens_session_id_idx ON public.overlay_tokens USING btree (session_id);

CREATE INDEX session_bans_banned_by_idx ON public.session_bans USING btree (banned_by);

CREATE INDEX session_bans_user_id_idx ON public.session_bans USING btree (user_id, session_id);

CREATE INDEX session_members_user_id_idx ON public.session_members USING btree (user_id, session_id);

CREATE INDEX votes_option_idx ON public.votes USING btree (voting_session_id, movie_id);

CREATE INDEX votes_user_id_idx ON public.votes USING btree (user_id);

CREATE INDEX voting_options_movie_id_idx ON public.voting_options USING btree (movie_id);

CREATE INDEX voting_sessions_due_idx ON public.voting_sessions USING btree (closes_at) WHERE (state = 'open'::text);

CREATE UNIQUE INDEX voting_sessions_one_open_key ON public.voting_sessions USING btree (session_id) WHERE (state = 'open'::text);

CREATE INDEX voting_sessions_session_id_idx ON public.voting_sessions USING btree (session_id);

CREATE INDEX movie_votes_movie_id_idx ON usher.movie_votes USING btree (movie_id);

CREATE INDEX pending_votes_xact_idx ON usher.pending_votes USING btree (xact);

CREATE INDEX session_events_message_id_idx ON usher.session_events USING btree (message_id) WHERE (message_id IS NOT NULL);

CREATE INDEX session_events_person_idx ON usher.session_events USING btree (COALESCE((data ->> 'deleted_by'::text), (data ->> 'user_id'::text), (data ->> 'streamer_id'::text))) WHERE (type = ANY (ARRAY['chat.deleted'::text, 'member.banned'::text, 'member.unbanned'::text, 'session.updated'::text]));

CREATE INDEX write_counts_bucket_start_idx ON usher.write_counts USING btree (bucket_start);

CREATE TRIGGER "00_usher_banned" AFTER INSERT OR DELETE ON public.session_bans FOR EACH ROW EXECUTE FUNCTION usher.on_ban_changed();

CREATE TRIGGER "00_usher_cast" AFTER INSERT ON public.votes FOR EACH ROW EXECUTE FUNCTION usher.on_vote_cast();

CREATE TRIGGER "00_usher_changed" AFTER UPDATE ON public.session_bans FOR EACH ROW WHEN ((old.until IS DISTINCT FROM new.until)) EXECUTE FUNCTION usher.on_ban_changed();

CREATE TRIGGER "00_usher_changed" AFTER UPDATE ON public.votes FOR EACH ROW WHEN (((old.voting_session_id IS DISTINCT FROM new.voting_session_id) OR (old.movie_id IS DISTINCT FROM new.movie_id))) EXECUTE FUNCTION usher.on_vote_changed();

CREATE TRIGGER "00_usher_created" AFTER INSERT ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION usher.on_message_created();

CREATE TRIGGER "00_usher_deleted" AFTER DELETE ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_session_deleted();

CREATE TRIGGER "00_usher_deleted" AFTER DELETE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_voting_deleted();

CREATE TRIGGER "00_usher_logged" AFTER INSERT OR DELETE OR UPDATE ON public.voting_options FOR EACH ROW EXECUTE FUNCTION usher.on_option_changed();

CREATE TRIGGER "00_usher_logged" AFTER INSERT OR UPDATE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_voting_changed();

CREATE TRIGGER "00_usher_removed" AFTER DELETE ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION usher.on_message_removed();

CREATE TRIGGER "00_usher_tallied" AFTER INSERT OR DELETE OR UPDATE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_voting_tallied();

CREATE TRIGGER "00_usher_updated" AFTER UPDATE ON public.chat_messages FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION usher.on_message_updated();

CREATE TRIGGER "00_usher_updated" AFTER UPDATE ON public.movie_sessions FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION usher.on_session_updated();

CREATE TRIGGER "00_usher_withdrawn" AFTER DELETE ON public.votes FOR EACH ROW EXECUTE FUNCTION usher.on_vote_withdrawn();

CREATE TRIGGER chat_messages_a_row_removed BEFORE DELETE ON public.chat_messages FOR EACH ROW WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.chat_messages'::regclass)::oid) AND usher.is_row_checked('usher.messages_changed'::text))) EXECUTE FUNCTION usher.limit_rows('message_changes', 'usher.messages_changed');

CREATE TRIGGER chat_messages_a_row_updated BEFORE UPDATE ON public.chat_messages FOR EACH ROW WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.chat_messages'::regclass)::oid) AND usher.is_row_checked('usher.messages_changed'::text))) EXECUTE FUNCTION usher.limit_rows('message_changes', 'usher.messages_changed');

CREATE TRIGGER chat_messages_bounded_removed AFTER DELETE ON public.chat_messages REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.chat_messages'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('message_changes', 'session_id', 'usher.messages_changed');

CREATE TRIGGER chat_messages_bounded_updated AFTER UPDATE ON public.chat_messages REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.chat_messages'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('message_changes', 'session_id', 'usher.messages_changed');

CREATE TRIGGER chat_messages_guard BEFORE UPDATE ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION usher.guard_chat_message();

CREATE TRIGGER chat_messages_truncated BEFORE TRUNCATE ON public.chat_messages FOR EACH STATEMENT EXECUTE FUNCTION usher.refuse_truncate();

CREATE TRIGGER chat_messages_used_id AFTER INSERT ON public.chat_messages FOR EACH ROW WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.chat_messages'::regclass)::oid))) EXECUTE FUNCTION usher.refuse_used_id();

CREATE TRIGGER movie_sessions_bounded_created AFTER INSERT ON public.movie_sessions REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.movie_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', '');

CREATE TRIGGER movie_sessions_bounded_removed AFTER DELETE ON public.movie_sessions REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.movie_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', '');

CREATE TRIGGER movie_sessions_bounded_updated AFTER UPDATE ON public.movie_sessions REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.movie_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'id');

CREATE TRIGGER movie_sessions_created AFTER INSERT ON public.movie_sessions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_sessions_created();

CREATE TRIGGER movie_sessions_deleting BEFORE DELETE ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_session_deleting();

CREATE TRIGGER movie_sessions_ended AFTER UPDATE ON public.movie_sessions FOR EACH STATEMENT EXECUTE FUNCTION usher.on_sessions_ended();

CREATE TRIGGER movie_sessions_gone AFTER DELETE ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_session_gone();

CREATE TRIGGER movie_sessions_guard BEFORE INSERT OR UPDATE ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.guard_movie_session();

CREATE TRIGGER movie_sessions_lines BEFORE INSERT OR UPDATE OF title ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('title');

CREATE TRIGGER movie_sessions_touch BEFORE UPDATE ON public.movie_sessions FOR EACH ROW EXECUTE FUNCTION usher.touch_updated_at();

CREATE TRIGGER movies_lines BEFORE INSERT OR UPDATE OF title ON public.movies FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('title');

CREATE TRIGGER movies_touch BEFORE UPDATE ON public.movies FOR EACH ROW WHEN ((NOT (old.vote_total IS DISTINCT FROM new.vote_total))) EXECUTE FUNCTION usher.touch_updated_at();

CREATE TRIGGER overlay_tokens_bounded_updated AFTER UPDATE ON public.overlay_tokens REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.overlay_tokens'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER overlay_tokens_guard BEFORE UPDATE ON public.overlay_tokens FOR EACH ROW EXECUTE FUNCTION usher.guard_overlay_token();

CREATE TRIGGER overlay_tokens_lines BEFORE INSERT OR UPDATE OF label ON public.overlay_tokens FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('label');

CREATE TRIGGER overlay_tokens_logged_deleted AFTER DELETE ON public.overlay_tokens REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_overlay_tokens_changed();

CREATE TRIGGER overlay_tokens_logged_updated AFTER UPDATE ON public.overlay_tokens REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_overlay_tokens_changed();

CREATE TRIGGER overlay_tokens_truncated BEFORE TRUNCATE ON public.overlay_tokens FOR EACH STATEMENT EXECUTE FUNCTION usher.refuse_truncate();

CREATE TRIGGER profiles_deleting BEFORE DELETE ON public.profiles FOR EACH ROW EXECUTE FUNCTION usher.on_profile_deleting();

CREATE TRIGGER profiles_guard BEFORE INSERT OR UPDATE OF display_name ON public.profiles FOR EACH ROW EXECUTE FUNCTION usher.guard_display_name();

CREATE TRIGGER profiles_lines BEFORE INSERT OR UPDATE OF display_name ON public.profiles FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('display_name');

CREATE TRIGGER profiles_logged_role AFTER UPDATE ON public.profiles FOR EACH ROW WHEN ((old.role IS DISTINCT FROM new.role)) EXECUTE FUNCTION usher.on_profile_role_changed();

CREATE TRIGGER profiles_touch BEFORE UPDATE ON public.profiles FOR EACH ROW EXECUTE FUNCTION usher.touch_updated_at();

CREATE TRIGGER session_bans_bounded_created AFTER INSERT ON public.session_bans REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_bans'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_bans_bounded_removed AFTER DELETE ON public.session_bans REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_bans'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_bans_bounded_updated AFTER UPDATE ON public.session_bans REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_bans'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_bans_guard BEFORE INSERT OR UPDATE ON public.session_bans FOR EACH ROW EXECUTE FUNCTION usher.guard_session_ban();

CREATE TRIGGER session_bans_lines BEFORE INSERT OR UPDATE OF reason ON public.session_bans FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('reason');

CREATE TRIGGER session_bans_logged_created AFTER INSERT ON public.session_bans REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_bans_changed();

CREATE TRIGGER session_bans_logged_deleted AFTER DELETE ON public.session_bans REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_bans_changed();

CREATE TRIGGER session_bans_logged_updated AFTER UPDATE ON public.session_bans REFERENCING OLD TABLE AS old_rows NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_bans_changed();

CREATE TRIGGER session_bans_touch BEFORE UPDATE ON public.session_bans FOR EACH ROW EXECUTE FUNCTION usher.touch_updated_at();

CREATE TRIGGER session_bans_truncated BEFORE TRUNCATE ON public.session_bans FOR EACH STATEMENT EXECUTE FUNCTION usher.refuse_truncate();

CREATE TRIGGER session_members_bounded_created AFTER INSERT ON public.session_members REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_members'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_members_bounded_removed AFTER DELETE ON public.session_members REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_members'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_members_bounded_updated AFTER UPDATE ON public.session_members REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.session_members'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER session_members_logged_created AFTER INSERT ON public.session_members REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_members_changed();

CREATE TRIGGER session_members_logged_deleted AFTER DELETE ON public.session_members REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_members_changed();

CREATE TRIGGER session_members_logged_updated AFTER UPDATE ON public.session_members REFERENCING OLD TABLE AS old_rows NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.on_members_changed();

CREATE TRIGGER session_members_touch BEFORE UPDATE ON public.session_members FOR EACH ROW EXECUTE FUNCTION usher.touch_updated_at();

CREATE TRIGGER session_members_truncated BEFORE TRUNCATE ON public.session_members FOR EACH STATEMENT EXECUTE FUNCTION usher.refuse_truncate();

CREATE TRIGGER votes_bounded_created AFTER INSERT ON public.votes REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.votes'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('votes', 'voting_session_id');

CREATE TRIGGER votes_bounded_removed AFTER DELETE ON public.votes REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.votes'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('votes', 'voting_session_id');

CREATE TRIGGER votes_bounded_updated AFTER UPDATE ON public.votes REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.votes'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('votes', 'voting_session_id');

CREATE TRIGGER votes_guard BEFORE INSERT OR DELETE OR UPDATE ON public.votes FOR EACH ROW EXECUTE FUNCTION usher.guard_vote();

CREATE TRIGGER votes_truncated BEFORE TRUNCATE ON public.votes FOR EACH STATEMENT EXECUTE FUNCTION usher.refuse_truncate();

CREATE TRIGGER voting_options_bounded_created AFTER INSERT ON public.voting_options REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_options'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'voting_session_id');

CREATE TRIGGER voting_options_bounded_removed AFTER DELETE ON public.voting_options REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_options'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'voting_session_id');

CREATE TRIGGER voting_options_bounded_updated AFTER UPDATE ON public.voting_options REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_options'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'voting_session_id');

CREATE TRIGGER voting_sessions_bounded_created AFTER INSERT ON public.voting_sessions REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER voting_sessions_bounded_removed AFTER DELETE ON public.voting_sessions REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER voting_sessions_bounded_updated AFTER UPDATE ON public.voting_sessions REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT WHEN (((SESSION_USER <> 'usher_gateway'::name) AND row_security_active(('public.voting_sessions'::regclass)::oid))) EXECUTE FUNCTION usher.limit_writes('moderation', 'session_id');

CREATE TRIGGER voting_sessions_deleting BEFORE DELETE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.on_voting_deleting();

CREATE TRIGGER voting_sessions_guard BEFORE INSERT OR UPDATE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.guard_voting_session();

CREATE TRIGGER voting_sessions_guard_request BEFORE INSERT OR UPDATE ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.guard_voting_request();

CREATE TRIGGER voting_sessions_lines BEFORE INSERT OR UPDATE OF question ON public.voting_sessions FOR EACH ROW EXECUTE FUNCTION usher.guard_lines('question');

CREATE CONSTRAINT TRIGGER pending_transactions_settled AFTER INSERT OR UPDATE OF was_called ON usher.pending_transactions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION usher.on_commit();

ALTER TABLE usher.pending_transactions ENABLE ALWAYS TRIGGER pending_transactions_settled;

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_deleted_by_fkey FOREIGN KEY (deleted_by) REFERENCES public.profiles(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_reply_to_fkey FOREIGN KEY (session_id, reply_to) REFERENCES public.chat_messages(session_id, id) ON DELETE SET NULL (reply_to);

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.movie_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.chat_messages
    ADD CONSTRAINT chat_messages_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.movie_sessions
    ADD CONSTRAINT movie_sessions_movie_id_fkey FOREIGN KEY (movie_id) REFERENCES public.movies(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.movie_sessions
    ADD CONSTRAINT movie_sessions_streamer_id_fkey FOREIGN KEY (streamer_id) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.movies
    ADD CONSTRAINT movies_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.profiles(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.overlay_tokens
    ADD CONSTRAINT overlay_tokens_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.profiles(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.overlay_tokens
    ADD CONSTRAINT overlay_tokens_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.movie_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_id_fkey FOREIGN KEY (id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_bans
    ADD CONSTRAINT session_bans_banned_by_fkey FOREIGN KEY (banned_by) REFERENCES public.profiles(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.session_bans
    ADD CONSTRAINT session_bans_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.movie_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_bans
    ADD CONSTRAINT session_bans_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_members
    ADD CONSTRAINT session_members_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.movie_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_members
    ADD CONSTRAINT session_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_option_fkey FOREIGN KEY (voting_session_id, movie_id) REFERENCES public.voting_options(voting_session_id, movie_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.voting_options
    ADD CONSTRAINT voting_options_movie_id_fkey FOREIGN KEY (movie_id) REFERENCES public.movies(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.voting_options
    ADD CONSTRAINT voting_options_voting_session_id_fkey FOREIGN KEY (voting_session_id) REFERENCES public.voting_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.voting_sessions
    ADD CONSTRAINT voting_sessions_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.movie_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY usher.movie_votes
    ADD CONSTRAINT movie_votes_movie_id_fkey FOREIGN KEY (movie_id) REFERENCES public.movies(id) ON DELETE CASCADE;

ALTER TABLE ONLY usher.write_counts
    ADD CONSTRAINT write_counts_author_fkey FOREIGN KEY (author) REFERENCES public.profiles(id) ON DELETE CASCADE;

ALTER TABLE public.chat_messages ENABLE ROW LEVEL SECURITY;

CREATE POLICY chat_messages_delete ON public.chat_messages FOR DELETE TO authenticated USING (((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

CREATE POLICY chat_messages_insert ON public.chat_messages FOR INSERT TO authenticated WITH CHECK (((user_id = ( SELECT auth.uid() AS uid)) AND usher.require_chatter(session_id, body, true) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = chat_messages.session_id)))));

CREATE POLICY chat_messages_select ON public.chat_messages FOR SELECT TO authenticated USING ((((deleted_at IS NULL) OR (user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND (session_id <> ALL (ARRAY( SELECT usher.banned_sessions() AS banned_sessions))) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = chat_messages.session_id)
 OFFSET 0))));

CREATE POLICY chat_messages_select_anon ON public.chat_messages FOR SELECT TO anon USING (((deleted_at IS NULL) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = chat_messages.session_id)
 OFFSET 0))));

CREATE POLICY chat_messages_update ON public.chat_messages FOR UPDATE TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))) WITH CHECK (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

ALTER TABLE public.movie_sessions ENABLE ROW LEVEL SECURITY;

CREATE POLICY movie_sessions_delete ON public.movie_sessions FOR DELETE TO authenticated USING (((streamer_id = ( SELECT auth.uid() AS uid)) OR ( SELECT usher.is_admin() AS is_admin)));

CREATE POLICY movie_sessions_insert ON public.movie_sessions FOR INSERT TO authenticated WITH CHECK (((streamer_id = ( SELECT auth.uid() AS uid)) AND ( SELECT usher.is_streamer() AS is_streamer)));

CREATE POLICY movie_sessions_select ON public.movie_sessions FOR SELECT TO authenticated USING (((visibility <> 'private'::text) OR (streamer_id = ( SELECT auth.uid() AS uid)) OR (id = ANY (ARRAY( SELECT usher.joined_sessions() AS joined_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

CREATE POLICY movie_sessions_select_anon ON public.movie_sessions FOR SELECT TO anon USING ((visibility <> 'private'::text));

CREATE POLICY movie_sessions_update ON public.movie_sessions FOR UPDATE TO authenticated USING (((streamer_id = ( SELECT auth.uid() AS uid)) OR (id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))) WITH CHECK (((streamer_id = ( SELECT auth.uid() AS uid)) OR (id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

ALTER TABLE public.movies ENABLE ROW LEVEL SECURITY;

CREATE POLICY movies_delete ON public.movies FOR DELETE TO authenticated USING ((((created_by = ( SELECT auth.uid() AS uid)) AND ( SELECT usher.is_streamer() AS is_streamer)) OR ( SELECT usher.is_admin() AS is_admin)));

CREATE POLICY movies_insert ON public.movies FOR INSERT TO authenticated WITH CHECK (((created_by = ( SELECT auth.uid() AS uid)) AND ( SELECT usher.is_streamer() AS is_streamer)));

CREATE POLICY movies_select ON public.movies FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY movies_update ON public.movies FOR UPDATE TO authenticated USING ((((created_by = ( SELECT auth.uid() AS uid)) AND ( SELECT usher.is_streamer() AS is_streamer)) OR ( SELECT usher.is_admin() AS is_admin))) WITH CHECK ((((created_by = ( SELECT auth.uid() AS uid)) AND ( SELECT usher.is_streamer() AS is_streamer)) OR ( SELECT usher.is_admin() AS is_admin)));

ALTER TABLE public.overlay_tokens ENABLE ROW LEVEL SECURITY;

CREATE POLICY overlay_tokens_select ON public.overlay_tokens FOR SELECT TO authenticated USING (((session_id IN ( SELECT s.id
   FROM public.movie_sessions s
  WHERE (s.streamer_id = ( SELECT auth.uid() AS uid)))) OR ( SELECT usher.is_admin() AS is_admin)));

CREATE POLICY overlay_tokens_update ON public.overlay_tokens FOR UPDATE TO authenticated USING (((session_id IN ( SELECT s.id
   FROM public.movie_sessions s
  WHERE (s.streamer_id = ( SELECT auth.uid() AS uid)))) OR ( SELECT usher.is_admin() AS is_admin))) WITH CHECK (((session_id IN ( SELECT s.id
   FROM public.movie_sessions s
  WHERE (s.streamer_id = ( SELECT auth.uid() AS uid)))) OR ( SELECT usher.is_admin() AS is_admin)));

ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;

CREATE POLICY profiles_select ON public.profiles FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY profiles_update ON public.profiles FOR UPDATE TO authenticated USING ((id = ( SELECT auth.uid() AS uid))) WITH CHECK ((id = ( SELECT auth.uid() AS uid)));

ALTER TABLE public.session_bans ENABLE ROW LEVEL SECURITY;

CREATE POLICY session_bans_delete ON public.session_bans FOR DELETE TO authenticated USING ((((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND usher.outranks(session_id, user_id)));

CREATE POLICY session_bans_insert ON public.session_bans FOR INSERT TO authenticated WITH CHECK (((banned_by = ( SELECT auth.uid() AS uid)) AND ((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND usher.outranks(session_id, user_id)));

CREATE POLICY session_bans_select ON public.session_bans FOR SELECT TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

CREATE POLICY session_bans_update ON public.session_bans FOR UPDATE TO authenticated USING ((((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND usher.outranks(session_id, user_id))) WITH CHECK (((banned_by = ( SELECT auth.uid() AS uid)) AND ((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND usher.outranks(session_id, user_id)));

ALTER TABLE public.session_members ENABLE ROW LEVEL SECURITY;

CREATE POLICY session_members_delete ON public.session_members FOR DELETE TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR ((role = 'viewer'::text) AND ((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))) OR usher.owns_session(session_id)));

CREATE POLICY session_members_insert ON public.session_members FOR INSERT TO authenticated WITH CHECK ((((role = 'viewer'::text) AND ((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))) OR usher.owns_session(session_id)));

CREATE POLICY session_members_select ON public.session_members FOR SELECT TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

CREATE POLICY session_members_update ON public.session_members FOR UPDATE TO authenticated USING (usher.owns_session(session_id)) WITH CHECK (usher.owns_session(session_id));

ALTER TABLE public.votes ENABLE ROW LEVEL SECURITY;

CREATE POLICY votes_delete ON public.votes FOR DELETE TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY votes_insert ON public.votes FOR INSERT TO authenticated WITH CHECK (((user_id = ( SELECT auth.uid() AS uid)) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = usher.session_of(votes.voting_session_id))))));

CREATE POLICY votes_select ON public.votes FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY votes_update ON public.votes FOR UPDATE TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

ALTER TABLE public.voting_options ENABLE ROW LEVEL SECURITY;

CREATE POLICY voting_options_delete ON public.voting_options FOR DELETE TO authenticated USING (usher.moderates_voting(voting_session_id, '{draft}'::text[]));

CREATE POLICY voting_options_insert ON public.voting_options FOR INSERT TO authenticated WITH CHECK (usher.moderates_voting(voting_session_id, '{draft,open}'::text[]));

CREATE POLICY voting_options_select ON public.voting_options FOR SELECT TO anon, authenticated USING ((EXISTS ( SELECT 1
   FROM public.voting_sessions v
  WHERE (v.id = voting_options.voting_session_id))));

CREATE POLICY voting_options_update ON public.voting_options FOR UPDATE TO authenticated USING (usher.moderates_voting(voting_session_id, '{draft,open}'::text[])) WITH CHECK (usher.moderates_voting(voting_session_id, '{draft,open}'::text[]));

ALTER TABLE public.voting_sessions ENABLE ROW LEVEL SECURITY;

CREATE POLICY voting_sessions_delete ON public.voting_sessions FOR DELETE TO authenticated USING (((state = 'draft'::text) AND ((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))));

CREATE POLICY voting_sessions_insert ON public.voting_sessions FOR INSERT TO authenticated WITH CHECK (((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

CREATE POLICY voting_sessions_select ON public.voting_sessions FOR SELECT TO authenticated USING ((((state <> 'draft'::text) OR (session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)) AND (session_id <> ALL (ARRAY( SELECT usher.banned_sessions() AS banned_sessions))) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = voting_sessions.session_id)))));

CREATE POLICY voting_sessions_select_anon ON public.voting_sessions FOR SELECT TO anon USING (((state <> 'draft'::text) AND (EXISTS ( SELECT 1
   FROM public.movie_sessions s
  WHERE (s.id = voting_sessions.session_id)))));

CREATE POLICY voting_sessions_update ON public.voting_sessions FOR UPDATE TO authenticated USING (((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff))) WITH CHECK (((session_id = ANY (ARRAY( SELECT usher.moderated_sessions() AS moderated_sessions))) OR ( SELECT usher.is_staff() AS is_staff)));

ALTER TABLE usher.channels ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.identity ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.movie_votes ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.pending_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.pending_transactions ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.pending_votes ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.session_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.session_heads ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.vote_tallies ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.vote_total_changes ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.write_counts ENABLE ROW LEVEL SECURITY;

ALTER TABLE usher.write_limits ENABLE ROW LEVEL SECURITY;

GRANT ALL ON SCHEMA public TO postgres;
GRANT USAGE ON SCHEMA public TO anon;
GRANT USAGE ON SCHEMA public TO authenticated;
GRANT USAGE ON SCHEMA public TO service_role;

GRANT USAGE ON SCHEMA usher TO usher_gateway;
GRANT USAGE ON SCHEMA usher TO anon;
GRANT USAGE ON SCHEMA usher TO authenticated;
GRANT USAGE ON SCHEMA usher TO service_role;

GRANT ALL ON TABLE public.overlay_tokens TO service_role;
GRANT SELECT ON TABLE public.overlay_tokens TO authenticated;

GRANT UPDATE(revoked_at) ON TABLE public.overlay_tokens TO authenticated;

REVOKE ALL ON FUNCTION public.issue_overlay_token(session uuid, issuer uuid, label text, days integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.issue_overlay_token(session uuid, issuer uuid, label text, days integer) TO service_role;

GRANT ALL ON TABLE public.profiles TO service_role;

GRANT SELECT(id) ON TABLE public.profiles TO anon;
GRANT SELECT(id) ON TABLE public.profiles TO authenticated;

GRANT SELECT(username) ON TABLE public.profiles TO anon;
GRANT SELECT(username),UPDATE(username) ON TABLE public.profiles TO authenticated;

GRANT SELECT(display_name) ON TABLE public.profiles TO anon;
GRANT SELECT(display_name),UPDATE(display_name) ON TABLE public.profiles TO authenticated;

GRANT SELECT(avatar_path) ON TABLE public.profiles TO anon;
GRANT SELECT(avatar_path),UPDATE(avatar_path) ON TABLE public.profiles TO authenticated;

GRANT SELECT(role) ON TABLE public.profiles TO anon;
GRANT SELECT(role) ON TABLE public.profiles TO authenticated;

GRANT UPDATE(preferences) ON TABLE public.profiles TO authenticated;

GRANT SELECT(created_at) ON TABLE public.profiles TO anon;
GRANT SELECT(created_at) ON TABLE public.profiles TO authenticated;

GRANT SELECT(updated_at) ON TABLE public.profiles TO anon;
GRANT SELECT(updated_at) ON TABLE public.profiles TO authenticated;

REVOKE ALL ON FUNCTION public.my_profile() FROM PUBLIC;
GRANT ALL ON FUNCTION public.my_profile() TO authenticated;
GRANT ALL ON FUNCTION public.my_profile() TO service_role;

REVOKE ALL ON FUNCTION usher.access_changed(session uuid, "user" uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.access_changed(session uuid, "user" uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.access_changed(session uuid, "user" uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.admit(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.admit(session uuid) TO anon;
GRANT ALL ON FUNCTION usher.admit(session uuid) TO authenticated;

REVOKE ALL ON FUNCTION usher.admit_many(batch jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.admit_many(batch jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.append_event(session uuid, type text, data json) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.append_to_log(session uuid, type text, message uuid, data json) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.append_to_logs(sessions uuid[], types text[], messages uuid[], datas json[], whole_events_max integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.apply_votes(votings uuid[], movie_ids uuid[], deltas bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.ballot_lock_key(voting uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.ballot_lock_key(voting uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.ballot_options(voting uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.banned_sessions() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.banned_sessions() TO anon;
GRANT ALL ON FUNCTION usher.banned_sessions() TO authenticated;
GRANT ALL ON FUNCTION usher.banned_sessions() TO service_role;

REVOKE ALL ON FUNCTION usher.begin_batch() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.begin_batch() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.bucket_settings(OUT name text, OUT is_public boolean, OUT bytes_max bigint, OUT mime_types text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.bucket_settings(OUT name text, OUT is_public boolean, OUT bytes_max bigint, OUT mime_types text[]) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.cast_votes(batch jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.cast_votes(batch jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.channel_names(OUT events text, OUT votes text, OUT control text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.channel_names(OUT events text, OUT votes text, OUT control text) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.is_uuid(value jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_uuid(value jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.check_author(item jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.check_author(item jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.close_due_voting(voting uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.close_due_voting(voting uuid) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.close_due_votings() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.close_due_votings() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.close_votings(votings uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.compact_results(results jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.count_votes(voting uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.count_writes(kind text, session uuid, rows integer, is_row boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.create_profile(account uuid, metadata jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.due_votings(max_count integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.due_votings(max_count integer) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.end_batch() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.end_batch() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.enter_ballot(voting uuid, as_caller boolean, OUT allow_change boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.enter_ballot(voting uuid, as_caller boolean, OUT allow_change boolean) TO anon;
GRANT ALL ON FUNCTION usher.enter_ballot(voting uuid, as_caller boolean, OUT allow_change boolean) TO authenticated;
GRANT ALL ON FUNCTION usher.enter_ballot(voting uuid, as_caller boolean, OUT allow_change boolean) TO service_role;

REVOKE ALL ON FUNCTION usher.epoch() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.epoch() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.event_data(type text, subject uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.event_payload(session uuid, seq bigint, event text) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.events_after(session uuid, after bigint, max_events integer, max_bytes integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.events_after(session uuid, after bigint, max_events integer, max_bytes integer) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.expect_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.fold_events(tx xid8) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.forget_in(data json, person uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.forget_people(people uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.gather_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_chat_message() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_display_name() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_lines() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_movie_session() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_overlay_token() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_session_ban() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_vote() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_voting_request() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.guard_voting_session() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.has_ink(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.has_ink(value text) TO anon;
GRANT ALL ON FUNCTION usher.has_ink(value text) TO authenticated;
GRANT ALL ON FUNCTION usher.has_ink(value text) TO service_role;

REVOKE ALL ON FUNCTION usher.heads(sessions uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.heads(sessions uuid[]) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.holds_address(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.holds_address(value text) TO anon;
GRANT ALL ON FUNCTION usher.holds_address(value text) TO authenticated;
GRANT ALL ON FUNCTION usher.holds_address(value text) TO service_role;

REVOKE ALL ON FUNCTION usher.is_admin() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_admin() TO anon;
GRANT ALL ON FUNCTION usher.is_admin() TO authenticated;
GRANT ALL ON FUNCTION usher.is_admin() TO service_role;

REVOKE ALL ON FUNCTION usher.is_line(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_line(value text) TO anon;
GRANT ALL ON FUNCTION usher.is_line(value text) TO authenticated;
GRANT ALL ON FUNCTION usher.is_line(value text) TO service_role;

REVOKE ALL ON FUNCTION usher.is_overlay(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_overlay(session uuid) TO anon;
GRANT ALL ON FUNCTION usher.is_overlay(session uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.is_overlay(session uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.is_row_checked(setting text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_row_checked(setting text) TO authenticated;
GRANT ALL ON FUNCTION usher.is_row_checked(setting text) TO service_role;

REVOKE ALL ON FUNCTION usher.is_staff() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_staff() TO anon;
GRANT ALL ON FUNCTION usher.is_staff() TO authenticated;
GRANT ALL ON FUNCTION usher.is_staff() TO service_role;

REVOKE ALL ON FUNCTION usher.is_streamer() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.is_streamer() TO anon;
GRANT ALL ON FUNCTION usher.is_streamer() TO authenticated;
GRANT ALL ON FUNCTION usher.is_streamer() TO service_role;

REVOKE ALL ON FUNCTION usher.joined_sessions() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.joined_sessions() TO anon;
GRANT ALL ON FUNCTION usher.joined_sessions() TO authenticated;
GRANT ALL ON FUNCTION usher.joined_sessions() TO service_role;

REVOKE ALL ON FUNCTION usher.limit_rows() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.limit_writes() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.lock_for_deletion(sessions uuid[], account uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.logs_naming(people uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.message_numbers(ids uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.message_numbers(ids uuid[]) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.message_positions(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.message_positions(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer) TO anon;
GRANT ALL ON FUNCTION usher.message_positions(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer) TO authenticated;

REVOKE ALL ON FUNCTION usher.messages_before(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer, OUT messages text[], OUT next text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.messages_before(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer, OUT messages text[], OUT next text) TO anon;
GRANT ALL ON FUNCTION usher.messages_before(session uuid, before_seq bigint, before_at_us bigint, before_id uuid, max_messages integer, OUT messages text[], OUT next text) TO authenticated;

REVOKE ALL ON FUNCTION usher.messages_of_request() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.moderated_sessions() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.moderated_sessions() TO anon;
GRANT ALL ON FUNCTION usher.moderated_sessions() TO authenticated;
GRANT ALL ON FUNCTION usher.moderated_sessions() TO service_role;

REVOKE ALL ON FUNCTION usher.moderates_voting(voting uuid, states text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.moderates_voting(voting uuid, states text[]) TO anon;
GRANT ALL ON FUNCTION usher.moderates_voting(voting uuid, states text[]) TO authenticated;
GRANT ALL ON FUNCTION usher.moderates_voting(voting uuid, states text[]) TO service_role;

REVOKE ALL ON FUNCTION usher.my_votes(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.my_votes(session uuid) TO anon;
GRANT ALL ON FUNCTION usher.my_votes(session uuid) TO authenticated;

REVOKE ALL ON FUNCTION usher.notify_access(session uuid, member uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.notify_access_of_many(sessions uuid[], members uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_account_created() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_ban_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_bans_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_commit() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_members_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_message_created() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_message_removed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_message_updated() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_option_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_overlay_tokens_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_profile_deleting() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_profile_role_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_session_deleted() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_session_deleting() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_session_gone() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_session_updated() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_sessions_created() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_sessions_ended() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_vote_cast() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_vote_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_vote_withdrawn() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_voting_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_voting_deleted() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_voting_deleting() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.on_voting_tallied() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.outranks(session uuid, target uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.outranks(session uuid, target uuid) TO anon;
GRANT ALL ON FUNCTION usher.outranks(session uuid, target uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.outranks(session uuid, target uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.owns_session(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.owns_session(session uuid) TO anon;
GRANT ALL ON FUNCTION usher.owns_session(session uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.owns_session(session uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.pace_lock_key(session uuid, author uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.post_messages(batch jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.post_messages(batch jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.prepare_settlement(tx xid8) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.profile_role() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.profile_role() TO anon;
GRANT ALL ON FUNCTION usher.profile_role() TO authenticated;
GRANT ALL ON FUNCTION usher.profile_role() TO service_role;

REVOKE ALL ON FUNCTION usher.record_event(session uuid, type text, subject uuid, data json) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.record_vote(voting uuid, movie uuid, delta bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.redact(data json) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.redact_messages(ids uuid[], deletions jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.refusal_of(state text, constraint_name text, OUT refusal text, OUT detail text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.refusal_of(state text, constraint_name text, OUT refusal text, OUT detail text) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.refuse_blank_message() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.refuse_rows_above(kind text, count integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.refuse_rows_above(kind text, count integer) TO authenticated;

REVOKE ALL ON FUNCTION usher.refuse_truncate() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.refuse_used_id() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.require_chatter(session uuid, body text, is_new boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.require_chatter(session uuid, body text, is_new boolean) TO anon;
GRANT ALL ON FUNCTION usher.require_chatter(session uuid, body text, is_new boolean) TO authenticated;
GRANT ALL ON FUNCTION usher.require_chatter(session uuid, body text, is_new boolean) TO service_role;

REVOKE ALL ON FUNCTION usher.require_writer(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.require_writer(session uuid) TO anon;
GRANT ALL ON FUNCTION usher.require_writer(session uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.require_writer(session uuid) TO service_role;

REVOKE ALL ON FUNCTION usher.rows_allowed(kind text) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.rows_allowed(kind text) TO authenticated;

REVOKE ALL ON FUNCTION usher.session_of(voting uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.session_of(voting uuid) TO authenticated;
GRANT ALL ON FUNCTION usher.session_of(voting uuid) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.session_snapshot(session uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.session_snapshot(session uuid) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.settle(OUT created uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.settle(OUT created uuid[]) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.settle_events(tx xid8, has_others boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.standing(session uuid, OUT ban_until timestamp with time zone, OUT ended boolean, OUT moderator boolean, OUT writer boolean, OUT chat_enabled boolean, OUT slow_mode_seconds integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.standing(session uuid, OUT ban_until timestamp with time zone, OUT ended boolean, OUT moderator boolean, OUT writer boolean, OUT chat_enabled boolean, OUT slow_mode_seconds integer) TO anon;
GRANT ALL ON FUNCTION usher.standing(session uuid, OUT ban_until timestamp with time zone, OUT ended boolean, OUT moderator boolean, OUT writer boolean, OUT chat_enabled boolean, OUT slow_mode_seconds integer) TO authenticated;
GRANT ALL ON FUNCTION usher.standing(session uuid, OUT ban_until timestamp with time zone, OUT ended boolean, OUT moderator boolean, OUT writer boolean, OUT chat_enabled boolean, OUT slow_mode_seconds integer) TO service_role;

REVOKE ALL ON FUNCTION usher.take_turns(batch jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.take_turns(batch jsonb) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.tallies(votings uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.tallies(votings uuid[]) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.tally_slot() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.touch_updated_at() FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.trim_events(max_age interval, max_count integer, batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION usher.trim_events(max_age interval, max_count integer, batch integer) TO usher_gateway;

REVOKE ALL ON FUNCTION usher.trim_logs(max_age interval, max_count integer, batch integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.update_vote_totals() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.update_vote_totals() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.vote_total_differences(votings uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.voting_data(voting uuid, earlier_state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.voting_states(votings uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION usher.wait_no_more() FROM PUBLIC;
GRANT ALL ON FUNCTION usher.wait_no_more() TO usher_gateway;

REVOKE ALL ON FUNCTION usher.wire_event(seq bigint, type text, at timestamp with time zone, data json) FROM PUBLIC;

GRANT ALL ON TABLE public.chat_messages TO service_role;
GRANT SELECT ON TABLE public.chat_messages TO anon;
GRANT SELECT,DELETE ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(id) ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(session_id) ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(user_id) ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(body),UPDATE(body) ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(reply_to) ON TABLE public.chat_messages TO authenticated;

GRANT INSERT(nonce) ON TABLE public.chat_messages TO authenticated;

GRANT UPDATE(deleted_at) ON TABLE public.chat_messages TO authenticated;

GRANT ALL ON TABLE public.movie_sessions TO service_role;
GRANT SELECT ON TABLE public.movie_sessions TO anon;
GRANT SELECT,DELETE ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(streamer_id) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(title),UPDATE(title) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(movie_id),UPDATE(movie_id) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(status),UPDATE(status) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(visibility),UPDATE(visibility) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(slow_mode_seconds),UPDATE(slow_mode_seconds) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(chat_enabled),UPDATE(chat_enabled) ON TABLE public.movie_sessions TO authenticated;

GRANT INSERT(starts_at),UPDATE(starts_at) ON TABLE public.movie_sessions TO authenticated;

GRANT ALL ON TABLE public.movies TO service_role;
GRANT SELECT ON TABLE public.movies TO anon;
GRANT SELECT,DELETE ON TABLE public.movies TO authenticated;

GRANT INSERT(title),UPDATE(title) ON TABLE public.movies TO authenticated;

GRANT INSERT(description),UPDATE(description) ON TABLE public.movies TO authenticated;

GRANT INSERT(release_year),UPDATE(release_year) ON TABLE public.movies TO authenticated;

GRANT INSERT(poster_path),UPDATE(poster_path) ON TABLE public.movies TO authenticated;

GRANT INSERT(metadata),UPDATE(metadata) ON TABLE public.movies TO authenticated;

GRANT INSERT(created_by) ON TABLE public.movies TO authenticated;

GRANT ALL ON TABLE public.session_bans TO service_role;
GRANT SELECT,DELETE ON TABLE public.session_bans TO authenticated;

GRANT INSERT(session_id),UPDATE(session_id) ON TABLE public.session_bans TO authenticated;

GRANT INSERT(user_id),UPDATE(user_id) ON TABLE public.session_bans TO authenticated;

GRANT INSERT(until),UPDATE(until) ON TABLE public.session_bans TO authenticated;

GRANT INSERT(reason),UPDATE(reason) ON TABLE public.session_bans TO authenticated;

GRANT INSERT(banned_by),UPDATE(banned_by) ON TABLE public.session_bans TO authenticated;

GRANT ALL ON TABLE public.session_members TO service_role;
GRANT SELECT,DELETE ON TABLE public.session_members TO authenticated;

GRANT INSERT(session_id) ON TABLE public.session_members TO authenticated;

GRANT INSERT(user_id) ON TABLE public.session_members TO authenticated;

GRANT INSERT(role),UPDATE(role) ON TABLE public.session_members TO authenticated;

GRANT ALL ON TABLE public.votes TO service_role;
GRANT SELECT,DELETE ON TABLE public.votes TO authenticated;

GRANT INSERT(voting_session_id),UPDATE(voting_session_id) ON TABLE public.votes TO authenticated;

GRANT INSERT(user_id),UPDATE(user_id) ON TABLE public.votes TO authenticated;

GRANT INSERT(movie_id),UPDATE(movie_id) ON TABLE public.votes TO authenticated;

GRANT ALL ON TABLE public.voting_options TO service_role;
GRANT SELECT ON TABLE public.voting_options TO anon;
GRANT SELECT,DELETE ON TABLE public.voting_options TO authenticated;

GRANT INSERT(voting_session_id) ON TABLE public.voting_options TO authenticated;

GRANT INSERT(movie_id) ON TABLE public.voting_options TO authenticated;

GRANT INSERT("position"),UPDATE("position") ON TABLE public.voting_options TO authenticated;

GRANT ALL ON TABLE public.voting_sessions TO service_role;
GRANT SELECT ON TABLE public.voting_sessions TO anon;
GRANT SELECT,DELETE ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(session_id) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(question),UPDATE(question) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(state),UPDATE(state) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(opens_at),UPDATE(opens_at) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(closes_at),UPDATE(closes_at) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(results_visibility),UPDATE(results_visibility) ON TABLE public.voting_sessions TO authenticated;

GRANT INSERT(allow_change),UPDATE(allow_change) ON TABLE public.voting_sessions TO authenticated;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS  TO service_role;

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO anon;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES  TO service_role;