/** Gets access tokens from supabase-js. Uses structural types, so it depends on no version of supabase-js. */

import { TokenError } from "./errors.ts";
import type { ConnectOptions } from "./usher.ts";

/** The answer of supabase-js to a request for its session. */
interface SessionAnswer {
  readonly data: { readonly session: { readonly access_token: string; readonly expires_at?: number } | null };
  /** Set if supabase-js failed: its auth server did not answer, or refused the refresh token. */
  readonly error?: unknown;
}

/** The part of a supabase-js client that this package uses. */
export interface SupabaseLike {
  readonly auth: {
    getSession(): Promise<SessionAnswer>;
    refreshSession?(): Promise<SessionAnswer>;
    onAuthStateChange(listener: () => void): {
      data: { subscription: { unsubscribe(): void } };
    };
  };
}

/** Returns options for `connect` that use the sign-in of a supabase-js client. */
export function supabaseTokens(supabase: SupabaseLike): Required<Pick<ConnectOptions, "getToken" | "onTokenChange">> {
  const { auth } = supabase;
  return {
    async getToken({ refresh }) {
      // getSession waits for a running refresh, and refreshes a session that is about to expire.
      const answer = await auth.getSession();
      if (answer.error) throw failure("token_unavailable", answer.error);
      const { session } = answer.data;
      if (session === null) return null;
      const isStale = session.expires_at !== undefined && session.expires_at * 1000 <= Date.now();
      if (!(refresh || isStale) || !auth.refreshSession) return session.access_token;
      const { data, error } = await auth.refreshSession();
      if (error || data.session === null) throw failure("token_expired", error ?? "no session after the refresh");
      return data.session.access_token;
    },
    onTokenChange(changed) {
      // Calls back after a timeout: supabase-js holds a lock during its callback, and getSession would wait for it.
      const { data } = auth.onAuthStateChange(() => void setTimeout(changed));
      return () => data.subscription.unsubscribe();
    },
  };
}

function failure(code: string, cause: unknown): TokenError {
  return new TokenError(code, `supabase-js has no access token: ${(cause as Error).message ?? cause}`, { cause });
}
