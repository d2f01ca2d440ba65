-- Removes the overlay tokens. A viewer with such a token then counts as an anonymous viewer.

drop function public.issue_overlay_token(uuid, uuid, text, integer);
drop table public.overlay_tokens;
drop function usher.is_overlay(uuid);
drop function usher.on_overlay_tokens_changed();
drop function usher.guard_overlay_token();
