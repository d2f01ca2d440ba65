// Runs the binary under test: `usher dev`, which starts a database and a gateway, and other commands.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.env.USHER_BIN ?? resolve(root, process.env.CARGO_TARGET_DIR ?? "target", "debug/usher");
const run = promisify(execFile);

/** Starts `usher dev`. Returns the values that `--json` prints, and a function that stops it. */
export async function start() {
  const usher = spawn(binary, ["dev", "--json", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  usher.stderr.on("data", (text) => (log += text));
  const ended = once(usher, "exit");
  const [line] = await Promise.race([
    once(createInterface({ input: usher.stdout }), "line"),
    ended.then(() => Promise.reject(new Error(`usher dev ended early:\n${log}`))),
  ]);
  const stop = async () => {
    usher.kill("SIGTERM");
    await ended;
  };
  return { ...JSON.parse(line), stop };
}

/** Runs a command on a database and returns its output. */
export async function usher(url, ...words) {
  const { stdout } = await run(binary, words, { env: { ...process.env, DATABASE_URL: url } });
  return stdout;
}
