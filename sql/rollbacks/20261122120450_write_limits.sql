-- Removes the write limits for writers that bypass the gateway.

drop function usher.messages_of_request();
drop function usher.count_writes(text, uuid, integer, boolean);
drop function usher.refuse_rows_above(text, integer);
drop function usher.rows_allowed(text);
drop table usher.write_counts;
drop table usher.write_limits;
