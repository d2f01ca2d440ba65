/** The settings: from a `.env` file in your project, from `start.mjs` in this example. */
const env: Record<string, string | undefined> = import.meta.env;

/** The URL of the gateway. */
export const USHER_URL = env.VITE_USHER_URL ?? "http://127.0.0.1:4000";
/** The URL of the Supabase project. In this example, the app's own server replaces Supabase Auth. */
export const SUPABASE_URL = env.VITE_SUPABASE_URL ?? location.origin;
export const SUPABASE_KEY = env.VITE_SUPABASE_KEY ?? "the project's publishable key";
/** The session to show. An app with many sessions takes it from its route. */
export const SESSION = env.VITE_SESSION ?? "5e551000-0000-4000-8000-000000000001";
/** The demo users with a sign-in button. Empty in your project. */
export const DEMO_USERS = env.VITE_DEMO_USERS?.split(" ") ?? [];
