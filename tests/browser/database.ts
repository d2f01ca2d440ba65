// The demo's database, written past the gateway, as a job would.

import pg from "pg";
import { afterAll, beforeAll } from "vitest";

import type { Demo } from "../../client/tests/gateway.ts";
import { userOf } from "./viewer.ts";

/** A connection for the tests of a file. */
export function openDatabase(demo: Demo) {
  const client = new pg.Client(demo.database_url);
  beforeAll(() => client.connect());
  afterAll(() => client.end());
  return {
    async say(username: string, body: string): Promise<void> {
      const query = "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3)";
      await client.query(query, [demo.session, userOf(demo, username).id, body]);
    },
  };
}
