-- The triggers that limit all writes except new messages.

-- Counts a row of a statement in a setting. Returns true for every 20th row, so that limit_rows can end a statement of
-- 20,000 rows early, not after all of them. The caller can change the setting too. If a caller does, limit_writes still
-- refuses the statement.
create function usher.is_row_checked(setting text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return set_config(setting, (coalesce(nullif(current_setting(setting, true), ''), '0')::integer + 1)::text, true)::integer % 20 = 0;
end
$$;

-- Ends a statement that already has too many rows. Arguments: the kind and the setting.
create function usher.limit_rows() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform usher.refuse_rows_above(tg_argv[0], current_setting(tg_argv[1])::integer);
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;

-- Counts the rows of a statement per session. Arguments:
-- 1. the kind
-- 2. the column that leads to the session, or '' for a limit over all sessions together
-- 3. the setting in which the row triggers count, if there are any
-- Security definer: runs as a trigger for the user who writes. A caller can only use up their own window.
create function usher.limit_writes() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
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

revoke execute on function usher.is_row_checked(text), usher.limit_rows(), usher.limit_writes() from public;
-- Triggers call this function as the user who writes.
grant execute on function usher.is_row_checked(text) to authenticated, service_role;

-- The triggers ---------------------------------------------------------------------------------------------------
--
-- Their names sort before the triggers that record events, so that a refused write records nothing. Their conditions
-- run as the writer, and skip the call for every writer without a limit: the gateway (no other role can be its
-- session_user), table owners and cascades.

create trigger chat_messages_a_row_updated
  before update on public.chat_messages
  for each row
  when (
    session_user <> 'usher_gateway'
    and row_security_active('public.chat_messages'::regclass)
    and usher.is_row_checked('usher.messages_changed')
  )
  execute function usher.limit_rows('message_changes', 'usher.messages_changed');

create trigger chat_messages_a_row_removed
  before delete on public.chat_messages
  for each row
  when (
    session_user <> 'usher_gateway'
    and row_security_active('public.chat_messages'::regclass)
    and usher.is_row_checked('usher.messages_changed')
  )
  execute function usher.limit_rows('message_changes', 'usher.messages_changed');

create trigger chat_messages_bounded_updated
  after update on public.chat_messages
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.chat_messages'::regclass))
  execute function usher.limit_writes('message_changes', 'session_id', 'usher.messages_changed');

create trigger chat_messages_bounded_removed
  after delete on public.chat_messages
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.chat_messages'::regclass))
  execute function usher.limit_writes('message_changes', 'session_id', 'usher.messages_changed');

create trigger votes_bounded_created
  after insert on public.votes
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.votes'::regclass))
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger votes_bounded_updated
  after update on public.votes
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.votes'::regclass))
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger votes_bounded_removed
  after delete on public.votes
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.votes'::regclass))
  execute function usher.limit_writes('votes', 'voting_session_id');

create trigger voting_sessions_bounded_created
  after insert on public.voting_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_sessions'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_sessions_bounded_updated
  after update on public.voting_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_sessions'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_sessions_bounded_removed
  after delete on public.voting_sessions
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_sessions'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger voting_options_bounded_created
  after insert on public.voting_options
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_options'::regclass))
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger voting_options_bounded_updated
  after update on public.voting_options
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_options'::regclass))
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger voting_options_bounded_removed
  after delete on public.voting_options
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.voting_options'::regclass))
  execute function usher.limit_writes('moderation', 'voting_session_id');

create trigger session_bans_bounded_created
  after insert on public.session_bans
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_bans'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_bans_bounded_updated
  after update on public.session_bans
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_bans'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_bans_bounded_removed
  after delete on public.session_bans
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_bans'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_created
  after insert on public.session_members
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_members'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_updated
  after update on public.session_members
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_members'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger session_members_bounded_removed
  after delete on public.session_members
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.session_members'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger overlay_tokens_bounded_updated
  after update on public.overlay_tokens
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.overlay_tokens'::regclass))
  execute function usher.limit_writes('moderation', 'session_id');

create trigger movie_sessions_bounded_created
  after insert on public.movie_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.movie_sessions'::regclass))
  execute function usher.limit_writes('moderation', '');

create trigger movie_sessions_bounded_updated
  after update on public.movie_sessions
  referencing new table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.movie_sessions'::regclass))
  execute function usher.limit_writes('moderation', 'id');

create trigger movie_sessions_bounded_removed
  after delete on public.movie_sessions
  referencing old table as changed_rows
  for each statement
  when (session_user <> 'usher_gateway' and row_security_active('public.movie_sessions'::regclass))
  execute function usher.limit_writes('moderation', '');
