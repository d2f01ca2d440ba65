// A browser with a window for each person, and everything that goes wrong in them.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import axe from "axe-core";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject } from "vitest";

import type { Demo } from "../../client/tests/gateway.ts";

/** Where pictures of the pages go, for people to look at. */
const PICTURES = process.env.USHER_PICTURES ?? fileURLToPath(new URL("../../target/pictures", import.meta.url));

/** What a browser says of a connection that broke: no fault of a page whose gateway was taken away. */
const LOST = /^(WebSocket connection to|Failed to load resource: net::ERR_)/;

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 740 };

/** How a window is opened. */
export interface WindowOptions extends BrowserContextOptions {
  /** Whether the connection will be taken away. */
  readonly isCut?: boolean;
  /** Whether something on the way ends every WebSocket, as some company networks do. */
  readonly isBlocked?: boolean;
}

/** Opens a browser for the tests of a file. After each of them none of its windows may have complained. */
export function openHouse() {
  let browser: Browser;
  const troubles: string[] = [];
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      // Chromium's own sandbox does not start as root, as which CI runs.
      args: ["--no-sandbox", "--force-color-profile=srgb"],
    });
  });
  afterAll(() => browser.close());
  afterEach(() => expect(troubles.splice(0)).toEqual([]));
  return {
    demo: inject("demo") as Demo,
    /** A window of somebody's own: no cookie or cache is shared. */
    async open(url: string, { isCut = false, isBlocked = false, ...options }: WindowOptions = {}): Promise<Page> {
      const context = await browser.newContext({ viewport: DESKTOP, ...options });
      const page = await context.newPage();
      if (isBlocked) await page.routeWebSocket(/./, (socket) => socket.close());
      // Violations of the Content-Security-Policy are among them.
      page.on("console", (said) => {
        if (said.type() === "error" && !(isCut && LOST.test(said.text()))) troubles.push(said.text());
      });
      page.on("pageerror", (error) => troubles.push(String(error)));
      page.on("dialog", (dialog) => troubles.push(`a dialog: ${dialog.message()}`));
      await page.goto(url);
      return page;
    },
  };
}

/** Takes a picture of what is shown. */
export async function picture(page: Page, name: string): Promise<void> {
  await mkdir(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/${name}.png` });
}

/** What axe finds, as `rule: element`. Nothing is let pass. */
export async function barriers(page: Page): Promise<string[]> {
  // Evaluated by the debugger, which no Content-Security-Policy stops.
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => (globalThis as unknown as { axe: typeof axe }).axe.run());
  return violations.flatMap(({ id, impact, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${impact} ${id}: ${html.slice(0, 160)} ${failureSummary}`),
  );
}

/** Waits until it holds; the message is what was there instead. */
export function eventually<Value>(look: () => Promise<Value> | Value) {
  return expect.poll(look, { timeout: 20_000, interval: 50 });
}
