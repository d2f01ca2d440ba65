-- What a batch looks up is planned once for a connection, mostly while the tables are small: there the whole log is read,
-- hashed or kept, as cheaply as a few rows of it by index. Then the log grows, the plan stays, and each batch reads all of
-- it until somebody analyzes the table.

alter function usher.settle_messages(uuid[], boolean[]) set enable_hashjoin = off;
alter function usher.settle_messages(uuid[], boolean[]) set enable_mergejoin = off;
alter function usher.settle_messages(uuid[], boolean[]) set enable_material = off;
alter function usher.append_messages(uuid[]) set enable_hashjoin = off;
alter function usher.append_messages(uuid[]) set enable_mergejoin = off;
alter function usher.append_messages(uuid[]) set enable_material = off;
-- The one that covers what is asked for, and does not begin with what it is asked by.
alter function usher.append_messages(uuid[]) set enable_indexonlyscan = off;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) set enable_hashjoin = off;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) set enable_mergejoin = off;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) set enable_material = off;
