-- The chat is read through the Data API alone again.

drop function usher.messages_before(uuid, bigint, bigint, uuid, integer);
drop function usher.message_positions(uuid, bigint, bigint, uuid, integer);
