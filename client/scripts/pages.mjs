/**
 * Makes src/web/client: the modules of this package that the gateway's own pages load, so that building the gateway needs
 * no Node.
 *
 *   npm run pages          writes them
 *   npm run pages:check    says whether they are what src would give
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "..");
const PAGES = resolve(ROOT, "../src/web/client");
const ENTRY = "index.js";
const NOTE = "// Made by `npm run pages` from client/src. Change it there.\n";

const wanted = modules(compiled());
if (process.argv.includes("--check")) {
  const differing = differences(wanted, present());
  if (differing.length > 0) {
    console.error(`src/web/client is not what client/src gives: run \`npm run pages\` (${differing.join(", ")})`);
    process.exit(1);
  }
} else {
  rmSync(PAGES, { recursive: true, force: true });
  mkdirSync(PAGES, { recursive: true });
  for (const [name, text] of wanted) writeFileSync(join(PAGES, name), text);
}

/** The text of every module that the compiler gives. */
function compiled() {
  const folder = mkdtempSync(join(tmpdir(), "usher-pages-"));
  try {
    const tsc = join(ROOT, "node_modules/.bin/tsc");
    execFileSync(tsc, ["-p", "tsconfig.pages.json", "--outDir", folder], { cwd: ROOT, stdio: "inherit" });
    return read(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Those that the entry reaches; modules of nothing but types are left behind. */
function modules(all) {
  const reached = new Map();
  const wait = [ENTRY];
  for (let name = wait.pop(); name !== undefined; name = wait.pop()) {
    if (reached.has(name)) continue;
    const text = all.get(name);
    reached.set(name, NOTE + text);
    for (const [, path] of text.matchAll(/(?:from |import\()"(\.[^"]+)"/g)) wait.push(join(dirname(name), path));
  }
  return reached;
}

function present() {
  try {
    return read(PAGES);
  } catch {
    return new Map();
  }
}

function read(folder) {
  const names = readdirSync(folder).filter((name) => name.endsWith(".js"));
  return new Map(names.map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

function differences(one, other) {
  const names = new Set([...one.keys(), ...other.keys()]);
  return [...names].filter((name) => one.get(name) !== other.get(name));
}
