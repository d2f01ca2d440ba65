import type { SupabaseClient, User } from "@supabase/supabase-js";
import { useQuery } from "@tanstack/react-query";
import type { SessionInfo } from "@usher/client";
import { useConnection, useSession, useViewers, usherKeys } from "@usher/client/react";
import { useEffect, useState } from "react";

import { Chat } from "./Chat.tsx";
import { Connection } from "./Connection.tsx";
import { SignIn } from "./SignIn.tsx";
import { SESSION } from "./settings.ts";
import { Votes } from "./Votes.tsx";

/** Shows one session: header, poll and chat. */
export function App({ supabase }: { supabase: SupabaseClient }) {
  const user = useUser(supabase);
  const { status, error } = useSession(SESSION);
  const connection = useConnection();
  // During an outage of the auth server, supabase-js reports no session. The user has not signed out.
  const isSignedOut = user === null && connection.error === null;
  if (status === "stopped") return <p className="stopped">You cannot watch this session: {error?.message}</p>;
  return (
    <>
      <header>
        <Title />
        <Viewers />
        <Connection />
        {user && (
          <button type="button" className="quiet" onClick={() => supabase.auth.signOut()}>
            Sign out
          </button>
        )}
      </header>
      <main>
        <div className="column">
          {isSignedOut && <SignIn supabase={supabase} />}
          <Votes session={SESSION} />
        </div>
        <Chat session={SESSION} user={user?.id ?? null} />
      </main>
    </>
  );
}

/** Reads from the React Query cache, which Usher fills. Any component with queries can do the same. */
function Title() {
  const { data: info } = useQuery<SessionInfo | null>({ queryKey: usherKeys.info(SESSION) });
  return (
    <h1>
      {info?.title ?? "…"} {info?.status === "live" && <span className="live">live</span>}
    </h1>
  );
}

function Viewers() {
  const viewers = useViewers(SESSION);
  return viewers === null ? null : <p>{viewers.toLocaleString()} watching</p>;
}

/** Returns the signed-in user; null if no user is signed in, undefined until it is known. */
function useUser(supabase: SupabaseClient): User | null | undefined {
  const [user, setUser] = useState<User | null>();
  useEffect(() => {
    const { data } = supabase.auth.onAuthStateChange((_, session) => setUser(session?.user ?? null));
    return () => data.subscription.unsubscribe();
  }, [supabase]);
  return user;
}
