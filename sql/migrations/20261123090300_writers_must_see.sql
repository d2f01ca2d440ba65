-- Who may not see a session may not write to it either, also where a project's own policies on movie_sessions hide it:
-- ours ask as the writer, and not only through functions that run as their owner.

-- Our own refusals come first: they have names.
alter policy chat_messages_insert on public.chat_messages
  with check (
    user_id = (select auth.uid())
    and usher.require_chatter(session_id, body, true)
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );

-- Security definer: called by a policy as authenticated, which asks movie_sessions next: by way of the policies of
-- voting_sessions every vote would cost twice as much.
create function usher.session_of(voting uuid) returns uuid
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (select v.session_id from public.voting_sessions v where v.id = voting);
end
$$;

revoke execute on function usher.session_of(uuid) from public;
grant execute on function usher.session_of(uuid) to authenticated;

-- Of votes_update nothing is asked beyond: an upsert passes here first, and the guard asks our own rules.
alter policy votes_insert on public.votes
  with check (
    user_id = (select auth.uid())
    and exists (select 1 from public.movie_sessions s where s.id = usher.session_of(voting_session_id))
  );

-- The guard asks for it where row level security does not bind: users never need it.
revoke execute on function usher.ballot_lock_key(uuid) from anon, authenticated;
