import "./style.css";

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import type { Database } from "@usher/client";
import { UsherProvider } from "@usher/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./App.tsx";
import { SUPABASE_KEY, SUPABASE_URL, USHER_URL } from "./settings.ts";

const supabase: SupabaseClient<Database> = createClient<Database>(SUPABASE_URL, SUPABASE_KEY);
const queryClient = new QueryClient();

// One provider for the whole tree. All hooks share one socket, which uses the sign-in of the supabase-js client.
createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <UsherProvider url={USHER_URL} supabase={supabase} queryClient={queryClient}>
        <App supabase={supabase} />
      </UsherProvider>
    </QueryClientProvider>
  </StrictMode>,
);
