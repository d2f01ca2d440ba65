-- Leaves the plan of take_turns to its guess of a batch's size.
alter function usher.take_turns(jsonb) reset enable_seqscan;
