-- Removes the profiles.

-- Cascade also drops the trigger on auth.users. Dropping it by name would need the owner of that table.
drop function usher.on_account_created() cascade;
drop function usher.create_profile(uuid, jsonb);
drop function public.my_profile();
drop table public.profiles;
drop function usher.guard_display_name();
drop function usher.touch_updated_at();
drop function usher.is_streamer();
drop function usher.is_admin();
drop function usher.is_staff();
drop function usher.profile_role();
