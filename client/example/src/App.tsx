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

/** One session: its header, the voting, the chat. */
export function App({ supabase }: { supabase: SupabaseClient }) {
  const user = useUser(supabase);
  const { status, error } = useSession(SESSION);
  const connection = useConnection();
  // While the auth server is away, supabase-js has no session to tell of: nobody has signed out.
  const isSignedOut = user === null && connection.error === null;
  if (status === "stopped") return <p className="stopped">This session cannot be shown: {error?.message}</p>;
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

/** From the React Query cache, which Usher writes: any component may, beside the queries that it has already. */
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

/** Who is signed in: null for nobody, undefined until it is known. */
function useUser(supabase: SupabaseClient): User | null | undefined {
  const [user, setUser] = useState<User | null>();
  useEffect(() => {
    const { data } = supabase.auth.onAuthStateChange((_, session) => setUser(session?.user ?? null));
    return () => data.subscription.unsubscribe();
  }, [supabase]);
  return user;
}
