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
  -- Empty ones too are refused by their triggers, which say why.
  constraint chat_messages_body_check check (char_length(body) <= 2000),
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

-- Called by require_chatter and the triggers that record, which run as the owner; nobody else may.
create function usher.refuse_blank_message() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'US007', message = 'a message has at least one visible character', detail = 'body';
end
$$;

-- True, or the named refusal of a message that the caller may not write. It raises where a policy would only say
-- no: the author learns why, over REST as well. The usual case, a public session without slow mode, is decided by one look
-- at two tables. New messages of writers beside the gateway count against their limits here: triggers would cost more.
-- Security definer: called by policy and guard as authenticated; reads for the caller about the caller.
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
    if not is_limited then
      return true;
    end if;
  else
    select * into caller from usher.standing(require_chatter.session);
    -- Only a refusal asks for its name.
    if not found or caller.ban_until is not null or caller.ended or not caller.writer then
      perform usher.require_writer(require_chatter.session);
    end if;
    if not caller.chat_enabled and not caller.moderator then
      raise exception using errcode = 'US004', message = 'the chat is switched off';
    elsif is_new and caller.slow_mode_seconds > 0 and not caller.moderator then
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
  end if;
  if is_limited then
    written := usher.messages_of_request();
    -- At the first row too many, where the limit is a multiple of this, and not for each row.
    if written % 20 = 1 and written > 1 then
      perform usher.refuse_rows_above('messages', written);
    end if;
    return usher.count_writes('messages', session, 1, true);
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

revoke execute on function
  usher.pace_lock_key(uuid, uuid), usher.require_chatter(uuid, text, boolean), usher.guard_chat_message()
  from public;
grant execute on function usher.require_chatter(uuid, text, boolean) to anon, authenticated, service_role;

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

-- Security definer (these three): run as triggers for any writer of chat_messages, who may not touch the log. They are
-- on the hot path and do in place what usher.record_event does.
create function usher.on_message_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  has_events boolean;
begin
  -- Owners and service roles too, whom require_chatter does not ask.
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
  -- An import of what is deleted already.
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
  -- The guard has refused it already, unless another BEFORE trigger came after the guard.
  if (new.id, new.session_id, new.user_id) <> (old.id, old.session_id, old.user_id) then
    raise exception using errcode = 'US007', message = 'a message keeps its id, session and author';
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

-- Records nothing where the session goes: its log goes too.
create function usher.on_message_removed() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  has_others boolean;
begin
  -- As usher.expect_events asks, which a cascade over thousands of messages need not call for each.
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

-- The data of an event of a message without the text.
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

-- Removes the text from the log's copies of deleted messages, and marks them as deleted. Everything else of them keeps its
-- place. If the row is gone, its author's name and id go too: the nil uuid stands for somebody. A message that is only
-- marked as deleted keeps its author, for the moderators. `deletions` has the data of their deletions by id: joined to an
-- array, a plan made for a few would compare each with each. In one query: a function for each row would cost more.
-- Security definer: called by usher.settle; nobody else may.
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

-- Users choose the ids of their messages. With the id of a message that was removed for good, a new one would stand in the
-- log twice, and in the history of the other's session. After the insert, when no other transaction can have the id any
-- more.
-- Security definer: runs as a trigger for whoever writes, who may not read the log; tells that an id was used.
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
    raise exception using errcode = 'US009', message = 'another message had this id';
  end if;
  return null;
end
$$;

-- A truncated table would leave a log and tallies that speak of rows that are gone, and viewers with access that they have
-- lost. Tables without such a trigger cannot be truncated without one that has it: foreign keys connect them.
create function usher.refuse_truncate() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'feature_not_supported',
    message = format('%s is not to be truncated', tg_table_name),
    hint = 'Use delete: its triggers keep the event log, the tallies and live viewers right.';
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

-- The gateway's batches choose random ids.
create trigger chat_messages_used_id
  after insert on public.chat_messages
  for each row
  when (session_user <> 'usher_gateway' and row_security_active('public.chat_messages'::regclass))
  execute function usher.refuse_used_id();

create trigger chat_messages_truncated
  before truncate on public.chat_messages
  for each statement
  execute function usher.refuse_truncate();
