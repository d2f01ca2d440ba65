// The viewer's page: chat, votes, and hostile text.

import { expect, test } from "vitest";

import { openDatabase } from "./database.ts";
import { eventually, openHouse, picture } from "./house.ts";
import { seat, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;
const database = openDatabase(demo);
const seats = new Map<string, Viewer>();

test("two viewers and the streamer chat, and each sees every message once and in order", async () => {
  const [ayla, bram, nora] = await Promise.all([sit("ayla"), sit("bram"), sit("nora")]);
  await ayla.say("hello from ayla");
  await bram.hears("hello from ayla");
  await bram.say("hello from bram");
  await nora.hears("hello from bram");
  await nora.say("hello from the streamer");
  const conversation = ["hello from ayla", "hello from bram", "hello from the streamer"];
  for (const each of [ayla, bram, nora]) {
    await each.hears("hello from the streamer");
    expect((await each.said()).slice(-3)).toEqual(conversation);
    await eventually(() => each.page.locator("#pending .message").count()).toBe(0);
  }
  expect(await ayla.page.locator("#log .message.mine .text").allTextContents()).toContain("hello from ayla");
});

test("a viewer replies with the keyboard, and the reply quotes its message", async () => {
  const [ayla, bram] = await Promise.all([sit("ayla"), sit("bram")]);
  await ayla.say("who has seen it before?");
  await bram.hears("who has seen it before?");
  await bram.page.getByRole("region", { name: /^Messages/ }).focus();
  await bram.page.keyboard.press("End");
  await bram.page.keyboard.press("Enter");
  await bram.page.keyboard.type("not me");
  await bram.page.keyboard.press("Enter");
  await ayla.hears("not me");
  const row = ayla.page.locator("#log .message", { hasText: "not me" });
  expect(await row.locator(".quote").textContent()).toContain("who has seen it before?");
});

test("all windows show a vote, its change and its withdrawal", async () => {
  const [lina, otto, nora] = await Promise.all([sit("lina"), sit("otto"), sit("nora")]);
  const everywhere = async (counts: number[]) => {
    for (const each of [lina, otto, nora]) {
      await eventually(() => each.counts()).toEqual(counts);
      const total = counts.reduce((sum, votes) => sum + votes, 0);
      await eventually(() => each.bars()).toEqual(counts.map((votes) => expect.closeTo(votes / total, 2)));
    }
  };
  await everywhere([0, 1, 0, 2]);
  await lina.movie("Neon Orchard").click();
  await otto.movie("Neon Orchard").click();
  await everywhere([0, 3, 0, 2]);
  expect(await lina.movie("Neon Orchard").getAttribute("aria-pressed")).toBe("true");
  await otto.movie("The Lighthouse Keeper").click();
  await everywhere([1, 2, 0, 2]);
  await lina.page.getByRole("button", { name: "Withdraw my vote" }).click();
  await otto.page.getByRole("button", { name: "Withdraw my vote" }).click();
  await everywhere([0, 1, 0, 2]);
});

test("a guest can watch, and sees why they cannot write", async () => {
  const guest = new Viewer(await house.open(seat(demo, null)));
  await guest.isConnected();
  await eventually(() => guest.said()).not.toHaveLength(0);
  expect(await guest.box.isVisible()).toBe(false);
  expect(await guest.page.locator("#bar-reason").textContent()).toMatch(/sign/i);
});

test("the chat shows markup as text, and never runs it", async () => {
  const [ayla, bram] = await Promise.all([sit("ayla"), sit("bram")]);
  const markup = [
    `<img src=x onerror="document.title='run'">`,
    `</p></div><script>document.title='run'</script>`,
    `<a href="javascript:document.title='run'">click</a>`,
    "&lt;b&gt;&amp;amp; %3Cscript%3E \\u003cscript\\u003e",
    `{{constructor.constructor("document.title='run'")()}} \${document.title='run'}`,
  ];
  const before = await bram.page.locator("#log :is(img, script, a, b, svg, iframe)").count();
  for (const text of markup) {
    await ayla.say(text);
    await bram.hears(text);
  }
  expect(await bram.page.locator("#log :is(img, script, a, b, svg, iframe)").count()).toBe(before);
  expect(await bram.page.title()).not.toContain("run");
});

test("direction overrides, stacked accents and long words stay inside their message", async () => {
  const [ayla, bram] = await Promise.all([sit("ayla"), sit("bram")]);
  const zalgo = `Z${"\u0335\u0322\u0321\u0300\u0301\u0302\u030d\u030e".repeat(12)}algo`;
  const hostile = [
    "\u202Egnp.exe\u202C \u2067drow\u2069 \u202E never closed",
    zalgo,
    "W".repeat(2000),
    "🎬".repeat(2000),
  ];
  for (const text of hostile) {
    await ayla.say(text);
    await bram.hears(text);
    await ayla.say("and on it goes");
  }
  await picture(bram.page, "hostile-text");
  const widths = bram.page
    .locator("#log .message")
    .evaluateAll((rows) => rows.map((row) => row.scrollWidth - row.clientWidth));
  expect(Math.max(...(await widths))).toBe(0);
  // Each message is a paragraph with its own direction and paint containment, so it cannot affect the others.
  const styles = await bram.page.locator("#log .message").evaluateAll((rows) =>
    rows.map((row) => ({
      dir: row.querySelector(".text")?.getAttribute("dir"),
      contain: getComputedStyle(row).contain,
    })),
  );
  for (const style of styles) expect(style).toEqual({ dir: "auto", contain: "content" });
});

test("a viewer who scrolled up keeps the place while 2,400 messages arrive, and the page counts them", async () => {
  const reader = new Viewer(await house.open(seat(demo, null)));
  await reader.isConnected();
  await database.sayMany("sol", "before", 80);
  await reader.hears("before 80");
  const log = reader.page.locator("#log-scroll");
  await log.hover();
  await reader.page.mouse.wheel(0, -900);
  const pill = reader.page.locator("#new-pill");
  await pill.waitFor();
  const place = () =>
    log.evaluate((scroll) => {
      const { top } = scroll.getBoundingClientRect();
      const rows = [...scroll.querySelectorAll("#log .message")];
      const row = rows.find((row) => row.getBoundingClientRect().bottom > top);
      return [row?.querySelector(".text")?.textContent, Math.round((row?.getBoundingClientRect().top ?? 0) - top)];
    });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const before = await place();
  expect(before[0]).toMatch(/^before \d+$/);
  for (let round = 1; round <= 12; round += 1) await database.sayMany("sol", `round ${round}:`, 200);
  await eventually(() => pill.textContent()).toContain("2,400 new messages");
  expect(await place()).toEqual(before);
  await pill.click();
  await reader.hears("round 12: 200");
  expect((await reader.said()).at(-1)).toBe("round 12: 200");
});

/** Returns a user's window. It stays open for the next test. */
async function sit(username: string): Promise<Viewer> {
  let seated = seats.get(username);
  if (!seated) seats.set(username, (seated = new Viewer(await house.open(seat(demo, username)))));
  return seated.isConnected();
}
