// Made by `npm run pages` from client/src. Change it there.
/** Tokens from supabase-js. Structural: the package depends on no version of it. */
import { TokenError } from "./errors.js";
/** The options of `connect` that follow the sign-in of a supabase-js client. */
export function supabaseTokens(supabase) {
    const { auth } = supabase;
    return {
        async getToken({ refresh }) {
            // getSession waits for a refresh under way, and refreshes a session whose end is near.
            const answer = await auth.getSession();
            if (answer.error)
                throw failure("token_unavailable", answer.error);
            const { session } = answer.data;
            if (session === null)
                return null;
            const isStale = session.expires_at !== undefined && session.expires_at * 1000 <= Date.now();
            if (!(refresh || isStale) || !auth.refreshSession)
                return session.access_token;
            const { data, error } = await auth.refreshSession();
            if (error || data.session === null)
                throw failure("token_expired", error ?? "no session after the refresh");
            return data.session.access_token;
        },
        onTokenChange(changed) {
            // Not in the callback itself: supabase-js holds a lock there, which getSession would wait for.
            const { data } = auth.onAuthStateChange(() => void setTimeout(changed));
            return () => data.subscription.unsubscribe();
        },
    };
}
function failure(code, cause) {
    return new TokenError(code, `supabase-js has no access token: ${cause.message ?? cause}`, { cause });
}
