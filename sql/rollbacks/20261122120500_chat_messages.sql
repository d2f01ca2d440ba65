-- Takes the chat away. The log keeps its rows: its numbers may not have holes.

drop table public.chat_messages;
drop function usher.refuse_truncate();
drop function usher.on_messages_removed();
drop function usher.on_messages_updated();
drop function usher.on_messages_created();
drop function usher.append_deletions(uuid[], uuid[], timestamptz[], uuid[]);
drop function usher.redact_messages(uuid[], timestamptz[], uuid[]);
drop function usher.append_messages(uuid[]);
drop function usher.message_data(json, uuid);
drop function usher.is_batching();
drop function usher.refuse_blank_message();
drop function usher.guard_chat_message();
drop function usher.require_chatter(uuid, text, boolean);
drop function usher.pace_lock_key(uuid, uuid);
