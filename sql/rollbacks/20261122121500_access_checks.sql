-- Access is asked for when a viewer comes, and again when our own tables say so.

drop function usher.access_changed(uuid, uuid);
drop function usher.admit_many(jsonb);
