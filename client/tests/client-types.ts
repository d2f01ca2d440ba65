// Checks which code the client's types allow and reject. Nothing here runs: tsc is the test.

import { createClient } from "@supabase/supabase-js";
import { QueryClient } from "@tanstack/react-query";
import { createElement } from "react";
import { WebSocket } from "ws";

import {
  connect,
  type Database,
  type ErrorCode,
  type Message,
  RefusedError,
  supabaseTokens,
  UsherError,
} from "../src/index.ts";
import { UsherProvider, useChat, useTally, useVote } from "../src/react/index.ts";

const supabase = createClient<Database>("http://127.0.0.1", "key");
const url = "https://gateway.example";

export const everySource = [
  connect({ url }),
  connect({ url, getToken: () => null }),
  connect({ url, getToken: async () => "token", history: 100, WebSocket, fetch }),
  connect({ url, ...supabaseTokens(supabase) }),
  connect({ url, WebSocket: globalThis.WebSocket }),
];

export const everyProvider = [
  createElement(UsherProvider, { client: connect({ url }) }),
  createElement(UsherProvider, { url }),
  createElement(UsherProvider, { url, supabase, queryClient: new QueryClient(), invalidate: (id) => [["mine", id]] }),
  // @ts-expect-error The provider needs a client or the URL of a gateway.
  createElement(UsherProvider, {}),
  // @ts-expect-error A client already has its own tokens.
  createElement(UsherProvider, { client: connect({ url }), supabase }),
];

// @ts-expect-error The URL is missing.
connect({});
// @ts-expect-error A token is a string.
connect({ url, getToken: () => 1 });

export async function eventsAreTyped(id: string): Promise<string | null> {
  const session = connect({ url }).session(id);
  session.on("message", (message) => message.author?.display_name?.trim());
  session.on("viewers", (viewers) => viewers.toFixed());
  // @ts-expect-error This event does not exist.
  session.on("typing", () => {});
  for await (const event of session) {
    switch (event.type) {
      case "chat.created":
        return event.data.author?.username ?? event.data.body;
      case "chat.deleted":
        // @ts-expect-error A deletion does not contain the text.
        return event.data.body;
      case "voting.closed":
        return event.data.results?.counts[0]?.movie ?? event.data.options[0]?.title ?? null;
      case "session.updated":
        return event.data.title ?? null;
    }
  }
  return null;
}

export async function answersAreTyped(id: string): Promise<number | ErrorCode | null> {
  const session = connect({ url }).session(id);
  try {
    const { seq, nonce } = await session.send("hello", { replyTo: "m1" });
    await session.vote("voting", null);
    // @ts-expect-error A vote names a movie, or null to withdraw.
    await session.vote("voting");
    return seq + nonce.length;
  } catch (error) {
    if (error instanceof RefusedError) return error.retryAfterMs;
    return error instanceof UsherError ? error.code : null;
  }
}

export function stateIsReadOnly(id: string): readonly Message[] {
  const session = connect({ url }).session(id);
  // @ts-expect-error The list of messages is read-only.
  session.messages.push();
  // @ts-expect-error A message is read-only.
  if (session.messages[0]) session.messages[0].body = "";
  return session.messages;
}

export function useHooks(id: string) {
  const { messages, send } = useChat(id);
  const tally = useTally(id);
  const { vote, mine } = useVote(id, tally?.id);
  // A component that takes a row of supabase-js also takes a chat message.
  const row: { id: string; body: string | null; created_at: string; user_id: string } | undefined = messages[0];
  const share: number | undefined = tally?.rows[0]?.share;
  // @ts-expect-error A message is a string.
  void send(1);
  return { row, share, vote, mine };
}
