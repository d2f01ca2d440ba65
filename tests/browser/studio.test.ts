// The streamer's dashboard and its effects on two viewers.

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

// Resets the chat settings, so that a failed test does not affect the next one.
afterEach(async () => {
  const body = JSON.stringify({ slow_mode_seconds: 0, chat_enabled: true });
  expect((await asStreamer("", { method: "PATCH", body })).status).toBeLessThan(300);
});

test("a deleted message disappears for all viewers", async () => {
  await ayla.say("please delete this");
  await bram.hears("please delete this");
  const row = studio.locator("#log .message", { hasText: "please delete this" });
  await row.hover();
  await row.getByRole("button", { name: "Delete the message of Ayla Demir" }).click();
  for (const each of [ayla, bram]) {
    await eventually(() => each.said()).not.toContain("please delete this");
    expect((await each.said()).at(-1)).toBe("message deleted");
  }
});

test("the plots include the time while the studio is hidden", async () => {
  const votes = studio.getByRole("figure", { name: /^Votes per minute/ });
  const samples = async () => (await votes.locator(".plot-line").getAttribute("d"))?.split("L").length ?? 0;
  // A changed vote does not add to the total, so this test withdraws a vote and votes again.
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

test("the streamer sets slow mode, and turns the chat off and on", async () => {
  // Slow mode counts from the viewer's last message, even one from before. So this test sends a message first.
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

test("a timed-out viewer can read, and can write after the time-out ends", async () => {
  await bram.say("too loud");
  const row = studio.locator("#log .message", { hasText: "too loud" });
  await row.hover();
  await row.getByRole("button", { name: "Time out or ban Bram de Wit" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "10 minutes" }).click();
  await bram.page.getByText(/You are timed out for another/).waitFor();
  await ayla.say("can you hear me, bram?");
  await bram.hears("can you hear me, bram?");
  await studio.getByRole("button", { name: "Banned users" }).click();
  await studio.getByRole("button", { name: "End time-out of Bram de Wit" }).click();
  await bram.box.waitFor();
  await bram.say("quieter now");
  await ayla.hears("quieter now");
});

test("the streamer closes a poll and opens another one with hidden counts", async () => {
  await studio.getByRole("button", { name: "Close poll" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Close poll" }).click();
  await ayla.page.getByText("Final result").waitFor();

  await studio.getByLabel("Question").fill("And after that?");
  await studio.getByRole("searchbox", { name: "Movies" }).fill("paper");
  const catalogue = studio.getByRole("list", { name: "Catalogue" });
  await eventually(() => catalogue.getByRole("button").count()).toBe(1);
  await catalogue.getByRole("button", { name: "Paper Dragons" }).click();
  await studio.getByRole("searchbox", { name: "Movies" }).fill("");
  await catalogue.getByRole("button", { name: "The Silent Cartographer" }).click();
  await studio.getByLabel("Hide counts").check();
  await studio.getByRole("button", { name: "Open poll" }).click();

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
    "Hidden until it closes",
    "Hidden until it closes",
  ]);
  await studio.getByRole("button", { name: "Close poll" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Close poll" }).click();
  await eventually(() => ayla.counts()).toEqual([0, 2]);
  await ayla.page.getByText("★ Winner").waitFor();
});

test("other users cannot use the studio, and a permanent ban takes effect immediately", async () => {
  const curious = await house.open(seat(demo, "otto").replace("/?", "/studio?"));
  await curious.getByRole("heading", { name: "You cannot use this studio" }).waitFor();

  const yuki = await sit("yuki");
  await yuki.say("something unforgivable");
  const row = studio.locator("#log .message", { hasText: "something unforgivable" });
  await row.hover();
  await row.getByRole("button", { name: "Time out or ban Yuki" }).click();
  await studio.getByRole("dialog").getByRole("button", { name: "Ban permanently" }).click();
  await yuki.page.getByRole("heading", { name: "You are banned from this session" }).waitFor();
  const ban = `/bans/${userOf(demo, "yuki").id}`;
  expect((await asStreamer(ban, { method: "DELETE" })).status).toBeLessThan(300);
});

async function sit(username: string): Promise<Viewer> {
  return new Viewer(await house.open(seat(demo, username))).isConnected();
}

/** Makes the page believe that its tab is hidden or visible. */
function setSight(page: Page, state: DocumentVisibilityState): Promise<void> {
  return page.evaluate(
    (state) => void Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state }),
    state,
  );
}

/** Calls the gateway's HTTP API for the session as the streamer. */
function asStreamer(path: string, init: RequestInit): Promise<Response> {
  const headers = { authorization: `Bearer ${userOf(demo, "nora").token}`, "content-type": "application/json" };
  return fetch(`${demo.url}/v1/sessions/${demo.session}${path}`, { ...init, headers });
}
