// The published package: it works in bundlers, browsers and TypeScript, and stays small.

import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { rolldown } from "rolldown";
import { expect, test } from "vitest";

const folder = fileURLToPath(new URL("..", import.meta.url));
const dist = join(folder, "dist");

/** The size limit of the core, minified and gzipped. */
const CORE_BYTES_MAX = 11_000;
/** The size limit of the core with the hooks, without React. */
const REACT_BYTES_MAX = 13_000;

test("publint reports no problem", async () => {
  const { messages, pkg } = await publint({ pkgDir: folder, strict: true });
  expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
});

test("types resolve for every kind of import, and the package contains only dist and src", async () => {
  const target = await mkdtemp(join(tmpdir(), "usher-pack-"));
  try {
    const words = ["pack", "--json", "--ignore-scripts", "--pack-destination", target];
    const { stdout } = await promisify(execFile)("npm", words, { cwd: folder });
    const [packed]: { filename: string; files: { path: string }[] }[] = JSON.parse(stdout);
    const folders = new Set(packed?.files.map(({ path }) => path.split("/").slice(0, -1).join("/")));
    expect([...folders].toSorted()).toEqual(["", "dist", "dist/react", "src", "src/react"]);
    const tarball = createPackageFromTarballData(await readFile(join(target, packed?.filename ?? "")));
    const analysis = await checkPackage(tarball);
    const problems = analysis.types ? analysis.problems : [{ kind: "NoTypes" as const }];
    // The package has only ES modules and an `exports` map. Maintained tools need no more.
    const known = ["CJSResolvesToESM", "NoResolution"];
    const isOld = (problem: object) => "resolutionKind" in problem && problem.resolutionKind === "node10";
    expect(problems.filter((problem) => !known.includes(problem.kind) && !isOld(problem))).toEqual([]);
    expect(problems.filter((problem) => problem.kind === "NoResolution" && !isOld(problem))).toEqual([]);
  } finally {
    await rm(target, { recursive: true });
  }
}, 120_000);

test("the package is plain ES modules for browsers, and the core has no dependency", async () => {
  for (const name of await readdir(dist, { recursive: true })) {
    if (!name.endsWith(".js")) continue;
    const text = await readFile(join(dist, name), "utf8");
    const imports = [...text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map(([, path]) => path ?? "");
    const foreign = imports.filter((path) => !/^\.\.?\/.*\.js$/.test(path));
    expect({ name, foreign }).toEqual({ name, foreign: name.startsWith("react") ? foreign.filter(isReact) : [] });
  }
});

test("the core and the hooks stay small", async () => {
  const core = await weigh("index.js");
  const hooks = await weigh("react/index.js");
  console.log(`minified and gzipped: core ${core} bytes, with the hooks ${hooks} bytes`);
  expect(core).toBeLessThan(CORE_BYTES_MAX);
  expect(hooks).toBeLessThan(REACT_BYTES_MAX);
});

function isReact(path: string): boolean {
  return path === "react";
}

async function weigh(entry: string): Promise<number> {
  const bundle = await rolldown({ input: join(dist, entry), external: ["react"], logLevel: "silent" });
  const { output } = await bundle.generate({ format: "es", minify: true });
  // Counts only the first chunk. Pages load dynamic imports only if they need them.
  const [first] = output;
  return gzipSync(first.code, { level: 9 }).length;
}
