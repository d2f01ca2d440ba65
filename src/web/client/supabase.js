// Made by `npm run pages` from client/src. Change it there.
/** Tokens from supabase-js. Structural: the package depends on no version of it. */
/** The options of `connect` that follow the sign-in of a supabase-js client. */
export function supabaseTokens(supabase) {
    return {
        // getSession waits for a refresh under way, and refreshes what has run out.
        getToken: async () => (await supabase.auth.getSession()).data.session?.access_token ?? null,
        onTokenChange(changed) {
            // Not in the callback itself: supabase-js holds a lock there, which getSession would wait for.
            const { data } = supabase.auth.onAuthStateChange(() => void setTimeout(changed));
            return () => data.subscription.unsubscribe();
        },
    };
}
