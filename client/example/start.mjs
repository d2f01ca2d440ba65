// Starts a gateway with the demo (`usher dev`) and the app.
//
// Your own project does not need this file: run `vite`, with a .env file that has the settings below.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

import { standInForAuth } from "./auth.mjs";

const root = fileURLToPath(new URL(".", import.meta.url));
const repository = fileURLToPath(new URL("../..", import.meta.url));
const usher = startUsher();
let vite;
process.on("SIGINT", stop).on("SIGTERM", stop);

const [line] = await once(createInterface({ input: usher.stdout }), "line");
const demo = JSON.parse(line);
// The settings that a .env file would have. VITE_SUPABASE_URL is missing, because this server replaces Supabase Auth.
Object.assign(process.env, {
  VITE_USHER_URL: demo.url,
  VITE_SUPABASE_KEY: demo.anon_key,
  VITE_SESSION: demo.session,
  VITE_DEMO_USERS: demo.users.map((user) => user.username).join(" "),
});
vite = await createServer({
  root,
  server: { host: "127.0.0.1", port: Number(process.env.PORT ?? 5173) },
  plugins: [standInForAuth(demo)],
});
await vite.listen();
vite.printUrls();

/** Starts the binary in USHER_BIN, or builds Usher and starts it. */
function startUsher() {
  const words = ["dev", "--json", "--listen", "127.0.0.1:0", "--log", "warn"];
  const [command, ...before] = process.env.USHER_BIN ? [process.env.USHER_BIN] : ["cargo", "run", "--quiet", "--"];
  if (before.length > 0) console.log("Building and starting usher (minutes the first time, then seconds) …");
  const usher = spawn(command, [...before, ...words], { cwd: repository, stdio: ["ignore", "pipe", "inherit"] });
  usher.on("error", (error) => fail(`cannot run ${command}: ${error.message}`));
  usher.on("exit", () => fail("usher exited; see its messages above"));
  return usher;
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

async function stop() {
  usher.removeAllListeners("exit");
  const ended = once(usher, "exit");
  usher.kill("SIGTERM");
  await Promise.all([ended, vite?.close()]);
  process.exit();
}
