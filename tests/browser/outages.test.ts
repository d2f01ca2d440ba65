// Killed gateways and lost networks, seen from the viewer's page.

import { afterAll, beforeAll, expect, test } from "vitest";

import { startGateway } from "../../client/tests/gateway.ts";
import { openDatabase } from "./database.ts";
import { eventually, openHouse } from "./house.ts";
import { seat, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;
const database = openDatabase(demo);
let gateway: Awaited<ReturnType<typeof startGateway>>;

beforeAll(async () => {
  gateway = await startGateway(demo);
});
afterAll(() => gateway.stop());

test("no message is missing or doubled after a kill of the gateway during a chat", async () => {
  const [ayla, bram] = await Promise.all([sit("ayla"), sit("bram")]);
  const expected: string[] = [];
  const talk = async (count: number) => {
    for (let at = 0; at < count; at += 1) {
      const text = `line ${expected.length}`;
      expected.push(text);
      await database.say("sol", text);
    }
  };
  await talk(10);
  const killed = gateway.kill();
  await talk(30);
  await killed;
  // A viewer sends a message before the page notices the dead connection.
  await ayla.say("line from ayla, said while it was away");
  await bram.page.getByText(/^Reconnecting/).waitFor();
  await talk(30);
  const started = gateway.start();
  await talk(10);
  await started;
  await talk(10);
  for (const viewer of [ayla, bram]) {
    await viewer.isConnected();
    await viewer.hears("line from ayla, said while it was away");
    await viewer.hears(expected.at(-1) ?? "");
    const said = (await viewer.said()).filter((text) => text.startsWith("line "));
    expect(said.filter((text) => text !== "line from ayla, said while it was away")).toEqual(expected);
    expect(said).toHaveLength(expected.length + 1);
    expect(await viewer.page.locator("#proof-list").textContent()).toMatch(/Gaps\s*0\s*Duplicates\s*0\D/);
  }
});

test("no message is lost while a viewer is offline", async () => {
  const [lina, otto] = await Promise.all([sit("lina"), sit("otto")]);
  await lina.page.context().setOffline(true);
  await lina.page.getByText("Offline", { exact: true }).waitFor();
  await otto.say("said while lina was offline");
  await lina.say("said by lina while offline");
  await otto.hears("said while lina was offline");
  expect(await otto.said()).not.toContain("said by lina while offline");
  await lina.page.context().setOffline(false);
  await lina.isConnected();
  for (const each of [lina, otto]) {
    await each.hears("said by lina while offline");
    await each.hears("said while lina was offline");
    const said = (await each.said()).filter((text) => text.startsWith("said "));
    expect(said).toEqual(["said while lina was offline", "said by lina while offline"]);
  }
});

test("with blocked WebSockets the page works over HTTP and survives a kill of the gateway", async () => {
  const blocked = await house.open(seat(demo, "yuki", gateway.url), { isCut: true, isBlocked: true });
  const [yuki, otto] = [await new Viewer(blocked).isConnected(), await sit("otto")];
  expect(await blocked.locator("#proof-list").textContent()).toMatch(/Transport\s*http/);
  await yuki.say("said over HTTP");
  await otto.hears("said over HTTP");
  await otto.say("heard over HTTP");
  await yuki.hears("heard over HTTP");
  const movie = yuki.movie("Seven Minutes to Midnight Station");
  const votes = async () => (await otto.counts())[2];
  const before = (await votes()) ?? 0;
  await movie.click();
  await eventually(votes).toBe(before + 1);
  await movie.click();
  await eventually(votes).toBe(before);

  await gateway.kill();
  await database.say("sol", "said while HTTP was away");
  await gateway.start();
  await yuki.hears("said while HTTP was away");
  await yuki.isConnected();
  const said = await yuki.said();
  expect(said.filter((text) => text.endsWith("HTTP") || text.endsWith("away")).slice(-3)).toEqual([
    "said over HTTP",
    "heard over HTTP",
    "said while HTTP was away",
  ]);
  expect(await blocked.locator("#proof-list").textContent()).toMatch(/Gaps\s*0\s*Duplicates\s*0\D/);
});

async function sit(username: string): Promise<Viewer> {
  return new Viewer(await house.open(seat(demo, username, gateway.url), { isCut: true })).isConnected();
}
