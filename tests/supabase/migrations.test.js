// The Supabase CLI and `usher migrate` apply the same folder, and each reads the records of the other.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import pg from "pg";

import { root, start, usher } from "./usher.js";

const run = promisify(execFile);
const cli = join(import.meta.dirname, "node_modules/.bin/supabase");

let dev, url, project, files;

before(async () => {
  dev = await start();
  const admin = new pg.Client(dev.database_url);
  await admin.connect();
  await admin.query("create database project");
  await admin.end();
  url = dev.database_url.replace(/\/[^/]*$/, "/project");
  const owner = new pg.Client(url);
  await owner.connect();
  await owner.query(await readFile(join(root, "sql/shim.sql"), "utf8"));
  await owner.end();

  project = await mkdtemp(join(tmpdir(), "usher-cli-"));
  await mkdir(join(project, "supabase"));
  await writeFile(join(project, "supabase/config.toml"), 'project_id = "usher"\n');
  await cp(join(root, "sql/migrations"), join(project, "supabase/migrations"), { recursive: true });
  files = (await readdir(join(root, "sql/migrations"))).sort();
});

after(async () => {
  await dev?.stop();
  if (project) await rm(project, { recursive: true });
});

/** Runs the CLI in the project and returns its output. */
async function supabase(...words) {
  const { stdout, stderr } = await run(cli, [...words, `--remote=${url}`, "--workdir", project, "--yes"], {
    env: { ...process.env, SUPABASE_TELEMETRY_DISABLED: "1", DO_NOT_TRACK: "1" },
  });
  return stdout + stderr;
}

test("after the CLI has applied every file, usher applies none", async () => {
  await supabase("migration", "up");
  const status = await usher(url, "migrate", "status");
  assert.equal(status.match(/\bapplied\b/g)?.length, files.length, status);
  const again = await usher(url, "migrate", "up");
  assert.doesNotMatch(again, /\.sql/, again);
});

test("the CLI applies again a migration that usher has reverted", async () => {
  await usher(url, "migrate", "down");
  const printed = await supabase("migration", "up");
  assert.match(printed, new RegExp(files.at(-1)));
  const status = await usher(url, "migrate", "status");
  assert.equal(status.match(/\bapplied\b/g)?.length, files.length, status);
});

test("the CLI skips the migrations that usher has applied", async () => {
  await usher(url, "migrate", "down", "--to", "0");
  await usher(url, "migrate", "up");
  const printed = await supabase("migration", "up");
  assert.doesNotMatch(printed, /Applying migration/i);
});
