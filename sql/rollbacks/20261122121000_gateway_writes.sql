-- Removes the gateway's writes.

revoke execute on function usher.settle() from usher_gateway;
drop function usher.cast_votes(jsonb);
drop function usher.post_messages(jsonb);
drop function usher.take_turns(jsonb);
drop function usher.wait_no_more();
drop function usher.end_batch();
drop function usher.begin_batch();
drop function usher.message_numbers(uuid[]);
drop function usher.check_author(jsonb);
drop function usher.is_uuid(jsonb);
drop function usher.refusal_of(text, text);
