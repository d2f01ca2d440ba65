// Compatibility of clients and gateways of different versions. tests/recorded has one recorded conversation (a tape)
// per released version.
//
// `npm run record` records this version. Run it for a release, before you raise the version.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { describe, expect, test } from "vitest";

import { mint, startDemo } from "./gateway.ts";
import { LINA, recordEvening } from "./recorded/evening.ts";
import { playToClient, playToGateway } from "./recorded/replay.ts";
import { type Frame, kindsOf, missing, type Tape, written } from "./recorded/tape.ts";

const NOTE = "Made by `npm run record`: tests/recorded/evening.ts, played on a real gateway. Not to be edited.";

const folder = fileURLToPath(new URL("recorded/", import.meta.url));
const recorded = readdirSync(folder).filter((name) => name.endsWith(".json"));

test("this gateway sends every frame and key that earlier gateways sent", async () => {
  const now = await recordEvening(NOTE);
  if (process.env.USHER_RECORD) writeFileSync(folder + process.env.USHER_RECORD, written(now));
  expect(recorded).not.toEqual([]);
  const kinds = kindsOf(now.lines);
  for (const name of recorded)
    for (const [kind, frames] of kindsOf(read(name).lines))
      for (const frame of frames) {
        const lost = (kinds.get(kind) ?? []).map((own) => missing(frame, own));
        const [least] = lost.toSorted((a, b) => a.length - b.length);
        expect({ name, kind, least }).toEqual({ name, kind, least: [] });
      }
});

describe.each(recorded)("%s", (name) => {
  test("this client reaches the same state as the client of that version", async () => {
    const tape = read(name);
    const { outcomes, shows, named } = await playToClient(tape);
    expect(outcomes).toEqual(tape.outcomes);
    expect(shows).toMatchObject(named.in(tape.shows));
  });

  test("this client ignores unknown frames and keys", async () => {
    const tape = read(name);
    const later = (frame: Frame) => [
      { type: "novelty", session: frame.session, id: 7_000_000, events: "none" },
      novel(frame) as object,
      { kind: "no type at all" },
    ];
    const { outcomes, shows, named } = await playToClient(tape, later);
    expect(outcomes).toEqual(tape.outcomes);
    expect(shows).toMatchObject(named.in(tape.shows));
  });

  test("this gateway answers that client like the gateway of that version", async () => {
    const tape = read(name);
    const demo = await startDemo();
    const database = new pg.Client(demo.database_url);
    await database.connect();
    try {
      const token = () => mint(demo, { id: LINA }, 3600);
      const answers = await playToGateway(tape, { url: demo.url, token, sql: (text) => database.query(text) });
      expect(answers.length).toBeGreaterThan(20);
      for (const { taped, own } of answers) {
        const { type, code, recovered, reason, can } = taped;
        expect(own).toMatchObject(JSON.parse(JSON.stringify({ type, code, recovered, reason, can })));
        expect({ taped, lost: missing(taped, own) }).toEqual({ taped, lost: [] });
      }
    } finally {
      await database.end();
      await demo.stop();
    }
  });
});

function read(name: string): Tape {
  return JSON.parse(readFileSync(folder + name, "utf8"));
}

/** Returns the value with an unknown key added to each object. */
function novel(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(novel);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, novel(item)]);
  return { novelty: { of: "another version" }, ...Object.fromEntries(entries) };
}
