// Starts real gateways: `usher dev` with a database and the demo, and `usher serve` for a gateway that a test can kill.

import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.env.USHER_BIN ?? resolve(root, process.env.CARGO_TARGET_DIR ?? "target", "debug/usher");

/** The output of `usher dev --json`. */
export interface Demo {
  readonly url: string;
  readonly database_url: string;
  readonly gateway_database_url: string;
  readonly jwt_secret: string;
  readonly session: string;
  readonly voting: string;
  readonly movies: readonly [string, string, string, string];
  readonly users: readonly {
    readonly id: string;
    readonly username: string;
    readonly role: string;
    readonly token: string;
  }[];
  readonly overlay_token: string;
  readonly stop: () => Promise<void>;
}

/** Starts a database with the demo, and a gateway for it. */
export async function startDemo(): Promise<Demo> {
  const usher = run(["dev", "--json", "--listen", "127.0.0.1:0"]);
  const [line] = await Promise.race([once(createInterface({ input: usher.process.stdout }), "line"), usher.failed]);
  return { ...JSON.parse(line), stop: usher.stop };
}

/** Starts a second gateway for the demo's database. It keeps its address after a restart. */
export async function startGateway(demo: Demo, settings: Record<string, string> = {}) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = {
    DATABASE_URL: demo.gateway_database_url,
    SUPABASE_JWT_SECRET: demo.jwt_secret,
    USHER_RESUME_SECRET: demo.jwt_secret,
    USHER_LISTEN: `127.0.0.1:${port}`,
    ...settings,
  };
  let current = await startOn(url, env);
  return {
    url,
    /** Kills the process with SIGKILL, like a power cut. */
    async kill() {
      current.process.kill("SIGKILL");
      await current.ended;
    },
    /** Stops the process with SIGTERM, like a deployment. */
    stop: () => current.stop(),
    async start() {
      current = await startOn(url, env);
    },
  };
}

/** Returns a token of a demo user that expires after `seconds`. */
export function mint(demo: Demo, user: { readonly id: string }, seconds: number, more: object = {}): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: user.id, aud: "authenticated", role: "authenticated", iat: now, exp: now + seconds, ...more };
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", demo.jwt_secret).update(signed).digest("base64url")}`;
}

async function startOn(url: string, env: Record<string, string>) {
  const gateway = run(["serve"], env);
  await Promise.race([gateway.failed, isReady(url)]);
  return gateway;
}

async function isReady(url: string): Promise<void> {
  for (;;) {
    const response = await fetch(`${url}/readyz`).catch(() => null);
    if (response?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function run(words: string[], env: Record<string, string> = {}) {
  const process_: ChildProcess & { readonly stdout: NonNullable<ChildProcess["stdout"]> } = spawn(binary, words, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  let log = "";
  process_.stderr?.on("data", (text) => (log += text));
  const ended = once(process_, "exit");
  const failed = ended.then(() => Promise.reject<never>(new Error(`usher ${words[0]} ended:\n${log.slice(-2000)}`)));
  // The process always ends at some point. That is a failure only while a test waits for its start.
  failed.catch(() => {});
  const stop = async () => {
    process_.kill("SIGTERM");
    await ended;
  };
  return { process: process_, ended, failed, stop };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
