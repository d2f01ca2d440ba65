-- The event log: numbered without gaps in commit order, each session for itself.

create table usher.session_heads (
  session_id uuid not null,
  seq bigint not null default 0,
  floor bigint not null default 0,
  constraint session_heads_pkey primary key (session_id),
  constraint session_heads_session_id_fkey foreign key (session_id) references public.movie_sessions (id) on delete cascade,
  constraint session_heads_floor_check check (floor between 0 and seq)
)
-- One row is rewritten by every message: room on the page keeps those updates off the index.
with (fillfactor = 20);

-- No foreign key: it would cost a lookup for every event. The rows go with their session by a trigger.
create table usher.session_events (
  session_id uuid not null,
  seq bigint not null,
  type text not null,
  at timestamptz not null,
  message_id uuid,
  data json not null,
  constraint session_events_pkey primary key (session_id, seq),
  constraint session_events_seq_check check (seq > 0),
  constraint session_events_type_check check (char_length(type) between 1 and 64)
);

alter table usher.session_heads enable row level security;
alter table usher.session_events enable row level security;

create index session_events_message_id_idx on usher.session_events (message_id) where message_id is not null;

revoke all on usher.session_heads, usher.session_events from public, anon, authenticated, service_role;

comment on table usher.session_heads is 'The newest number of each session''s log. The lock on the row makes commit order the order of numbers.';
comment on column usher.session_heads.floor is 'The number before the oldest row that is kept.';
comment on table usher.session_events is 'The log. Written by append_events alone, trimmed by trim_events.';
comment on column usher.session_events.message_id is 'The chat message that the event is about.';
comment on column usher.session_events.data is 'The exact text that goes out, hence json and not jsonb.';

-- The names of the channels end in a random suffix. Any role with direct SQL may NOTIFY and LISTEN on a channel whose name
-- it knows: with fixed names it could forge events and overhear private sessions.
create table usher.channels (
  only_row boolean not null default true,
  events text not null default 'usher_events_' || replace(gen_random_uuid()::text, '-', ''),
  votes text not null default 'usher_votes_' || replace(gen_random_uuid()::text, '-', ''),
  control text not null default 'usher_control_' || replace(gen_random_uuid()::text, '-', ''),
  constraint channels_pkey primary key (only_row),
  constraint channels_only_row_check check (only_row)
);

alter table usher.channels enable row level security;

revoke all on usher.channels from public, anon, authenticated, service_role;

comment on table usher.channels is 'The names of the NOTIFY channels. A secret of the gateway: whoever knows a name can forge and overhear it.';

insert into usher.channels default values;

-- Security definer: called by usher_gateway, which listens on these channels; nobody else may know their names.
create function usher.channel_names(out events text, out votes text, out control text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select c.events, c.votes, c.control
  into channel_names.events, channel_names.votes, channel_names.control
  from usher.channels c;
end
$$;

-- The text of an event on the wire. A body parsed at creation needs no search_path and can be inlined.
create function usher.wire_event(seq bigint, type text, at timestamptz, data json) returns text
language sql
stable
return '{"seq":' || seq || ',"type":"' || type
  || '","at":"' || to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
  || '","data":' || data::text || '}';

-- Appends events of one type to one session's log and tells the listeners. Returns the last number, or null where
-- the session is being deleted: a deleted session has no log. The only writer of the log.
--
-- Two settings recur in the functions of the hot path. force_generic_plan: an array's length would be planned for
-- again at every call, which costs more than the work. enable_seqscan = off: what is looked up by key stays so where
-- a plan was made while the tables were small.
-- Security definer: called by our triggers and append_event; nobody else may.
create function usher.append_events(session uuid, type text, messages uuid[], datas json[]) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  -- A statement sends so many events whole; what is beyond is one number, and read from the log.
  whole_events_max constant integer := 20;
  -- Postgres rolls the writer back at 8,000 bytes.
  payload_bytes_max constant integer := 7900;
  count constant integer := cardinality(datas);
  last bigint;
  channel constant text := (select c.events from usher.channels c);
  stamp timestamptz;
  payload text;
begin
  update usher.session_heads h
  set seq = h.seq + count
  where h.session_id = append_events.session
  returning h.seq into last;
  if not found then
    return null;
  end if;

  -- Read behind the lock, so that times ascend with the numbers.
  stamp := clock_timestamp();

  insert into usher.session_events (session_id, seq, type, at, message_id, data)
  select append_events.session, last - count + e.n, append_events.type, stamp, e.message_id, e.data
  from unnest(messages, datas) with ordinality as e (message_id, data, n);

  for n in 1..least(count, whole_events_max) loop
    payload := '{"s":"' || session || '","q":' || (last - count + n)
      || ',"e":' || usher.wire_event(last - count + n, type, stamp, datas[n]) || '}';
    if octet_length(payload) >= payload_bytes_max then
      payload := '{"s":"' || session || '","q":' || (last - count + n) || '}';
    end if;
    perform pg_notify(channel, payload);
  end loop;
  if count > whole_events_max then
    perform pg_notify(channel, '{"s":"' || session || '","q":' || last || '}');
  end if;

  return last;
end
$$;

-- Security definer: called by our triggers; nobody else may.
create function usher.append_event(session uuid, type text, data json) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return usher.append_events(session, type, array[null::uuid], array[data]);
end
$$;

-- Security definer: runs as a trigger on movie_sessions, whose writer may not touch the log.
create function usher.on_sessions_created() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into usher.session_heads (session_id)
  select n.id from new_rows n order by n.id;
  return null;
end
$$;

-- Security definer: as above.
create function usher.on_sessions_deleted() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from usher.session_events e
  using old_rows o
  where e.session_id = o.id;
  return null;
end
$$;

revoke execute on all functions in schema usher from public;
grant execute on function usher.channel_names() to usher_gateway;

create trigger movie_sessions_created
  after insert on public.movie_sessions
  referencing new table as new_rows
  for each statement
  execute function usher.on_sessions_created();

create trigger movie_sessions_deleted
  after delete on public.movie_sessions
  referencing old table as old_rows
  for each statement
  execute function usher.on_sessions_deleted();

-- Sessions that were there before the log.
insert into usher.session_heads (session_id)
select s.id from public.movie_sessions s;
