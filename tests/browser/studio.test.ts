// The streamer's dashboard, with two viewers who feel what is done there.

import type { Page } from "playwright-core";
import { afterEach, beforeAll, expect, test } from "vitest";

import { eventually, openHouse } from "./house.ts";
import { seat, userOf, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;
let studio: Page;
let ayla: Viewer;
let bram: Viewer;

beforeAll(async () => {
  studio = await house.open(seat(demo, "nora").replace("/?", "/studio?"));
  [ayla, bram] = await Promise.all([sit("ayla"), sit("bram")]);
  await studio.getByText("Connected", { exact: true }).waitFor();
});

// A test that fails half-way leaves no rule behind that the next ones would trip over.
afterEach(async () => {
  const body = JSON.stringify({ slow_mode_seconds: 0, chat_enabled: true });
  expect((await asStreamer("", { method: "PATCH", body })).status).toBeLessThan(300);
});

test("a message is deleted for everybody", async () => {
  await ayla.say("what nobody should read");
  await bram.hears("what nobody should read");
  const row = studio.locator("#log .message", { hasText: "what nobody should read" });
  await row.hover();
  await row.getByRole("button", { name: "Delete the message of Ayla Demir" }).click();
  for (const each of [ayla, bram]) {
    await eventually(() => each.said()).not.toContain("what nobody should read");
    expect((await each.said()).at(-1)).toBe("message deleted");
  }
});

test("what moves behind the session is counted while the studio is out of sight", async () => {
  const votes = studio.getByRole("figure", { name: /^Votes per minute/ });
  const samples = async () => (await votes.locator(".plot-line").getAttribute("d"))?.split("L").length ?? 0;
  // A vote that is changed is none more.
  const withdraw = ayla.page.getByRole("button", { name: "Withdraw my vote" });
  await withdraw.click();
  await withdraw.waitFor({ state: "hidden" });
  const withdrawn = await samples();
  await eventually(samples).toBeGreaterThan(withdrawn + 1);
  await setSight(studio, "hidden");
  const before = await samples();
  await ayla.movie("Neon Orchard").click();
  await studio.waitForTimeout(6500);
  expect(await samples()).toBe(before);
  await setSight(studio, "visible");
  await eventually(samples).toBeGreaterThan(before);
  expect(await samples()).toBeGreaterThanOrEqual(before + 3);
  expect(Number(await votes.locator("strong").textContent())).toBeGreaterThan(0);
});

test("the chat is slowed down, shut and opened again", async () => {
  // Slow mode counts from one's last message, also one from before it: said here, as other tests may or may not have.
  await bram.say("before it is slow");
  await ayla.hears("before it is slow");
  await studio.getByLabel("Slow mode").selectOption("60");
  await bram.page.getByText(/Slow mode · /).waitFor();
  await bram.say("too soon");
  await bram.page.getByText(/next message in/).waitFor();
  await studio.getByLabel("Slow mode").selectOption("0");
  await bram.page.getByText(/Slow mode · /).waitFor({ state: "hidden" });
  await bram.say("as soon as one likes");
  await ayla.hears("as soon as one likes");
  expect(await ayla.said()).not.toContain("too soon");

  const chat = studio.getByRole("switch", { name: "Chat" });
  await chat.click();
  await eventually(() => chat.getAttribute("aria-checked")).toBe("false");
  await ayla.page.getByText("Chat is off").waitFor();
  await ayla.box.waitFor({ state: "hidden" });
  await chat.click();
  await ayla.box.waitFor();
  await ayla.say("open again");
  await bram.hears("open again");
});

test("a viewer is timed out, reads on, and is let in again", async () => {
  await bram.say("too loud");
  const row = studio.locator("#log .message", { hasText: "too loud" });
  await row.hover();
  await row.getByRole("button", { name: "Time out or ban Bram de Wit" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "10 minutes" }).click();
  await bram.page.getByText(/You are timed out for another/).waitFor();
  await ayla.say("can you hear me, bram?");
  await bram.hears("can you hear me, bram?");
  await studio.getByRole("button", { name: "Kept out" }).click();
  await studio.getByRole("button", { name: "Let Bram de Wit in again" }).click();
  await bram.box.waitFor();
  await bram.say("quieter now");
  await ayla.hears("quieter now");
});

test("a voting is closed and another opened from the catalogue; its counts are hidden until the close", async () => {
  await studio.getByRole("button", { name: "Close voting" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Close voting" }).click();
  await ayla.page.getByText("Final result").waitFor();

  await studio.getByLabel("Question").fill("And after that?");
  await studio.getByRole("searchbox", { name: "Movies" }).fill("paper");
  const catalogue = studio.getByRole("list", { name: "Catalogue" });
  await eventually(() => catalogue.getByRole("button").count()).toBe(1);
  await catalogue.getByRole("button", { name: "Paper Dragons" }).click();
  await studio.getByRole("searchbox", { name: "Movies" }).fill("");
  await catalogue.getByRole("button", { name: "The Silent Cartographer" }).click();
  await studio.getByLabel("Hide counts").check();
  await studio.getByRole("button", { name: "Open the voting" }).click();

  for (const each of [ayla, bram]) {
    await each.page.getByRole("heading", { name: "And after that?" }).waitFor();
    await each.movie("The Silent Cartographer").click();
  }
  const counts = studio.getByRole("list", { name: "Counts" });
  await eventually(() => counts.getByRole("listitem").allTextContents()).toEqual([
    expect.stringMatching(/Paper Dragons.*0 votes/),
    expect.stringMatching(/The Silent Cartographer.*2 votes.*100/),
  ]);
  expect(await ayla.page.locator("#ballot .votes").allTextContents()).toEqual([
    "Counts after close",
    "Counts after close",
  ]);
  await studio.getByRole("button", { name: "Close voting" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Close voting" }).click();
  await eventually(() => ayla.counts()).toEqual([0, 2]);
  await ayla.page.getByText("★ Winner").waitFor();
});

test("who may not moderate is told so, and a ban for good is felt at once", async () => {
  const curious = await house.open(seat(demo, "otto").replace("/?", "/studio?"));
  await curious.getByRole("heading", { name: "This studio is not yours" }).waitFor();

  const yuki = await sit("yuki");
  await yuki.say("something unforgivable");
  const row = studio.locator("#log .message", { hasText: "something unforgivable" });
  await row.hover();
  await row.getByRole("button", { name: "Time out or ban Yuki" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Ban for good" }).click();
  await yuki.page.getByRole("heading", { name: "You cannot enter this session" }).waitFor();
  const ban = `/bans/${userOf(demo, "yuki").id}`;
  expect((await asStreamer(ban, { method: "DELETE" })).status).toBeLessThan(300);
});

async function sit(username: string): Promise<Viewer> {
  return new Viewer(await house.open(seat(demo, username))).isConnected();
}

/** As if its tab were hidden, or in front again. */
function setSight(page: Page, state: DocumentVisibilityState): Promise<void> {
  return page.evaluate(
    (state) => void Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state }),
    state,
  );
}

/** A call about the session, past the studio. */
function asStreamer(path: string, init: RequestInit): Promise<Response> {
  const headers = { authorization: `Bearer ${userOf(demo, "nora").token}`, "content-type": "application/json" };
  return fetch(`${demo.url}/v1/sessions/${demo.session}${path}`, { ...init, headers });
}
