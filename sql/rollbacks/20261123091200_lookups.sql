-- Lets the planner choose again.

create or replace function usher.close_due_votings() returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  due uuid[];
begin
  select array_agg(d.id)
  into due
  from (
    select v.id
    from public.voting_sessions v
    where v.state = 'open' and v.closes_at <= clock_timestamp()
    order by v.id
    for no key update skip locked
  ) as d;
  return usher.close_votings(due, '{}');
end
$$;

alter policy chat_messages_select_anon on public.chat_messages
  using (
    deleted_at is null
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
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
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );
