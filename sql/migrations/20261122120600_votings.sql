-- Polls: the question, its ballot and the votes.

create table public.voting_sessions (
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  question text not null,
  state text not null default 'draft',
  opens_at timestamptz,
  closes_at timestamptz,
  results_visibility text not null default 'live',
  allow_change boolean not null default true,
  results jsonb,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint voting_sessions_pkey primary key (id),
  constraint voting_sessions_session_id_fkey foreign key (session_id) references public.movie_sessions (id) on delete cascade,
  constraint voting_sessions_question_check check (char_length(question) between 1 and 300),
  constraint voting_sessions_state_check check (state in ('draft', 'open', 'closed')),
  constraint voting_sessions_closes_at_check check (closes_at > opens_at),
  constraint voting_sessions_results_visibility_check check (results_visibility in ('live', 'after_close')),
  constraint voting_sessions_results_check check ((state = 'closed') = (results is not null))
);

create table public.voting_options (
  voting_session_id uuid not null,
  movie_id uuid not null,
  position smallint not null default 0,
  created_at timestamptz not null default now(),
  constraint voting_options_pkey primary key (voting_session_id, movie_id),
  constraint voting_options_voting_session_id_fkey foreign key (voting_session_id)
    references public.voting_sessions (id) on delete cascade,
  constraint voting_options_movie_id_fkey foreign key (movie_id) references public.movies (id) on delete restrict
);

create table public.votes (
  voting_session_id uuid not null,
  user_id uuid not null default auth.uid(),
  movie_id uuid not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint votes_pkey primary key (voting_session_id, user_id),
  -- A vote is for a movie on the ballot of its poll.
  constraint votes_option_fkey foreign key (voting_session_id, movie_id)
    references public.voting_options (voting_session_id, movie_id) on delete cascade,
  constraint votes_user_id_fkey foreign key (user_id) references public.profiles (id) on delete cascade
);

alter table public.voting_sessions enable row level security;
alter table public.voting_options enable row level security;
alter table public.votes enable row level security;

create index voting_sessions_session_id_idx on public.voting_sessions (session_id);
create unique index voting_sessions_one_open_key on public.voting_sessions (session_id) where state = 'open';
create index voting_sessions_due_idx on public.voting_sessions (closes_at) where state = 'open';
create index voting_options_movie_id_idx on public.voting_options (movie_id);
create index votes_option_idx on public.votes (voting_session_id, movie_id);
create index votes_user_id_idx on public.votes (user_id);

comment on table public.voting_sessions is 'A poll on the movie to watch. A session has at most one open poll. A closed poll is final.';
comment on column public.voting_sessions.results_visibility is 'live: viewers see counts while the poll is open. after_close: only after the close.';
comment on column public.voting_sessions.allow_change is 'Whether voters may change or withdraw their votes.';
comment on column public.voting_sessions.results is 'The counts at the close: {"total", "counts": [{"movie", "votes"}]}. Set by the database.';
comment on table public.voting_options is 'The ballot of a poll, in the order of position.';
comment on table public.votes is 'One vote of one user in one poll. Votes are secret: users see only their own.';

-- The ballot lock -------------------------------------------------------------------------------------------
--
-- A voter holds the poll's lock in shared mode until its transaction ends. A transaction that closes the poll takes the
-- lock in exclusive mode. So it waits for the voters that have the lock, then counts all committed votes, and later
-- voters find the poll closed.
--
-- It is an advisory lock, not a row lock, because it writes nothing and new voters queue behind a waiting close.

create function usher.ballot_lock_key(voting uuid) returns bigint
language sql
immutable
return hashtextextended('usher.ballot:' || voting::text, 0);

-- Takes the ballot lock in shared mode and raises unless the poll is open. With as_caller, it also checks the rules for
-- users. The common case, a poll in a public session, takes one query.
-- Security definer: called by the guard as authenticated. It reveals only whether the caller may vote.
create function usher.enter_ballot(voting uuid, as_caller boolean, out allow_change boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  voter constant uuid := auth.uid();
  ballot record;
  caller record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    -- An older snapshot would show a closed poll as open.
    raise exception using
      errcode = 'feature_not_supported',
      message = format(
        'voting needs isolation level read committed; this transaction has %s',
        current_setting('transaction_isolation')
      ),
      hint = 'Begin it with: begin isolation level read committed';
  end if;
  perform pg_advisory_xact_lock_shared(usher.ballot_lock_key(voting));

  select v.allow_change
  into allow_change
  from public.voting_sessions v
  join public.movie_sessions s on s.id = v.session_id
  left join public.session_bans b on b.session_id = s.id and b.user_id = voter
  where v.id = voting
    and v.state = 'open'
    and (v.closes_at is null or v.closes_at > clock_timestamp())
    and s.visibility = 'public'
    and s.status <> 'ended'
    and b.user_id is null;
  if found and (voter is not null or not as_caller) then
    return;
  end if;

  select v.session_id, v.state, v.closes_at, v.allow_change
  into ballot
  from public.voting_sessions v
  where v.id = voting;
  if not found then
    raise exception using errcode = 'US005', message = 'no such poll';
  end if;

  if as_caller then
    select * into caller from usher.standing(ballot.session_id);
    if not found then
      raise exception using errcode = 'US005', message = 'no such poll';
    elsif caller.ban_until is not null or caller.ended or not caller.writer then
      perform usher.require_writer(ballot.session_id);
    end if;
  end if;

  if ballot.state <> 'open' or ballot.closes_at <= clock_timestamp() then
    raise exception using errcode = 'US008', message = 'the poll is not open';
  end if;
  allow_change := ballot.allow_change;
end
$$;

-- Runs as the writer. The state of the poll applies to everyone. The rules for users apply only to roles that row level
-- security restricts.
create function usher.guard_vote() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_caller constant boolean := row_security_active(tg_relid);
  allow_change boolean;
begin
  if tg_op = 'DELETE' then
    if not as_caller then
      -- The owner's deletes come from deleted accounts, options and polls. They are always allowed, but a close must
      -- wait for them too, so they take the lock.
      perform pg_advisory_xact_lock_shared(usher.ballot_lock_key(old.voting_session_id));
    elsif not usher.enter_ballot(old.voting_session_id, true) then
      raise exception using errcode = 'US009', message = 'a vote in this poll is final';
    end if;
    return old;
  end if;

  allow_change := usher.enter_ballot(new.voting_session_id, as_caller);
  if tg_op = 'UPDATE' then
    if (new.voting_session_id, new.user_id) <> (old.voting_session_id, old.user_id) then
      raise exception using errcode = 'US007', message = 'the poll and the voter of a vote cannot change';
    elsif new.movie_id <> old.movie_id and not allow_change and as_caller then
      raise exception using errcode = 'US009', message = 'a vote in this poll is final';
    end if;
    new.updated_at := now();
  end if;
  return new;
end
$$;

create trigger votes_guard
  before insert or update or delete on public.votes
  for each row
  execute function usher.guard_vote();

create trigger votes_truncated
  before truncate on public.votes
  for each statement
  execute function usher.refuse_truncate();

-- Counts the votes of a poll from their table, not from the tallies.
-- Security definer: called only by the guard of voting_sessions, as the user who closes the poll.
create function usher.count_votes(voting uuid) returns jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'total', coalesce(sum(c.votes), 0),
    'counts', coalesce(jsonb_agg(jsonb_build_object('movie', c.movie_id, 'votes', c.votes) order by c.position, c.movie_id), '[]')
  )
  from (
    select o.movie_id, o.position, count(v.user_id) as votes
    from public.voting_options o
    left join public.votes v on v.voting_session_id = o.voting_session_id and v.movie_id = o.movie_id
    where o.voting_session_id = count_votes.voting
    group by o.movie_id, o.position
  ) as c
$$;

-- Security definer: it counts votes, which are secret. It changes only the row that it guards.
create function usher.guard_voting_session() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    if new.state = 'closed' then
      new.results := coalesce(new.results, usher.count_votes(new.id));
    else
      new.results := null;
    end if;
  else
    if (new.id, new.session_id) <> (old.id, old.session_id) then
      raise exception using errcode = 'US007', message = 'the id and session of a poll cannot change';
    elsif new.state <> old.state and (old.state, new.state) not in (('draft', 'open'), ('open', 'closed')) then
      raise exception using
        errcode = 'US009', message = format('a poll cannot go from %s to %s', old.state, new.state);
    end if;
    -- Waits for voters before a count starts or ends: at the close, and where the counts become public or secret.
    if old.state = 'open' and (new.state <> 'open' or new.results_visibility <> old.results_visibility) then
      if current_setting('transaction_isolation') <> 'read committed' then
        -- An older snapshot would miss votes that were committed during the wait.
        raise exception using
          errcode = 'feature_not_supported',
          message = format(
            'closing a poll or showing its counts needs isolation level read committed; this transaction has %s',
            current_setting('transaction_isolation')
          ),
          hint = 'Begin it with: begin isolation level read committed';
      end if;
      perform pg_advisory_xact_lock(usher.ballot_lock_key(new.id));
    end if;
    if old.state = 'open' and new.state = 'closed' then
      new.closes_at := least(new.closes_at, greatest(clock_timestamp(), new.opens_at + interval '1 microsecond'));
      new.results := usher.count_votes(new.id);
    elsif old.state <> 'closed' then
      new.results := null;
    end if;
    new.updated_at := now();
  end if;

  if new.state = 'open' and (tg_op = 'INSERT' or old.state <> 'open') then
    new.opens_at := least(new.opens_at, now());
  end if;
  return new;
end
$$;

create trigger voting_sessions_guard
  before insert or update on public.voting_sessions
  for each row
  execute function usher.guard_voting_session();

-- Runs as the writer. Users cannot open a poll in an ended session, nor change a closed poll.
create function usher.guard_voting_request() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active(tg_relid) then
    perform usher.require_writer(new.session_id);
    if tg_op = 'UPDATE' and old.state = 'closed' then
      raise exception using errcode = 'US008', message = 'a closed poll is final';
    end if;
  end if;
  return new;
end
$$;

create trigger voting_sessions_lines
  before insert or update of question on public.voting_sessions
  for each row
  execute function usher.guard_lines('question');

create trigger voting_sessions_guard_request
  before insert or update on public.voting_sessions
  for each row
  execute function usher.guard_voting_request();

-- Returns whether the caller moderates a poll that is in one of these states.
-- Security definer: called by policies as authenticated. It reveals nothing else about the poll.
create function usher.moderates_voting(voting uuid, states text[]) returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select exists (
      select 1
      from public.voting_sessions v
      where v.id = voting
        and v.state = any (states)
        and (usher.is_staff() or v.session_id in (select usher.moderated_sessions()))
    )
  );
end
$$;

revoke execute on function
  usher.ballot_lock_key(uuid), usher.enter_ballot(uuid, boolean), usher.guard_vote(), usher.count_votes(uuid),
  usher.guard_voting_session(), usher.guard_voting_request(), usher.moderates_voting(uuid, text[])
  from public;
grant execute on function usher.enter_ballot(uuid, boolean), usher.moderates_voting(uuid, text[])
  to anon, authenticated, service_role;
-- The guard calls it for writers that row level security does not restrict, so users do not need it.
grant execute on function usher.ballot_lock_key(uuid) to service_role;

-- Policies: voting_sessions ---------------------------------------------------------------------------------

create policy voting_sessions_select_anon on public.voting_sessions
  for select
  to anon
  using (
    state <> 'draft'
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );

create policy voting_sessions_select on public.voting_sessions
  for select
  to authenticated
  using (
    (
      state <> 'draft'
      or session_id = any (array(select usher.moderated_sessions()))
      or (select usher.is_staff())
    )
    and session_id <> all (array(select usher.banned_sessions()))
    and exists (select 1 from public.movie_sessions s where s.id = session_id)
  );

create policy voting_sessions_insert on public.voting_sessions
  for insert
  to authenticated
  with check (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()));

create policy voting_sessions_update on public.voting_sessions
  for update
  to authenticated
  using (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
  with check (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()));

create policy voting_sessions_delete on public.voting_sessions
  for delete
  to authenticated
  using (
    state = 'draft'
    and (session_id = any (array(select usher.moderated_sessions())) or (select usher.is_staff()))
  );

revoke all on public.voting_sessions from public, anon, authenticated;
grant select on public.voting_sessions to anon, authenticated;
grant insert (session_id, question, state, opens_at, closes_at, results_visibility, allow_change)
  on public.voting_sessions to authenticated;
grant update (question, state, opens_at, closes_at, results_visibility, allow_change)
  on public.voting_sessions to authenticated;
grant delete on public.voting_sessions to authenticated;
grant all on public.voting_sessions to service_role;

-- Policies: voting_options ----------------------------------------------------------------------------------

create policy voting_options_select on public.voting_options
  for select
  to anon, authenticated
  using (exists (select 1 from public.voting_sessions v where v.id = voting_session_id));

create policy voting_options_insert on public.voting_options
  for insert
  to authenticated
  with check (usher.moderates_voting(voting_session_id, '{draft,open}'));

create policy voting_options_update on public.voting_options
  for update
  to authenticated
  using (usher.moderates_voting(voting_session_id, '{draft,open}'))
  with check (usher.moderates_voting(voting_session_id, '{draft,open}'));

-- Only from a draft, because the votes for an option are deleted with it.
create policy voting_options_delete on public.voting_options
  for delete
  to authenticated
  using (usher.moderates_voting(voting_session_id, '{draft}'));

revoke all on public.voting_options from public, anon, authenticated;
grant select on public.voting_options to anon, authenticated;
grant insert (voting_session_id, movie_id, position) on public.voting_options to authenticated;
grant update (position) on public.voting_options to authenticated;
grant delete on public.voting_options to authenticated;
grant all on public.voting_options to service_role;

-- Policies: votes -------------------------------------------------------------------------------------------

create policy votes_select on public.votes
  for select
  to authenticated
  using (user_id = (select auth.uid()));

-- Returns the session of a poll.
-- Security definer: called as authenticated by a policy, which then checks movie_sessions. Going through the policies
-- of voting_sessions would double the cost of each vote.
create function usher.session_of(voting uuid) returns uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select v.session_id from public.voting_sessions v where v.id = voting);
end
$$;

revoke execute on function usher.session_of(uuid) from public;
grant execute on function usher.session_of(uuid) to authenticated, usher_gateway;

create policy votes_insert on public.votes
  for insert
  to authenticated
  with check (
    user_id = (select auth.uid())
    and exists (select 1 from public.movie_sessions s where s.id = usher.session_of(voting_session_id))
  );

-- Checks only the user. An upsert passes votes_insert first, and the guard checks all other rules.
create policy votes_update on public.votes
  for update
  to authenticated
  using (user_id = (select auth.uid()))
  with check (user_id = (select auth.uid()));

create policy votes_delete on public.votes
  for delete
  to authenticated
  using (user_id = (select auth.uid()));

revoke all on public.votes from public, anon, authenticated;
grant select, delete on public.votes to authenticated;
grant insert (voting_session_id, user_id, movie_id) on public.votes to authenticated;
-- The key columns too, because an upsert over REST sets every column that it inserts. The guard keeps them unchanged.
grant update (voting_session_id, user_id, movie_id) on public.votes to authenticated;
grant all on public.votes to service_role;
