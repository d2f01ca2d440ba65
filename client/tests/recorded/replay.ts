// Replays a tape: the gateway's frames to this client, and the client's frames to this gateway.

import { once } from "node:events";
import { WebSocket } from "ws";

import { type Session, Usher } from "../../src/index.ts";
import { type FakeSocket, FakeWorld, settle } from "../fakes.ts";
import { type Frame, type Line, perform, SESSION, shown, type Tape, TOKEN } from "./tape.ts";

/** Maps values that differ in each run, such as ids and nonces, from the tape to this run. */
class Names {
  readonly #names = new Map<unknown, unknown>();

  /** Learns the values of two corresponding frames. */
  learn(taped: unknown, own: unknown): void {
    if (typeof taped === "string" && typeof own === "string") this.#names.set(taped, own);
    if (typeof taped !== "object" || typeof own !== "object" || taped === null || own === null) return;
    for (const [key, value] of Object.entries(taped)) this.learn(value, (own as Record<string, unknown>)[key]);
  }

  /** Returns the frame with the values of this run. */
  in<Value>(value: Value): Value {
    if (Array.isArray(value)) return value.map((item) => this.in(item)) as Value;
    if (typeof value !== "object" || value === null) return (this.#names.get(value) ?? value) as Value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.in(item)])) as Value;
  }
}

/** Replays the gateway's frames of a tape to this client. `change` may alter each frame. */
export async function playToClient(tape: Tape, change: (frame: Frame) => readonly object[] = (frame) => [frame]) {
  const world = new FakeWorld();
  let tokens = 0;
  const usher = new Usher(
    { url: "https://gateway.example", getToken: () => `token ${(tokens += 1)}`, history: 5 },
    world,
  );
  const session = usher.session(SESSION);
  const others: Session[] = [];
  const outcomes: Promise<number | string>[] = [];
  const names = new Names();
  const ids = new Map<number, number>();
  let socket = world.sockets[0];
  let said = new Set<object>();

  const waitFor = async <Value>(look: () => Value | undefined, what: string): Promise<Value> => {
    await settle();
    for (let count = 0; count < 100; count += 1) {
      const found = look();
      if (found !== undefined) return found;
      await world.pass(100);
    }
    throw new Error(`the client did not send: ${what}`);
  };
  for (const line of tape.lines) {
    if ("does" in line) {
      const result = perform(line, usher, session, others);
      if (result) outcomes.push(result);
    } else if ("opens" in line) {
      socket = await waitFor(() => world.sockets[line.opens - 1], `socket ${line.opens}`);
      said = new Set();
    } else if ("says" in line) {
      const own = await waitFor(() => next(socket, line.says, said), JSON.stringify(line.says));
      said.add(own);
      names.learn(line.says, own);
      if (line.says.id !== undefined && own.id !== undefined) ids.set(line.says.id, own.id);
    } else if ("hears" in line) {
      const id = ids.get(line.hears.id ?? Number.NaN);
      const frame = { ...names.in(line.hears), ...(id !== undefined && { id }) };
      for (const each of change(frame)) socket?.say(each);
    } else if ("closed" in line) {
      socket?.cut(line.closed);
    }
    await settle();
  }
  const result = { outcomes: await Promise.all(outcomes), shows: shown(session), named: names };
  usher.close();
  return result;
}

function next(socket: FakeSocket | undefined, taped: Frame, said: ReadonlySet<object>) {
  return socket?.said.find((frame) => frame.type === taped.type && !said.has(frame));
}

/** The gateway and database of a replay. */
export interface Stage {
  readonly url: string;
  readonly token: () => string;
  readonly sql: (text: string) => Promise<unknown>;
}

/** Replays the client's frames of a tape to a gateway. Returns each answer together with the one on the tape. */
export async function playToGateway(tape: Tape, { url, token, sql }: Stage): Promise<{ taped: Frame; own: Frame }[]> {
  const names = new Names();
  const answers: { taped: Frame; own: Frame }[] = [];
  let socket: WebSocket | null = null;
  let heard: Frame[] = [];
  // Another version may give other event numbers. Shifts each position by the difference of the heads.
  let shift = 0;
  for (const line of tape.lines) {
    if ("sql" in line) await sql(line.sql);
    else if ("opens" in line) {
      heard = [];
      socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/socket`, ["usher.v1"]);
      socket.on("message", (data) => heard.push(JSON.parse(String(data))));
      await once(socket, "open");
    } else if ("says" in line) {
      const frame = names.in(line.says);
      const resume = frame.resume as { seq: number } | undefined;
      socket?.send(
        JSON.stringify({
          ...frame,
          ...(frame.token === TOKEN && { token: token() }),
          ...(resume && { resume: { ...resume, seq: resume.seq + shift } }),
        }),
      );
    } else if ("hears" in line && isWaitedFor(line)) {
      const taped = line.hears;
      const own = await waitFor(() => take(heard, taped), JSON.stringify(taped));
      names.learn(opaque(taped), opaque(own));
      if (taped.head !== undefined) shift = Number(own.head) - Number(taped.head);
      answers.push({ taped, own });
    } else if ("closed" in line) socket?.terminate();
  }
  return answers;
}

/** Selects answers and the results of database changes. Other frames arrive at any time. */
function isWaitedFor({ hears }: Line & { hears: Frame }): boolean {
  return hears.id !== undefined || ["welcome", "pong", "access", "reset", "unsubscribed"].includes(hears.type);
}

function take(heard: Frame[], { type, id }: Frame): Frame | undefined {
  const at = heard.findIndex((frame) => frame.id === id && (id !== undefined || frame.type === type));
  return at < 0 ? undefined : heard.splice(at, 1)[0];
}

/** Selects the values that a client sends back unchanged. */
function opaque({ message, epoch, resume_token }: Frame): object {
  return { message, epoch, resume_token };
}

async function waitFor<Value>(look: () => Value | undefined, what: string): Promise<Value> {
  for (let count = 0; count < 1000; count += 1) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`the gateway did not send: ${what}`);
}
