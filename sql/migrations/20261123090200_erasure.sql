-- Who deletes their account leaves the log as well: a message that is gone for good takes its author's name along.

-- As before, and where the row is gone the author goes too. One that is only marked as deleted keeps its author, for
-- the moderators. The account's messages go in one statement, so the log says so in one go for each session.
-- Security definer: called by our triggers; nobody else may.
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

-- What was removed before.
update usher.session_events e
set data = (
  select (
    '{' || string_agg(
      to_json(f.key)::text || ':' || case f.key when 'author' then 'null' else f.value::text end, ',' order by f.n
    ) || '}'
  )::json
  from json_each(e.data) with ordinality as f (key, value, n)
)
where e.type = 'chat.created' and not exists (select 1 from public.chat_messages m where m.id = e.message_id);
