-- Removes the chat history of the gateway: clients can read chat messages only through the Data API.

drop function usher.messages_before(uuid, bigint, bigint, uuid, integer);
drop function usher.message_positions(uuid, bigint, bigint, uuid, integer);
