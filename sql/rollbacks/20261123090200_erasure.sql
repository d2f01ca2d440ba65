-- A removed message keeps its author's name in the log. What was erased stays so.

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
