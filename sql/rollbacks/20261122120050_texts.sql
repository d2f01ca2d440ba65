-- Removes the rules for texts.

drop function usher.guard_lines();
drop function usher.holds_address(text);
drop function usher.is_line(text);
drop function usher.has_ink(text);
