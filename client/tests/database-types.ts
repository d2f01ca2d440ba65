// Checks which code the database types allow and reject. Nothing here runs: tsc is the test, and it also reports an
// unused @ts-expect-error.

import { createClient } from "@supabase/supabase-js";

import type { Database, Tables, TablesInsert, TablesUpdate } from "../src/index.ts";

const supabase = createClient<Database>("http://127.0.0.1", "key");

export async function readsAreTyped(session: string) {
  const { data } = await supabase
    .from("chat_messages")
    .select("id, body, author:profiles!chat_messages_user_id_fkey(username)")
    .eq("session_id", session);
  const first: { id: string; body: string; author: { username: string } } | undefined = data?.[0];

  const { data: profile } = await supabase.rpc("my_profile").single();
  const role: string | undefined = profile?.role;

  // @ts-expect-error This table does not exist.
  supabase.from("chat_rooms");
  // @ts-expect-error This column does not exist.
  supabase.from("votes").select().eq("voter", session);
  return { first, role };
}

export async function writesAreTyped(session: string, voting: string, movie: string) {
  await supabase.from("chat_messages").insert({ session_id: session, body: "hello" });
  await supabase.from("votes").upsert({ voting_session_id: voting, movie_id: movie });
  await supabase.from("overlay_tokens").update({ revoked_at: new Date().toISOString() }).eq("session_id", session);

  // @ts-expect-error The body is missing.
  await supabase.from("chat_messages").insert({ session_id: session });
  // @ts-expect-error `until` is a time or null.
  await supabase.from("session_bans").insert({ session_id: session, user_id: movie, until: true });
}

export const message: Tables<"chat_messages">["edited_at"] = null;
export const voting: TablesInsert<"voting_sessions"> = { session_id: "", question: "which?" };
export const change: TablesUpdate<"movie_sessions"> = { slow_mode_seconds: 5, chat_enabled: true };
// @ts-expect-error `slow_mode_seconds` is a number.
export const wrong: TablesUpdate<"movie_sessions"> = { slow_mode_seconds: "5" };
