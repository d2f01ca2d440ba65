/** What the app is told by its environment: a `.env` in a project, `start.mjs` here. */
const env: Record<string, string | undefined> = import.meta.env;

/** The gateway. */
export const USHER_URL = env.VITE_USHER_URL ?? "http://127.0.0.1:4000";
/** The project. Here the server of the app stands in for Supabase Auth. */
export const SUPABASE_URL = env.VITE_SUPABASE_URL ?? location.origin;
export const SUPABASE_KEY = env.VITE_SUPABASE_KEY ?? "the project's publishable key";
/** The session to show. An app with many takes it from its route. */
export const SESSION = env.VITE_SESSION ?? "5e551000-0000-4000-8000-000000000001";
/** Who can sign in with a click. Empty in a project. */
export const DEMO_USERS = env.VITE_DEMO_USERS?.split(" ") ?? [];
