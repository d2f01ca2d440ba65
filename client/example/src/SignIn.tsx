import type { SupabaseClient } from "@supabase/supabase-js";
import { useMutation } from "@tanstack/react-query";

import { DEMO_USERS } from "./settings.ts";

/** Shows a button for each demo user. In your project, replace this component with your own sign-in. */
export function SignIn({ supabase }: { supabase: SupabaseClient }) {
  const signIn = useMutation({
    async mutationFn(username: string) {
      const credentials = { email: `${username}@usher.example`, password: "demo" };
      const { error } = await supabase.auth.signInWithPassword(credentials);
      if (error) throw error;
    },
  });
  return (
    <section className="card" aria-labelledby="sign-in">
      <h2 id="sign-in">Who are you?</h2>
      <p>You are watching as a guest. Sign in to chat and vote.</p>
      <div className="people">
        {DEMO_USERS.map((username) => (
          <button key={username} type="button" disabled={signIn.isPending} onClick={() => signIn.mutate(username)}>
            {username}
          </button>
        ))}
      </div>
      {signIn.error && <p role="alert">{signIn.error.message}</p>}
    </section>
  );
}
