// The appearance and accessibility of the pages: screenshots, axe, keyboard, reduced motion.

import type { Page } from "playwright-core";
import { expect, test } from "vitest";

import { barriers, DESKTOP, eventually, openHouse, PHONE, picture } from "./house.ts";
import { seat, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;

/** Each size and each colour scheme at least once. Leaves out light on a phone, because axe is slow. */
const LOOKS = [
  { name: "desktop dark", viewport: DESKTOP, colorScheme: "dark" },
  { name: "desktop light", viewport: DESKTOP, colorScheme: "light" },
  { name: "phone dark", viewport: PHONE, colorScheme: "dark" },
] as const;

/** The pages, each with a check that it has loaded. */
const PAGES: Record<string, { readonly url: string; readonly ready: (page: Page) => Promise<unknown> }> = {
  viewer: { url: seat(demo, "ayla"), ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER") },
  guest: { url: seat(demo, null), ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER") },
  studio: {
    url: seat(demo, "nora").replace("/?", "/studio?"),
    ready: (page) => new Viewer(page).hears("SHE OPENED THE DRAWER"),
  },
  "studio of others": {
    url: seat(demo, "otto").replace("/?", "/studio?"),
    ready: (page) => page.getByRole("heading", { name: "You cannot use this studio" }).waitFor(),
  },
  overlay: {
    url: `${demo.url}/overlay?session=${demo.session}#token=${demo.overlay_token}`,
    ready: (page) => page.getByText("SHE OPENED THE DRAWER").waitFor(),
  },
  status: { url: `${demo.url}/status`, ready: (page) => page.getByText("Up to date").waitFor() },
  start: { url: `${demo.url}/`, ready: (page) => page.getByRole("button", { name: "Watch session" }).waitFor() },
  "unknown session": {
    url: `${demo.url}/?session=${demo.voting}`,
    ready: (page) => page.getByRole("heading", { name: "Session not found" }).waitFor(),
  },
};

for (const [name, { url, ready }] of Object.entries(PAGES)) {
  test(`axe finds no problem on the page "${name}", and it fits its window, in all sizes and schemes`, async () => {
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

test("a keyboard is enough to chat and vote on the viewer's page", async () => {
  const page = await house.open(seat(demo, "yuki"));
  const viewer = await new Viewer(page).isConnected();
  await viewer.hears("SHE OPENED THE DRAWER");
  // Skips to the chat and writes a message.
  await page.keyboard.press("Tab");
  expect(await focused(page)).toBe("Skip to the chat");
  await page.keyboard.press("Enter");
  expect(await focused(page)).toBe("Message");
  await page.keyboard.type("typed, never clicked");
  await page.keyboard.press("Enter");
  await viewer.hears("typed, never clicked");
  expect(await focused(page)).toBe("Message");
  // Goes back to the poll and votes.
  const paperDragons = /Paper Dragons/;
  for (let presses = 0; !paperDragons.test(await focused(page)); presses += 1) {
    expect(presses, "presses of Shift+Tab to the ballot").toBeLessThan(20);
    await page.keyboard.press("Shift+Tab");
    expect(await hasVisibleFocus(page), `the focus on ${await focused(page)} is visible`).toBe(true);
  }
  const before = await viewer.movie("Paper Dragons").getAttribute("aria-pressed");
  await page.keyboard.press("Space");
  await eventually(() => viewer.movie("Paper Dragons").getAttribute("aria-pressed")).not.toBe(before);
  await page.keyboard.press("Space");
  await eventually(() => viewer.movie("Paper Dragons").getAttribute("aria-pressed")).toBe(before);
});

test("in the studio, Tab reaches every control in page order, with a visible focus", async () => {
  const page = await house.open(seat(demo, "nora").replace("/?", "/studio?"));
  await new Viewer(page).hears("SHE OPENED THE DRAWER");
  const reached: string[] = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const name = await focused(page);
    if (await page.evaluate(() => document.activeElement === document.body)) break;
    reached.push(name);
    expect(reached.length, "presses of Tab").toBeLessThan(60);
    // The message box shows its focus ring around the field.
    if (name !== "Message") expect(await hasVisibleFocus(page), `the focus on ${name} is visible`).toBe(true);
  }
  const wanted = ["Watch", "Close poll", "Paper Dragons 2021", "Copy URL", "Banned users", "Message", "Send"];
  expect(reached.filter((name) => wanted.includes(name))).toEqual(wanted);
});

test("no page moves if the user prefers reduced motion", async () => {
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

/** Returns the accessible name of the focused element. */
function focused(page: Page): Promise<string> {
  return page.evaluate(() => {
    const element = document.activeElement;
    const labelled = element instanceof HTMLTextAreaElement ? element.labels?.[0]?.textContent : null;
    return (element?.getAttribute("aria-label") ?? labelled ?? element?.textContent ?? "").trim();
  });
}

/** Returns whether the focused element is in the window and has an outline. */
function hasVisibleFocus(page: Page): Promise<boolean> {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!element || element === document.body) return true;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    const { top, bottom } = element.getBoundingClientRect();
    return outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0 && bottom > 0 && top < innerHeight;
  });
}
