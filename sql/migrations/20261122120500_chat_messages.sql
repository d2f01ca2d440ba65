-- Chat messages: the table, its rules and policies, and the triggers that record its events.

create table public.chat_messages (
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  user_id uuid not null default auth.uid(),
  body text not null,
  reply_to uuid,
  nonce uuid,
  -- The clock, not the transaction's time, so that the messages of one statement keep their order.
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
  -- Triggers refuse empty messages, with an error that says why.
  constraint chat_messages_body_check check (char_length(body) <= 2000),
  constraint chat_messages_deleted_by_check check (deleted_by is null or deleted_at is not null)
);

alter table public.chat_messages enable row level security;

create index chat_messages_created_at_idx on public.chat_messages (session_id, created_at);
create index chat_messages_user_id_idx on public.chat_messages (user_id, session_id, created_at);
create index chat_messages_reply_to_idx on public.chat_messages (session_id, reply_to) where reply_to is not null;
create index chat_messages_deleted_by_idx on public.chat_messages (deleted_by) where deleted_by is not null;

comment on table public.chat_messages is 'Chat messages. To delete one, set deleted_at: the row stays, visible only to its author and to moderators.';
comment on column public.chat_messages.nonce is 'A random id that the author chooses. A second message with the same nonce in a session is the same message.';
comment on column public.chat_messages.edited_at is 'Set by the database when the body changes.';
comment on column public.chat_messages.deleted_at is 'Set it to any time to delete the message. The database replaces it with the current time and sets deleted_by.';

create function usher.pace_lock_key(session uuid, author uuid) returns bigint
language sql
immutable
return hashtextextended('usher.pace:' || session || author, 0);

-- Called only by require_chatter and by the triggers that record, which run as the owner.
create function usher.refuse_blank_message() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'US007', message = 'a message must have at least one visible character', detail = 'body';
end
$$;

-- Returns true if the caller may write the message; otherwise raises the matching error. A policy would only refuse,
-- but an error tells the author why, over REST as well. The common case, a public session without slow mode, takes one
-- query on two tables. New messages of writers that bypass the gateway count against their limits here, because
-- triggers would cost more.
-- Security definer: called by the policy and the guard as authenticated. It reads only data about the caller.
create function usher.require_chatter(session uuid, body text, is_new boolean) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
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

-- Runs as the writer. The rules of the chat apply only to roles that row level security restricts. Table owners and
-- service roles may write anything.
create function usher.guard_chat_message() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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

revoke execute on function
  usher.pace_lock_key(uuid, uuid), usher.require_chatter(uuid, text, boolean), usher.guard_chat_message()
  from public;
grant execute on function usher.require_chatter(uuid, text, boolean) to anon, authenticated, service_role;

create trigger chat_messages_guard
  before update on public.chat_messages
  for each row
  execute function usher.guard_chat_message();

-- Policies --------------------------------------------------------------------------------------------------

-- Without `offset 0`, the planner may read all sessions for one page of messages of one session.
create policy chat_messages_select_anon on public.chat_messages
  for select
  to anon
  using (
    deleted_at is null
    and exists (select 1 from public.movie_sessions s where s.id = session_id offset 0)
  );

-- Its author and moderators still see a deleted message, because an update cannot hide a row from the role that runs
-- it.
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

-- require_chatter checks everything about the author: access, bans, slow mode and limits. The exists() also refuses
-- callers from whom a project's own policies on movie_sessions hide the session. require_chatter comes first, because
-- its errors say why.
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

-- Authors cannot delete rows, because a removed message would no longer count for slow mode.
create policy chat_messages_delete on public.chat_messages
  for delete
  to authenticated
  using (
    session_id = any (array(select usher.moderated_sessions()))
    or (select usher.is_staff())
  );

revoke all on public.chat_messages from public, anon, authenticated;
grant select on public.chat_messages to anon, authenticated;
-- Including the id: the gateway chooses it, so that it need not read it back. The primary key refuses an id that is
-- taken.
grant insert (id, session_id, user_id, body, reply_to, nonce) on public.chat_messages to authenticated;
grant update (body, deleted_at) on public.chat_messages to authenticated;
grant delete on public.chat_messages to authenticated;
grant all on public.chat_messages to service_role;

-- The way into the log --------------------------------------------------------------------------------------

-- Security definer (the next three): run as triggers for any writer of chat_messages; writers have no rights on the
-- log. They are on the hot path, so they do inline what usher.record_event does.
create function usher.on_message_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
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

create function usher.on_message_updated() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
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

-- Records nothing if the session is deleted too, because its log goes with it.
create function usher.on_message_removed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
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

-- Returns the data of a message event without the text.
create function usher.redact(data json) returns json
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select '{' || string_agg(
      to_json(f.key)::text || ':' || case when f.key = 'body' then 'null' else f.value::text end, ',' order by f.n
    ) || '}'
    from json_each(data) with ordinality as f (key, value, n)
  );
end
$$;

-- Redacts the log's copies of deleted messages: removes the text and marks them as deleted; all other fields stay. If
-- the row of a message is gone, its author's name and id go too, and the nil uuid replaces the id. A message that is
-- only marked as deleted keeps its author, for moderators.
--
-- `deletions` maps message ids to the data of their deletions. It is not an array, because a plan that was made for a
-- few rows would compare every row with every element. One query does it all, because a function call per row would
-- cost more.
-- Security definer: called only by usher.settle.
create function usher.redact_messages(ids uuid[], deletions jsonb) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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

-- Refuses the id of a message that was removed. Users choose the ids of their messages, and a reused id would appear
-- twice in the log, and in the chat history of another session. It runs after the insert, when no other transaction can
-- take the id any more.
-- Security definer: runs as a trigger for the user who writes; users cannot read the log. It reveals only that an id
-- was used.
create function usher.refuse_used_id() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  perform 1 from usher.session_events e where e.message_id = new.id limit 1;
  if found then
    raise exception using errcode = 'US009', message = 'another message has used this id';
  end if;
  return null;
end
$$;

-- Refuses truncate, which fires no row triggers. The log and the tallies would refer to missing rows, and viewers would
-- keep access that they have lost. Tables without this trigger cannot be truncated alone: foreign keys connect them to
-- tables that have it.
create function usher.refuse_truncate() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'feature_not_supported',
    message = format('%s cannot be truncated', tg_table_name),
    hint = 'Use delete, whose triggers update the event log, the tallies and live viewers.';
end
$$;

revoke execute on function
  usher.refuse_blank_message(), usher.on_message_created(), usher.on_message_updated(), usher.on_message_removed(),
  usher.redact(json), usher.redact_messages(uuid[], jsonb), usher.refuse_used_id(), usher.refuse_truncate()
  from public;

create trigger "00_usher_created"
  after insert on public.chat_messages
  for each row
  execute function usher.on_message_created();

create trigger "00_usher_updated"
  after update on public.chat_messages
  for each row
  when (old.* is distinct from new.*)
  execute function usher.on_message_updated();

create trigger "00_usher_removed"
  after delete on public.chat_messages
  for each row
  execute function usher.on_message_removed();

-- Not for the gateway: its batches choose random ids.
create trigger chat_messages_used_id
  after insert on public.chat_messages
  for each row
  when (session_user <> 'usher_gateway' and row_security_active('public.chat_messages'::regclass))
  execute function usher.refuse_used_id();

create trigger chat_messages_truncated
  before truncate on public.chat_messages
  for each statement
  execute function usher.refuse_truncate();
