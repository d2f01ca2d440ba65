/** Tokens from supabase-js. Structural: the package depends on no version of it. */

import type { ConnectOptions } from "./usher.ts";

/** The part of a supabase-js client that is used. */
export interface SupabaseLike {
  readonly auth: {
    getSession(): Promise<{ data: { session: { access_token: string } | null } }>;
    onAuthStateChange(listener: () => void): {
      data: { subscription: { unsubscribe(): void } };
    };
  };
}

/** The options of `connect` that follow the sign-in of a supabase-js client. */
export function supabaseTokens(supabase: SupabaseLike): Required<Pick<ConnectOptions, "getToken" | "onTokenChange">> {
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
