-- Chat: the messages, who may write them and when, and their way into the log.

create table public.chat_messages (
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  user_id uuid not null default auth.uid(),
  body text not null,
  reply_to uuid,
  nonce uuid,
  -- The clock and not the transaction: messages of one statement keep their order.
  created_at timestamptz not null default clock_timestamp(),
  edited_at timestamptz,
  deleted_at timestamptz,
  deleted_by uuid,
  constraint chat_messages_pkey primary key (id),
  constraint chat_messages_session_id_key unique (session_id, id),
  constraint chat_messages_nonce_key unique (session_id, user_id, nonce),
  constraint chat_messages_session_id_fkey foreign key (session_id) references public.movie_sessions (id) on delete cascade,
  constraint chat_messages_user_id_fkey foreign key (user_id) references public.profiles (id) on delete cascade,
  constraint chat_messages_reply_to_fkey foreign key (session_id, reply_to)
    references public.chat_messages (session_id, id) on delete set null (reply_to),
  constraint chat_messages_deleted_by_fkey foreign key (deleted_by) references public.profiles (id) on delete set null,
  constraint chat_messages_body_check check (char_length(body) between 1 and 2000),
  constraint chat_messages_deleted_by_check check (deleted_by is null or deleted_at is not null)
);

alter table public.chat_messages enable row level security;

create index chat_messages_created_at_idx on public.chat_messages (session_id, created_at);
create index chat_messages_user_id_idx on public.chat_messages (user_id, session_id, created_at);
create index chat_messages_reply_to_idx on public.chat_messages (session_id, reply_to) where reply_to is not null;
create index chat_messages_deleted_by_idx on public.chat_messages (deleted_by) where deleted_by is not null;

comment on table public.chat_messages is 'Chat. Deleting is setting deleted_at: the row stays for moderators, nobody else sees it.';
comment on column public.chat_messages.nonce is 'The author''s own mark: the same one twice in a session is the same message.';
comment on column public.chat_messages.edited_at is 'Set by the database when the body changes.';
comment on column public.chat_messages.deleted_at is 'Set it to anything to delete; the database writes the time and who did it.';

create function usher.pace_lock_key(session uuid, author uuid) returns bigint
language sql
immutable
return hashtextextended('usher.pace:' || session || author, 0);

-- True, or the named refusal of a message that the caller may not write. It raises where a policy would only say
-- no: the author learns why, over REST as well. The usual case, a public session without slow mode, is decided by one look
-- at two tables.
-- Security definer: called by policy and guard as authenticated; reads for the caller about the caller.
create function usher.require_chatter(session uuid, body text, is_new boolean) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  author constant uuid := auth.uid();
  caller record;
  wait_ms integer;
begin
  if body is null or not usher.has_ink(body) then
    raise exception using errcode = 'US007', message = 'a message has at least one visible character', detail = 'body';
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

-- Runs as the writer: whom row level security binds, the rules of the chat bind too. Owners and service roles
-- may write what they like.
create function usher.guard_chat_message() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (new.id, new.session_id, new.user_id) <> (old.id, old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'a message keeps its id, session and author';
  end if;
  if row_security_active(tg_relid) then
    if old.deleted_at is not null then
      raise exception using errcode = 'US009', message = 'the message is deleted';
    end if;
    if new.body is distinct from old.body then
      if new.user_id is distinct from auth.uid() then
        raise exception using errcode = 'US004', message = 'only its author edits a message';
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

-- For owners and service roles too, whom require_chatter does not ask.
create function usher.refuse_blank_message() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'US007', message = 'a message has at least one visible character', detail = 'body';
end
$$;

revoke execute on function
  usher.pace_lock_key(uuid, uuid), usher.require_chatter(uuid, text, boolean), usher.guard_chat_message(),
  usher.refuse_blank_message()
  from public;
grant execute on function usher.require_chatter(uuid, text, boolean) to anon, authenticated, service_role;

-- The conditions ask: the function is called for a refusal alone.
create trigger chat_messages_blank_created
  before insert on public.chat_messages
  for each row
  when (not usher.has_ink(new.body))
  execute function usher.refuse_blank_message();

create trigger chat_messages_blank_updated
  before update of body on public.chat_messages
  for each row
  when (new.body is distinct from old.body and not usher.has_ink(new.body))
  execute function usher.refuse_blank_message();

create trigger chat_messages_guard
  before update on public.chat_messages
  for each row
  execute function usher.guard_chat_message();

-- Policies --------------------------------------------------------------------------------------------------

-- Without the offset the planner may read all sessions for a page of messages of one.
create policy chat_messages_select_anon on public.chat_messages
  for select
  to anon
  using (
    deleted_at is null
    and exists (select 1 from public.movie_sessions s where s.id = session_id offset 0)
  );

-- Its author and moderators see a deleted message: an update may not hide a row from who makes it.
create policy chat_messages_select on public.chat_messages
  for select
  to authenticated
  using (
    (
      deleted_at is null
      or user_id = (select auth.uid())
      or session_id = any (array(select usher.moderated_sessions()))
      or (select usher.is_staff())
    )
    and session_id <> all (array(select usher.banned_sessions()))
    and exists (select 1 from public.movie_sessions s where s.id = session_id offset 0)
  );

-- Whether the author sees the session, is banned, too fast and so on is all in require_chatter.
-- A caller who may not see a session may not write to it, even where a project's own policies on movie_sessions hide it.
-- Our own refusals come first: they have names.
create policy chat_messages_insert on public.chat_messages
  for insert
  to authenticated
  with check (
    user_id = (select auth.uid())
    and usher.require_chatter(session_id, body, true)
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );

create policy chat_messages_update on public.chat_messages
  for update
  to authenticated
  using (
    user_id = (select auth.uid())
    or session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  )
  with check (
    user_id = (select auth.uid())
    or session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

-- Not for authors: what is gone for good no longer counts for slow mode.
create policy chat_messages_delete on public.chat_messages
  for delete
  to authenticated
  using (
    session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

revoke all on public.chat_messages from public, anon, authenticated;
grant select on public.chat_messages to anon, authenticated;
-- With the id: the gateway chooses it, so that it need not ask for it. A taken one is refused by the key.
grant insert (id, session_id, user_id, body, reply_to, nonce) on public.chat_messages to authenticated;
grant update (body, deleted_at) on public.chat_messages to authenticated;
grant delete on public.chat_messages to authenticated;
grant all on public.chat_messages to service_role;

-- The way into the log --------------------------------------------------------------------------------------

-- A message as it goes out: the row as the Data API returns it, plus its author.
create function usher.message_data(message_row json, author uuid) returns json
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return left(message_row::text, -1) || ',"author":' || coalesce(
    (
      select row_to_json(a)::text
      from (
        select p.username, p.display_name, p.avatar_path, p.role
        from public.profiles p
        where p.id = author
      ) as a
    ),
    'null'
  ) || '}';
end
$$;

-- Appends chat.created for these messages in the order in which they were made, to all their sessions at once, and
-- tells the listeners as append_events does. Messages that were deleted meanwhile, or whose session is going, are left out.
-- Security definer: called by usher.settle_messages; nobody else may.
create function usher.append_messages(ids uuid[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set enable_indexonlyscan = off
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
  select count(pg_notify(
    (select c.events from usher.channels c),
    case when octet_length(t.whole) < payload_bytes_max then t.whole else t.hint end
  ))
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

-- Whether the gateway is gathering a batch: post_messages and cast_votes then settle it in one go at its end.
-- Asking who is logged in keeps everybody else from holding back events by the setting.
create function usher.is_batching() returns boolean
language sql
stable
return coalesce(current_setting('usher.batching', true) = 'on', false)
  and pg_has_role(session_user, 'usher_gateway', 'member');

-- In a batch, post_messages remembers what it inserts itself; only what other triggers add to it is noted here.
-- Security definer: runs as a trigger for any writer of chat_messages, who may not touch the log.
create function usher.on_messages_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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

-- Removes the text from the log's copies of deleted messages; everything else of them keeps its place. Where the row is
-- gone, its author's name and id go too: the nil uuid stands for somebody. A message that is only marked as deleted keeps
-- its author, for the moderators.
-- Security definer: called by our triggers; nobody else may.
create function usher.redact_messages(ids uuid[], deleted_at timestamptz[], deleted_by uuid[]) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
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

-- Appends chat.deleted for these messages and redacts what the log said of them, sessions by id.
-- Security definer: called by our triggers; nobody else may.
create function usher.append_deletions(
  sessions uuid[], ids uuid[], deleted_at timestamptz[], deleted_by uuid[]
) returns void
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
      d.session_id,
      array_agg(d.id order by d.n) as messages,
      array_agg(
        (
          select row_to_json(x)
          from (select d.id, d.session_id, d.at as deleted_at, d.by as deleted_by) as x
        )
        order by d.n
      ) as datas
    from unnest(sessions, ids, deleted_at, deleted_by) with ordinality as d (session_id, id, at, by, n)
    group by d.session_id
    order by d.session_id
  loop
    perform usher.append_events(log.session_id, 'chat.deleted', log.messages, log.datas);
  end loop;
  perform usher.redact_messages(ids, deleted_at, deleted_by);
end
$$;

-- Security definer: runs as a trigger for any writer of chat_messages, who may not touch the log.
create function usher.on_messages_updated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  log record;
  gone record;
begin
  for log in
    select n.session_id, array_agg(n.id order by n.created_at, n.id) as messages,
      array_agg(row_to_json(n) order by n.created_at, n.id) as datas
    from new_rows n
    join old_rows o on o.id = n.id
    where n.deleted_at is null and n is distinct from o
    group by n.session_id
    order by n.session_id
  loop
    perform usher.append_events(log.session_id, 'chat.updated', log.messages, log.datas);
  end loop;

  select array_agg(n.session_id order by n.created_at, n.id) as sessions,
    array_agg(n.id order by n.created_at, n.id) as ids,
    array_agg(n.deleted_at order by n.created_at, n.id) as ats,
    array_agg(n.deleted_by order by n.created_at, n.id) as bys
  into gone
  from new_rows n
  join old_rows o on o.id = n.id
  where n.deleted_at is not null and o.deleted_at is null;
  if gone.ids is not null then
    perform usher.append_deletions(gone.sessions, gone.ids, gone.ats, gone.bys);
  end if;
  return null;
end
$$;

-- Does not name a person whose account goes with the message.
-- Security definer: runs as a trigger for any writer of chat_messages, who may not touch the log.
create function usher.on_messages_removed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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

-- A truncated table would leave a log and tallies that speak of rows that are gone.
create function usher.refuse_truncate() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'feature_not_supported',
    message = format('%s is not to be truncated', tg_table_name),
    hint = 'Use delete: the triggers then keep the event log and the tallies right.';
end
$$;

revoke execute on function
  usher.message_data(json, uuid), usher.append_messages(uuid[]), usher.is_batching(), usher.on_messages_created(),
  usher.redact_messages(uuid[], timestamptz[], uuid[]),
  usher.append_deletions(uuid[], uuid[], timestamptz[], uuid[]), usher.on_messages_updated(),
  usher.on_messages_removed(), usher.refuse_truncate()
  from public;

create trigger chat_messages_created
  after insert on public.chat_messages
  referencing new table as new_rows
  for each statement
  execute function usher.on_messages_created();

create trigger chat_messages_updated
  after update on public.chat_messages
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function usher.on_messages_updated();

create trigger chat_messages_removed
  after delete on public.chat_messages
  referencing old table as old_rows
  for each statement
  execute function usher.on_messages_removed();

create trigger chat_messages_truncated
  before truncate on public.chat_messages
  for each statement
  execute function usher.refuse_truncate();
