-- Lets Postgres read whole tables for a batch again.

alter function usher.settle_messages(uuid[], boolean[]) reset enable_hashjoin;
alter function usher.settle_messages(uuid[], boolean[]) reset enable_mergejoin;
alter function usher.settle_messages(uuid[], boolean[]) reset enable_material;
alter function usher.append_messages(uuid[]) reset enable_hashjoin;
alter function usher.append_messages(uuid[]) reset enable_mergejoin;
alter function usher.append_messages(uuid[]) reset enable_material;
alter function usher.append_messages(uuid[]) reset enable_indexonlyscan;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) reset enable_hashjoin;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) reset enable_mergejoin;
alter function usher.apply_votes(uuid[], uuid[], bigint[]) reset enable_material;
