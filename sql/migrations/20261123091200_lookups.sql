-- Lookups by key where a whole table was read: what a page of chat and the keeper of the clock ask for.

-- Without the offset the planner may read all sessions for a page of messages of one.
alter policy chat_messages_select_anon on public.chat_messages
  using (
    deleted_at is null
    and exists (select 1 from public.movie_sessions s where s.id = session_id offset 0)
  );

alter policy chat_messages_select on public.chat_messages
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

-- As before, and the time is a value: compared with a function that changes, no index would serve.
-- Security definer: called by usher_gateway; the clock decides what it does.
create or replace function usher.close_due_votings() returns integer
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
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
  return usher.close_votings(due, '{}');
end
$$;
