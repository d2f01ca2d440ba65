-- Removes the chat messages. The log keeps its rows, because its numbers must have no gaps.

drop table public.chat_messages;
drop function usher.refuse_truncate();
drop function usher.refuse_used_id();
drop function usher.redact_messages(uuid[], jsonb);
drop function usher.redact(json);
drop function usher.on_message_removed();
drop function usher.on_message_updated();
drop function usher.on_message_created();
drop function usher.refuse_blank_message();
drop function usher.guard_chat_message();
drop function usher.require_chatter(uuid, text, boolean);
drop function usher.pace_lock_key(uuid, uuid);
