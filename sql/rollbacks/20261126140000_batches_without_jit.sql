-- Lets Postgres compile what is in batches again.

alter function usher.post_messages(jsonb) reset jit;
alter function usher.cast_votes(jsonb) reset jit;
