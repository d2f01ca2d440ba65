// A script that makes a gateway send every kind of frame. Lina is the viewer. The script also changes the database and
// restarts the gateway.

import pg from "pg";

import { type Session, Usher } from "../../src/index.ts";
import { realWorld } from "../../src/world.ts";
import { mint, startDemo, startGateway } from "../gateway.ts";
import { type Deed, type Line, perform, recording, SESSION, shown, type Tape } from "./tape.ts";

export const LINA = "a0000000-0000-4000-8000-000000000003";
const OTTO = "a0000000-0000-4000-8000-000000000004";
const VOTING = "b0115000-0000-4000-8000-000000000001";
const SECOND_VOTING = "b0115000-0000-4000-8000-0000000000ff";
const [FIRST, SECOND] = ["f1100000-0000-4000-8000-000000000001", "f1100000-0000-4000-8000-000000000002"];
const MESSAGE = "c4a70000-0000-4000-8000-0000000000ff";
/** The first token expires soon: the gateway warns 60 s before. */
const SHORT_TOKEN_SECONDS = 64;

/** Runs the script on a new gateway and returns the tape. */
export async function recordEvening(note: string): Promise<Tape> {
  const demo = await startDemo();
  const database = new pg.Client(demo.database_url);
  // The gateway renews a resume token at half of its lifetime.
  const gateway = await startGateway(demo, { USHER_RESUME_TTL: "10", USHER_DRAIN_SECONDS: "2" });
  const lines: Line[] = [];
  const outcomes: Promise<number | string>[] = [];
  let tokens = 0;
  const getToken = () => mint(demo, { id: LINA }, (tokens += 1) === 1 ? SHORT_TOKEN_SECONDS : 3600);
  const WebSocket = recording(lines);
  const options = { url: gateway.url, getToken, WebSocket, history: 5 };
  let nonces = 0;
  const uuid = () => `00000000-0000-4000-8000-${String((nonces += 1)).padStart(12, "0")}`;
  const usher = new Usher(options, { ...realWorld(options), uuid });
  const others: Session[] = [];
  const session = usher.session(SESSION);

  const hears = (type: string, from: number) => lines.findIndex((line, at) => at >= from && isHeard(line, type)) >= 0;
  /** Runs `act` and waits until the client has received these types. */
  const after = async (act: () => unknown, ...types: string[]) => {
    const from = lines.length;
    await act();
    await until(() => types.every((type) => hears(type, from)), `${types}`);
  };
  const sql = async (text: string) => {
    lines.push({ sql: text });
    await database.query(text);
  };
  const does = async (deed: Deed) => {
    const from = lines.length;
    lines.push(deed);
    const result = perform(deed, usher, session, others);
    if (result === null) return;
    outcomes.push(result);
    await result;
    // The log event of a message can arrive before its answer.
    await until(() => isAnswered(lines.slice(from)), JSON.stringify(deed));
  };
  const live = () => until(() => session.status === "live", "live");

  try {
    await database.connect();
    await live();
    // Chat.
    await after(() => does({ does: "send", body: "good evening" }), "chat.created");
    const reply = `insert into public.chat_messages (id, session_id, user_id, body) values
      ('${MESSAGE}', '${SESSION}', '${OTTO}', 'hello Lina')`;
    await after(() => sql(reply), "chat.created");
    await after(() => does({ does: "send", body: "hello Otto", replyTo: MESSAGE }), "chat.created");
    await after(
      () => sql(`update public.chat_messages set body = 'hello, Lina!', edited_at = now() where id = '${MESSAGE}'`),
      "chat.updated",
    );
    await after(
      () => sql(`update public.chat_messages set deleted_at = now() where id = '${MESSAGE}'`),
      "chat.deleted",
    );
    await does({ does: "send", body: "x".repeat(2001) });
    // Votes.
    await after(() => does({ does: "vote", voting: VOTING, movie: FIRST }), "tally");
    await after(() => does({ does: "vote", voting: VOTING, movie: SECOND }), "tally");
    await after(() => does({ does: "vote", voting: VOTING, movie: null }), "tally");
    await does({ does: "vote", voting: VOTING, movie: FIRST });
    await after(
      () => sql(`update public.voting_sessions set question = 'And now?' where id = '${VOTING}'`),
      "voting.updated",
    );
    await after(
      () => sql(`update public.voting_sessions set state = 'closed' where id = '${VOTING}'`),
      "voting.closed",
    );
    await does({ does: "vote", voting: VOTING, movie: SECOND });
    await sql(`insert into public.voting_sessions (id, session_id, question, results_visibility)
      values ('${SECOND_VOTING}', '${SESSION}', 'Another one?', 'after_close')`);
    await sql(`insert into public.voting_options (voting_session_id, movie_id, position)
      values ('${SECOND_VOTING}', '${FIRST}', 1), ('${SECOND_VOTING}', '${SECOND}', 2)`);
    await after(
      () => sql(`update public.voting_sessions set state = 'open' where id = '${SECOND_VOTING}'`),
      "voting.opened",
    );
    await after(() => does({ does: "vote", voting: SECOND_VOTING, movie: FIRST }), "tally");
    await after(() => sql(`delete from public.voting_sessions where id = '${SECOND_VOTING}'`), "voting.deleted");
    // Slow mode.
    const slow = (seconds: number) =>
      sql(`update public.movie_sessions set slow_mode_seconds = ${seconds} where id = '${SESSION}'`);
    await after(() => slow(60), "session.updated");
    await does({ does: "send", body: "too soon" });
    await after(() => slow(0), "session.updated");
    // A time-out with an end.
    await after(
      () =>
        sql(`insert into public.session_bans (session_id, user_id, until, reason)
          values ('${SESSION}', '${LINA}', now() + interval '1 hour', 'a breath of air')`),
      "access",
      "member.banned",
    );
    await does({ does: "send", body: "from outside" });
    await after(() => sql(`delete from public.session_bans where user_id = '${LINA}'`), "access", "member.unbanned");
    // A second session, and a liveness check.
    await after(() => does({ does: "follow" }), "subscribed");
    await after(() => does({ does: "leave" }), "unsubscribed");
    await after(() => does({ does: "wake" }), "pong");
    await until(() => hears("token_expiring", 0) && hears("resume_token", 0), "time passes");
    // A kill of the gateway, a deployment, and a database with another identity.
    await gateway.kill();
    await sql(
      `insert into public.chat_messages (session_id, user_id, body) values ('${SESSION}', '${OTTO}', 'anybody?')`,
    );
    await gateway.start();
    await after(live, "chat.created");
    await after(() => gateway.stop(), "reconnect");
    await gateway.start();
    await live();
    await after(() => sql("update usher.identity set id = gen_random_uuid()"), "reset");
    await live();
    await does({ does: "send", body: "still here" });
    // A permanent ban.
    const ban = `insert into public.session_bans (session_id, user_id) values ('${SESSION}', '${LINA}')`;
    await after(() => sql(ban), "unsubscribed");
    await until(() => usher.connection.status === "stopped", "stopped");
    const { server } = usher.connection;
    return { note, server: server ?? "", lines, outcomes: await Promise.all(outcomes), shows: shown(session) };
  } finally {
    usher.close();
    await gateway.stop().catch(() => {});
    await database.end();
    await demo.stop();
  }
}

function isHeard(line: Line, type: string): boolean {
  if (!("hears" in line)) return false;
  const { type: own, events } = line.hears;
  return own === type || (own === "events" && (events as { type: string }[]).some((event) => event.type === type));
}

function isAnswered(lines: readonly Line[]): boolean {
  const asked = lines.flatMap((line) => ("says" in line && line.says.id !== undefined ? [line.says.id] : []));
  return asked.every((id) => lines.some((line) => "hears" in line && line.hears.id === id));
}

async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`did not happen within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
