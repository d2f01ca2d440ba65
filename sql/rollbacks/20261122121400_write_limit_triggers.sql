-- Removes the write limits for writers that bypass the gateway, except the limit of new messages.

drop trigger movie_sessions_bounded_removed on public.movie_sessions;
drop trigger movie_sessions_bounded_updated on public.movie_sessions;
drop trigger movie_sessions_bounded_created on public.movie_sessions;
drop trigger overlay_tokens_bounded_updated on public.overlay_tokens;
drop trigger session_members_bounded_removed on public.session_members;
drop trigger session_members_bounded_updated on public.session_members;
drop trigger session_members_bounded_created on public.session_members;
drop trigger session_bans_bounded_removed on public.session_bans;
drop trigger session_bans_bounded_updated on public.session_bans;
drop trigger session_bans_bounded_created on public.session_bans;
drop trigger voting_options_bounded_removed on public.voting_options;
drop trigger voting_options_bounded_updated on public.voting_options;
drop trigger voting_options_bounded_created on public.voting_options;
drop trigger voting_sessions_bounded_removed on public.voting_sessions;
drop trigger voting_sessions_bounded_updated on public.voting_sessions;
drop trigger voting_sessions_bounded_created on public.voting_sessions;
drop trigger votes_bounded_removed on public.votes;
drop trigger votes_bounded_updated on public.votes;
drop trigger votes_bounded_created on public.votes;
drop trigger chat_messages_bounded_removed on public.chat_messages;
drop trigger chat_messages_bounded_updated on public.chat_messages;
drop trigger chat_messages_a_row_removed on public.chat_messages;
drop trigger chat_messages_a_row_updated on public.chat_messages;
drop function usher.limit_writes();
drop function usher.limit_rows();
drop function usher.is_row_checked(text);
