-- A batch of messages looks its sessions up by key. Planned once for a batch of unknown size, it read all sessions.
alter function usher.take_turns(jsonb) set enable_seqscan = off;
