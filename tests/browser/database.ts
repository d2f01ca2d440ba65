// Writes to the demo's database directly, without the gateway.

import pg from "pg";
import { afterAll, beforeAll } from "vitest";

import type { Demo } from "../../client/tests/gateway.ts";
import { userOf } from "./viewer.ts";

/** Opens a connection for the tests of one file. */
export function openDatabase(demo: Demo) {
  const client = new pg.Client(demo.database_url);
  beforeAll(() => client.connect());
  afterAll(() => client.end());
  return {
    /** Inserts `count` messages in one statement: `${body} 1`, `${body} 2`, … */
    async sayMany(username: string, body: string, count: number): Promise<void> {
      const query = `insert into public.chat_messages (session_id, user_id, body)
        select $1, $2, $3 || ' ' || n from generate_series(1, $4::integer) n`;
      await client.query(query, [demo.session, userOf(demo, username).id, body, count]);
    },
    async say(username: string, body: string): Promise<void> {
      const query = "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3)";
      await client.query(query, [demo.session, userOf(demo, username).id, body]);
    },
  };
}
