-- Batches are many small statements, whose cost Postgres rates so high by the policies in them that it compiles each: a
-- message alone took twice as long for it, and in a large database ten times.

alter function usher.post_messages(jsonb) set jit = off;
alter function usher.cast_votes(jsonb) set jit = off;
