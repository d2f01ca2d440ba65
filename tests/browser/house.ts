// A browser with one window per user. Collects all errors of the windows.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import axe from "axe-core";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject } from "vitest";

import type { Demo } from "../../client/tests/gateway.ts";

/** The folder for screenshots of the pages. */
const PICTURES = process.env.USHER_PICTURES ?? fileURLToPath(new URL("../../target/pictures", import.meta.url));

/** Browser messages about lost connections. They are no errors in a test that stops the gateway. */
const LOST = /^(WebSocket connection to|Failed to load resource: net::ERR_)/;

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 740 };

/** Options for a window. */
export interface WindowOptions extends BrowserContextOptions {
  /** Whether the test will cut the connection. */
  readonly isCut?: boolean;
  /** Whether the network closes every WebSocket, as some company networks do. */
  readonly isBlocked?: boolean;
}

/** Opens a browser for the tests of one file. A test fails if one of its windows reports an error. */
export function openHouse() {
  let browser: Browser;
  const troubles: string[] = [];
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      // CI runs as root, and Chromium's sandbox does not start as root.
      args: ["--no-sandbox", "--force-color-profile=srgb"],
    });
  });
  afterAll(() => browser.close());
  afterEach(() => expect(troubles.splice(0)).toEqual([]));
  return {
    demo: inject("demo") as Demo,
    /** Opens a window that shares no cookies or cache with the others. */
    async open(url: string, { isCut = false, isBlocked = false, ...options }: WindowOptions = {}): Promise<Page> {
      const context = await browser.newContext({ viewport: DESKTOP, ...options });
      const page = await context.newPage();
      if (isBlocked) await page.routeWebSocket(/./, (socket) => socket.close());
      // The console also reports violations of the Content-Security-Policy.
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

/** Takes a screenshot of the page. */
export async function picture(page: Page, name: string): Promise<void> {
  await mkdir(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/${name}.png` });
}

/** Returns all accessibility violations that axe finds, without exceptions. */
export async function barriers(page: Page): Promise<string[]> {
  // `evaluate` uses the debugger, so the Content-Security-Policy does not block it.
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => (globalThis as unknown as { axe: typeof axe }).axe.run());
  return violations.flatMap(({ id, impact, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${impact} ${id}: ${html.slice(0, 160)} ${failureSummary}`),
  );
}

/** Polls `look` for up to 20 s, for use with a matcher: `await eventually(look).toBe(…)`. */
export function eventually<Value>(look: () => Promise<Value> | Value) {
  return expect.poll(look, { timeout: 20_000, interval: 50 });
}
