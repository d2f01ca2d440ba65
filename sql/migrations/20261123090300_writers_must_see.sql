-- Who may not see a session or voting may not write to it either, also where a project's own policies hide it: ours
-- ask as the writer and not only through functions that run as their owner.

-- Our own refusals come first: they have names.
alter policy chat_messages_insert on public.chat_messages
  with check (
    user_id = (select auth.uid())
    and usher.require_chatter(session_id, body, true)
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );

alter policy votes_insert on public.votes
  with check (
    user_id = (select auth.uid())
    and exists (select 1 from public.voting_sessions v where v.id = voting_session_id)
  );

alter policy votes_update on public.votes
  with check (
    user_id = (select auth.uid())
    and exists (select 1 from public.voting_sessions v where v.id = voting_session_id)
  );

-- The guard asks for it where row level security does not bind: users never need it.
revoke execute on function usher.ballot_lock_key(uuid) from anon, authenticated;
