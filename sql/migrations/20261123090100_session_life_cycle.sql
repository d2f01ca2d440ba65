-- A session goes from scheduled to live to ended and never back. Owners of the database may still mend a mistake.

-- As before, and a live session stays so until it ends.
-- Runs as the writer, so that row_security_active() tells API users from owners and service roles.
create or replace function usher.guard_movie_session() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if tg_op = 'UPDATE' then
    if new.id <> old.id then
      raise exception using errcode = 'US007', message = 'the id of a session does not change';
    end if;
    if row_security_active(tg_relid) then
      if old.status = 'ended' and new.status <> 'ended' then
        raise exception using errcode = 'US003', message = 'an ended session stays ended';
      end if;
      if old.status = 'live' and new.status = 'scheduled' then
        raise exception using errcode = 'US009', message = 'a live session does not go back to scheduled: end it';
      end if;
      if not (old.streamer_id = auth.uid() or usher.is_admin())
        and (new.title, new.movie_id, new.status, new.visibility, new.starts_at)
          is distinct from (old.title, old.movie_id, old.status, old.visibility, old.starts_at)
      then
        raise exception using errcode = 'US004', message = 'moderators change slow mode and chat only';
      end if;
    end if;
  end if;
  if new.status in ('live', 'ended') and new.started_at is null then
    new.started_at := now();
  end if;
  if new.status = 'ended' and new.ended_at is null then
    new.ended_at := greatest(now(), new.started_at);
  elsif new.status <> 'ended' then
    new.ended_at := null;
  end if;
  return new;
end
$$;
