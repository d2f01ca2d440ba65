-- Texts: a message needs a visible character, names and titles are one visible line, and no name is an e-mail address.
-- The rules apply to table owners and users alike.
begin;
create extension if not exists pgtap;
select plan(64);

create function pg_temp.id(kind text, n integer) returns uuid
language sql
immutable
as $$
  select (rpad(kind, 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
insert into auth.users (id, raw_user_meta_data)
select pg_temp.id('aa', n), jsonb_build_object('username', 'tap_' || n) from generate_series(1, 2) as n;
update public.profiles set role = 'admin' where id = pg_temp.id('aa', 1);
insert into public.movies (id, title, created_by) values (pg_temp.id('ff', 1), 'Movie', pg_temp.id('aa', 1));
insert into public.movie_sessions (id, streamer_id, title, status)
values (pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'one', 'live');
insert into public.session_bans (session_id, user_id, reason) values (pg_temp.id('5e', 1), pg_temp.id('aa', 2), 'spoilers');
insert into public.voting_sessions (id, session_id, question) values (pg_temp.id('bb', 1), pg_temp.id('5e', 1), 'which?');
insert into public.chat_messages (id, session_id, user_id, body)
values (pg_temp.id('cc', 1), pg_temp.id('5e', 1), pg_temp.id('aa', 1), 'one');
insert into public.overlay_tokens (id, session_id, label, expires_at)
values (pg_temp.id('dd', 1), pg_temp.id('5e', 1), 'obs', now() + interval '1 day');

-- Runs a statement with a text in place of %L. Returns the SQLSTATE and the field of the refusal, or null.
create function pg_temp.refusal(statement text, value text, role name default 'none') returns text
language plpgsql
as $$
declare
  field text;
begin
  perform set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.id('aa', 1), 'role', 'authenticated')::text, true);
  perform set_config('role', role, true);
  execute replace(statement, '%L', quote_literal(value));
  raise exception using errcode = 'MX000';
exception
  when others then
    get stacked diagnostics field = pg_exception_detail;
    return nullif(concat_ws(' ', nullif(sqlstate, 'MX000'), field), '');
end
$$;

create temp table places (field text, statement text);
grant select on places to public;
insert into places
values
  ('display_name', 'update public.profiles set display_name = %L where id = ''aa000000-0000-4000-8000-000000000001'''),
  ('title', 'insert into public.movies (title, created_by) values (%L, ''aa000000-0000-4000-8000-000000000001'')'),
  ('title', 'update public.movies set title = %L'),
  ('title', 'insert into public.movie_sessions (streamer_id, title) values (''aa000000-0000-4000-8000-000000000001'', %L)'),
  ('title', 'update public.movie_sessions set title = %L'),
  ('reason', 'insert into public.session_bans (session_id, user_id, reason, banned_by) values (''5e000000-0000-4000-8000-000000000001'', ''aa000000-0000-4000-8000-000000000002'', %L, ''aa000000-0000-4000-8000-000000000001'') on conflict (session_id, user_id) do update set reason = excluded.reason'),
  ('reason', 'update public.session_bans set reason = %L'),
  ('question', 'insert into public.voting_sessions (session_id, question) values (''5e000000-0000-4000-8000-000000000001'', %L)'),
  ('question', 'update public.voting_sessions set question = %L'),
  ('body', 'insert into public.chat_messages (session_id, user_id, body) values (''5e000000-0000-4000-8000-000000000001'', ''aa000000-0000-4000-8000-000000000001'', %L)'),
  ('body', 'update public.chat_messages set body = %L');

select is(
  pg_temp.refusal(p.statement, v.value, r.role), case when v.is_refused then 'US007 ' || p.field end,
  format('%s, %s: %s', r.role, v.name, p.statement)
)
from places p
cross join (values ('none'), ('authenticated')) as r (role)
join (values
  ('white space', E' \n\u00a0\u3000', true, 'body'),
  ('invisible', E'\u200b\u2060\u3164', true, 'body'),
  ('two lines', E'a\nb', true, 'line'),
  ('an override', E'a\u202eb', true, 'line'),
  ('a name', E'Ana \u05d0\u200f \U0001f469\u200d\U0001f680', false, 'line'),
  ('a text', E'a\n\tb \u202e', false, 'body')
) as v (name, value, is_refused, kind) on (p.field = 'body') = (v.kind = 'body')
-- As authenticated, every statement runs with each text. As the owner, it runs with one refused text only.
where r.role = 'authenticated' or (v.name in ('invisible', 'an override'));

select is(pg_temp.refusal('update public.overlay_tokens set label = %L', E'a\nb'), 'US007 label', 'a label must be one line');
select is(
  pg_temp.refusal('insert into public.overlay_tokens (session_id, label, expires_at) values (''5e000000-0000-4000-8000-000000000001'', %L, now() + interval ''1 h'')', E'\u200b'),
  'US007 label', 'a label must be visible'
);
select is(
  pg_temp.refusal('select public.issue_overlay_token(''5e000000-0000-4000-8000-000000000001'', ''aa000000-0000-4000-8000-000000000001'', %L)', E'a\u2066', 'service_role'),
  'US007 label', 'the label of an issued token must be one line'
);
select is(
  pg_temp.refusal('insert into public.profiles (id, username, display_name) values (''00000000-0000-4000-8000-00000000dead'', ''fresh'', %L)', ' '),
  'US007 display_name', 'the name of a new profile must be visible'
);

-- Names of accounts ------------------------------------------------------------------------------------------

create temp table sign_ups (n serial, metadata jsonb, names text);
insert into sign_ups (metadata, names)
values
  ('{"name": "v@example.org"}', 'user_ab000000 user_ab000000'),
  ('{"username": "v@example.org", "user_name": "ana", "display_name": "v@example.org", "full_name": "Ana B"}', 'ana Ana B'),
  ('{"preferred_username": "V@EXAMPLE.ORG", "full_name": "  v@localhost ", "name": "Ana"}', 'user_ab000000 Ana'),
  ('{"username": "ana_2", "name": "Ana <v@example.org>"}', 'ana_2 ana_2'),
  ('{"username": "ana_3", "name": "v＠example.org"}', 'ana_3 ana_3'),
  (jsonb_build_object('username', 'ana_4', 'name', repeat('x', 63) || 'v@example.org'), 'ana_4 ana_4'),
  ('{"username": "ana_5", "name": "@ana at 5 @ night"}', 'ana_5 @ana at 5 @ night'),
  ('{"username": "ana_6", "display_name": "a\u202eb", "full_name": "a\nb", "name": "\u200b"}', 'ana_6 ana_6'),
  (jsonb_build_object('username', 'ana_7', 'name', repeat(e'\u200b', 64) || 'x'), 'ana_7 ana_7'),
  ('{"username": 777, "name": {"a": "b"}}', 'user_ab000000 user_ab000000');
insert into auth.users (id, raw_user_meta_data)
select ('ab000000-0000-4000-8000-' || lpad(s.n::text, 12, '0'))::uuid, s.metadata from sign_ups s;
select is(regexp_replace(concat_ws(' ', p.username, p.display_name), '_[0-9a-f]{8}\M', '_ab000000', 'g'), s.names, s.metadata::text)
from sign_ups s
join public.profiles p on p.id = ('ab000000-0000-4000-8000-' || lpad(s.n::text, 12, '0'))::uuid
order by s.n;

select is(
  pg_temp.refusal('update public.profiles set display_name = %L where id = ''aa000000-0000-4000-8000-000000000001''', 'v@example.org', r.role),
  'US007 display_name', format('%s cannot use an e-mail address as a name', r.role)
)
from (values ('none'), ('authenticated')) as r (role);

-- Rows that are older than a rule -----------------------------------------------------------------------------

set local session_replication_role = replica;
update public.profiles set display_name = E'v@example.org\n' where id = pg_temp.id('aa', 1);
update public.chat_messages set body = ' ' where id = pg_temp.id('cc', 1);
update public.voting_sessions set question = E'a\nb' where id = pg_temp.id('bb', 1);
set local session_replication_role = origin;
select is(pg_temp.refusal('update public.profiles set avatar_path = %L where id = ''aa000000-0000-4000-8000-000000000001''', 'x', 'authenticated'), null, 'other columns of an older row can change');
select is(pg_temp.refusal('update public.voting_sessions set question = question, state = %L', 'open', 'authenticated'), null, 'an update can keep the text of an older row');
select is(pg_temp.refusal('update public.chat_messages set deleted_at = %L', 'now', 'authenticated'), null, 'an older row can be deleted');
select isnt_empty($$select 1 from public.chat_messages where body = ' '$$, 'an older row can be read');

select * from finish();
rollback;
