-- What texts may hold: messages have to show, names and titles have to show as one line, names are no addresses.
--
-- The gateway states the first two rules as well (crates/core/src/protocol/text.rs); a test compares them over all characters.
--
-- Triggers and not constraints ask: a row that broke a rule before the rule was there can still be read, changed in its
-- other columns and deleted.

-- Whether a text has at least one character that leaves a mark. Invisible are white space, controls, what Unicode calls
-- default ignorable, and the blanks that count as letters or symbols: Hangul fillers, U+2800, U+1D159.
create function usher.has_ink(value text) returns boolean
language sql
immutable
parallel safe
return value ~ '[^\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f-\u1160\u1680\u17b4-\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]';

-- Whether a text shows as one line in the order of its letters: no breaks, other controls or overrides of the direction.
create function usher.is_line(value text) returns boolean
language sql
immutable
parallel safe
return usher.has_ink(value)
  and value !~ '[\u0001-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb]';

-- Whether a text holds what looks like an e-mail address: an at sign, of any width, with something on both sides.
create function usher.holds_address(value text) returns boolean
language sql
immutable
parallel safe
return value ~ '[^\u0001-\u0020\u00a0@][@\ufe6b\uff20][^\u0001-\u0020\u00a0@]';

-- Refuses the columns that its arguments name unless each is null, unchanged or a line.
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
-- Triggers ask as whoever writes.
grant execute on function usher.has_ink(text), usher.is_line(text), usher.holds_address(text)
  to anon, authenticated, service_role;
