-- Takes the overlay tokens back: who holds one is an anonymous viewer again.

create or replace function usher.admit(session uuid) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  caller record;
  may_write boolean;
begin
  perform 1 from public.movie_sessions s where s.id = admit.session;
  if not found then
    return null;
  end if;
  select * into caller from usher.standing(admit.session);
  if not found then
    return null;
  elsif caller.ban_until = 'infinity' then
    return '{"refused": "banned"}';
  end if;
  may_write := caller.writer and caller.ban_until is null and not caller.ended;
  return jsonb_strip_nulls(jsonb_build_object(
    'send', may_write and (caller.chat_enabled or caller.moderator),
    'vote', may_write,
    'moderate', caller.moderator,
    'mine', usher.my_votes(admit.session),
    -- A time-out ends by itself: then it is worth asking again.
    'ask_again_ms', ceil(1000 * extract(epoch from caller.ban_until - clock_timestamp()))
  ));
end
$$;

drop function public.issue_overlay_token(uuid, uuid, text, integer);
drop table public.overlay_tokens;
drop function usher.is_overlay(uuid);
drop function usher.on_overlay_tokens_changed();
drop function usher.guard_overlay_token();
