-- Removes the overlay tokens: a viewer who holds one is an anonymous viewer again.

drop function public.issue_overlay_token(uuid, uuid, text, integer);
drop table public.overlay_tokens;
drop function usher.is_overlay(uuid);
drop function usher.on_overlay_tokens_changed();
drop function usher.guard_overlay_token();
