// Tests the built client package under Deno, with Deno's own WebSocket and a real gateway.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { connect } from "../../client/dist/index.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = Deno.env.get("USHER_BIN") ??
  resolve(root, Deno.env.get("CARGO_TARGET_DIR") ?? "target", "debug/usher");

Deno.test("the client can chat and vote under Deno", async () => {
  const args = ["dev", "--json", "--listen", "127.0.0.1:0"];
  const usher = new Deno.Command(binary, { args, stdout: "piped", stderr: "null" }).spawn();
  try {
    const demo = JSON.parse(await firstLine(usher.stdout));
    const viewer = demo.users.find((user: { role: string }) => user.role === "viewer");
    const client = connect({ url: demo.url, getToken: () => viewer.token });
    const session = client.session(demo.session);
    const { seq } = await session.send("hello from Deno");
    await session.vote(demo.voting, demo.movies[0]);
    // The acknowledgement of a message may arrive before its event.
    await until(() => (session.continuity.seq ?? 0) >= seq);
    assert.equal(session.tally()?.mine, demo.movies[0]);
    assert.equal(session.messages.at(-1)?.body, "hello from Deno");
    assert.equal(session.continuity.seq, seq);
    assert.equal(session.continuity.gaps, 0);
    client.close();
    await new Promise((resolve) => setTimeout(resolve, 200));
  } finally {
    usher.kill("SIGTERM");
    await usher.status;
  }
});

/** Waits until a condition holds, for at most ten seconds. The assertions after it report a failure. */
async function until(holds: () => boolean): Promise<void> {
  for (let waits = 0; waits < 1000 && !holds(); waits += 1) await new Promise((resolve) => setTimeout(resolve, 10));
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`usher dev ended: ${text}`);
    text += value;
  }
  await reader.cancel();
  return text.split("\n")[0];
}
