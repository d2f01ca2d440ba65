// What the pages look like and whether everybody can use them: pictures, axe, the keyboard, less motion.

import type { Page } from "playwright-core";
import { expect, test } from "vitest";

import { barriers, DESKTOP, eventually, openHouse, PHONE, picture } from "./house.ts";
import { seat, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;

/** Light on a phone is left out: axe takes its time, and each size and scheme is there. */
const LOOKS = [
  { name: "desktop dark", viewport: DESKTOP, colorScheme: "dark" },
  { name: "desktop light", viewport: DESKTOP, colorScheme: "light" },
  { name: "phone dark", viewport: PHONE, colorScheme: "dark" },
] as const;

/** The pages, each with what shows that it is there. */
const PAGES: Record<string, { readonly url: string; readonly ready: (page: Page) => Promise<unknown> }> = {
  viewer: { url: seat(demo, "ayla"), ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER") },
  guest: { url: seat(demo, null), ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER") },
  studio: {
    url: seat(demo, "nora").replace("/?", "/studio?"),
    ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER"),
  },
  "studio of others": {
    url: seat(demo, "otto").replace("/?", "/studio?"),
    ready: (page) => page.getByRole("heading", { name: "This studio is not yours" }).waitFor(),
  },
  overlay: {
    url: `${demo.url}/overlay?session=${demo.session}#token=${demo.overlay_token}`,
    ready: (page) => page.getByText("SHE OPENED THE DRAWER").waitFor(),
  },
  status: { url: `${demo.url}/status`, ready: (page) => page.getByText("Up to date").waitFor() },
  start: { url: `${demo.url}/`, ready: (page) => page.getByRole("button", { name: "Take a seat" }).waitFor() },
  "no such session": {
    url: `${demo.url}/?session=${demo.voting}`,
    ready: (page) => page.getByRole("heading", { name: "No such session" }).waitFor(),
  },
};

for (const [name, { url, ready }] of Object.entries(PAGES)) {
  test(`the ${name} page has no barrier that axe knows, and fits its window, in all sizes and schemes`, async () => {
    const page = await house.open(url, { reducedMotion: "reduce" });
    await ready(page);
    for (const { name: look, viewport, colorScheme } of LOOKS) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const where = `${name} ${look}`;
      await picture(page, where.replaceAll(" ", "-"));
      expect({ where, found: await barriers(page) }).toEqual({ where, found: [] });
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect({ where, over: Math.max(0, over) }).toEqual({ where, over: 0 });
    }
  });
}

test("the viewer's page is used by the keyboard alone", async () => {
  const page = await house.open(seat(demo, "yuki"));
  const viewer = await new Viewer(page).isConnected();
  await viewer.hears("SHE OPENED THE DRAWER");
  // Straight to the chat, and a message.
  await page.keyboard.press("Tab");
  expect(await focused(page)).toBe("Skip to the chat");
  await page.keyboard.press("Enter");
  expect(await focused(page)).toBe("Message");
  await page.keyboard.type("typed, never clicked");
  await page.keyboard.press("Enter");
  await viewer.hears("typed, never clicked");
  expect(await focused(page)).toBe("Message");
  // Back to the ballot, and a vote.
  const paperDragons = /Paper Dragons/;
  for (let presses = 0; !paperDragons.test(await focused(page)); presses += 1) {
    expect(presses, "presses of Shift+Tab to the ballot").toBeLessThan(20);
    await page.keyboard.press("Shift+Tab");
    expect(await hasVisibleFocus(page), `the focus on ${await focused(page)} can be seen`).toBe(true);
  }
  const before = await viewer.movie("Paper Dragons").getAttribute("aria-pressed");
  await page.keyboard.press("Space");
  await eventually(() => viewer.movie("Paper Dragons").getAttribute("aria-pressed")).not.toBe(before);
  await page.keyboard.press("Space");
  await eventually(() => viewer.movie("Paper Dragons").getAttribute("aria-pressed")).toBe(before);
});

test("in the studio Tab reaches every control, in the order of the page, and the focus can be seen", async () => {
  const page = await house.open(seat(demo, "nora").replace("/?", "/studio?"));
  await new Viewer(page).hears("SHE OPENED THE DRAWER");
  const reached: string[] = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const name = await focused(page);
    if (await page.evaluate(() => document.activeElement === document.body)) break;
    reached.push(name);
    expect(reached.length, "presses of Tab").toBeLessThan(60);
    // The ring of the box for messages is around its field.
    if (name !== "Message") expect(await hasVisibleFocus(page), `the focus on ${name} can be seen`).toBe(true);
  }
  const wanted = ["Watch", "Close voting", "Paper Dragons 2021", "Copy", "Kept out", "Message", "Send"];
  expect(reached.filter((name) => wanted.includes(name))).toEqual(wanted);
});

test("who asks for less motion gets none, on any page", async () => {
  for (const [name, { url, ready }] of Object.entries(PAGES)) {
    const page = await house.open(url, { reducedMotion: "reduce" });
    await ready(page);
    const moving = await page.evaluate(() =>
      [...document.querySelectorAll("*")].flatMap((element) => {
        const { animationName, animationDuration, animationIterationCount, transitionDuration } =
          getComputedStyle(element);
        const longest = (times: string) => Math.max(...times.split(",").map((time) => Number.parseFloat(time)));
        const runs = animationName !== "none" && longest(animationDuration) > 0.01;
        const endless = animationName !== "none" && animationIterationCount === "infinite";
        return runs || endless || longest(transitionDuration) > 0.01 ? [element.outerHTML.slice(0, 80)] : [];
      }),
    );
    expect({ name, moving }).toEqual({ name, moving: [] });
    await page.context().close();
  }
});

/** The name of what has the focus. */
function focused(page: Page): Promise<string> {
  return page.evaluate(() => {
    const element = document.activeElement;
    const labelled = element instanceof HTMLTextAreaElement ? element.labels?.[0]?.textContent : null;
    return (element?.getAttribute("aria-label") ?? labelled ?? element?.textContent ?? "").trim();
  });
}

/** Whether what has the focus lies in the window and has an outline. */
function hasVisibleFocus(page: Page): Promise<boolean> {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!element || element === document.body) return true;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    const { top, bottom } = element.getBoundingClientRect();
    return outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0 && bottom > 0 && top < innerHeight;
  });
}
