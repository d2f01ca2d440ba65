-- The rules for texts. A message needs a visible character. Names and titles are one visible line. A name is not an
-- e-mail address.
--
-- The gateway checks the first two rules too (crates/core/src/protocol/text.rs). A test compares both versions for
-- every character.
--
-- Triggers check the rules, not constraints. So a row that is older than a rule can still be read, deleted, and changed
-- in its other columns.

-- Returns whether a text has at least one visible character. Invisible characters are white space, controls, those that
-- Unicode calls default ignorable, and blanks that count as letters or symbols: Hangul fillers, U+2800, U+1D159.
create function usher.has_ink(value text) returns boolean
language sql
immutable
parallel safe
return value ~ '[^\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f-\u1160\u1680\u17b4-\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]';

-- Returns whether a text shows as one line, in the order of its letters: no line breaks, no other controls and no
-- characters that override the text direction.
create function usher.is_line(value text) returns boolean
language sql
immutable
parallel safe
return usher.has_ink(value)
  and value !~ '[\u0001-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb]';

-- Returns whether a text contains something like an e-mail address: an at sign of any width, with text on both sides.
create function usher.holds_address(value text) returns boolean
language sql
immutable
parallel safe
return value ~ '[^\u0001-\u0020\u00a0@][@\ufe6b\uff20][^\u0001-\u0020\u00a0@]';

-- Refuses a row unless each column named in the trigger's arguments is null, unchanged or one visible line.
create function usher.guard_lines() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changed constant jsonb := to_jsonb(new);
  before constant jsonb := case when tg_op = 'UPDATE' then to_jsonb(old) else '{}' end;
  field text;
begin
  foreach field in array tg_argv loop
    if changed ->> field is distinct from before ->> field and not usher.is_line(changed ->> field) then
      raise exception using
        errcode = 'US007',
        message = format('%s must be one line of visible text', field),
        detail = field;
    end if;
  end loop;
  return new;
end
$$;

revoke execute on function
  usher.has_ink(text), usher.is_line(text), usher.holds_address(text), usher.guard_lines()
  from public;
-- Triggers call these functions as the user who writes.
grant execute on function usher.has_ink(text), usher.is_line(text), usher.holds_address(text)
  to anon, authenticated, service_role;
