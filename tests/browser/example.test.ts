// The example app, started with its one command.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { barriers, eventually, openHouse, PHONE, picture } from "./house.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const USHER_BIN = process.env.USHER_BIN ?? resolve(root, process.env.CARGO_TARGET_DIR ?? "target", "debug/usher");

const house = openHouse();
let app: ChildProcess;
let url: string;

beforeAll(async () => {
  app = spawn("node", [`${root}client/example/start.mjs`], {
    // In CI, Vite would add colour codes to the printed address.
    env: { ...process.env, USHER_BIN, PORT: "0", NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (app.stdout === null) throw new Error("no output");
  for await (const line of createInterface({ input: app.stdout })) {
    const [address] = /http:\/\/\S+/.exec(line) ?? [];
    if (address === undefined) continue;
    url = address;
    break;
  }
});
afterAll(async () => {
  app.kill("SIGTERM");
  await once(app, "exit");
});

test("two users sign in, chat and vote, and see each other's messages and votes", async () => {
  const [ayla, bram] = await Promise.all([signIn("ayla"), signIn("bram")]);
  await say(ayla, "hello from the example");
  await bram.getByText("hello from the example").waitFor();
  await say(bram, "and hello back");
  await ayla.getByText("and hello back").waitFor();
  // The log event has replaced the pending message.
  await eventually(() => ayla.getByText("hello from the example").count()).toBe(1);
  await eventually(() => ayla.locator("[aria-busy=true]").count()).toBe(0);

  const neon = (page: Page) => page.getByRole("button", { name: /Neon Orchard/ });
  const before = Number(await neon(bram).locator(".votes").textContent());
  const isMine = (await neon(ayla).getAttribute("aria-pressed")) === "true";
  expect(isMine).toBe(false);
  await neon(ayla).click();
  await eventually(async () => Number(await neon(bram).locator(".votes").textContent())).toBe(before + 1);
  const share = await neon(bram).evaluate((row) => {
    const bar = row.querySelector(".bar")?.getBoundingClientRect().width ?? 0;
    return bar / row.getBoundingClientRect().width;
  });
  expect(share).toBeGreaterThan(0.2);
  await ayla.getByText(/^\d+ watching$/).waitFor();

  // supabase-js keeps the sign-in across a reload.
  const sockets: string[] = [];
  ayla.on("websocket", (socket) => sockets.push(new URL(socket.url()).pathname));
  await ayla.reload();
  await ayla.getByText("and hello back").waitFor();
  await say(ayla, "still ayla");
  await bram.getByText("still ayla").waitFor();
  // One socket, although supabase-js reports the sign-in during the connect. The other sockets belong to Vite.
  expect(sockets.filter((path) => path === "/v1/socket")).toHaveLength(1);
  await ayla.getByRole("button", { name: "Sign out" }).click();
  await ayla.getByText("You are watching as a guest").waitFor();
  await eventually(() => ayla.getByRole("textbox", { name: "Message" }).isDisabled()).toBe(true);
});

test("the app shows that it is offline, and sends offline messages after it reconnects", async () => {
  const [lina, otto] = await Promise.all([signIn("lina", true), signIn("otto")]);
  await lina.context().setOffline(true);
  await lina.getByText("Offline").waitFor();
  await say(lina, "written while offline");
  expect(await lina.getByText("written while offline").count()).toBe(1);
  await lina.context().setOffline(false);
  await otto.getByText("written while offline").waitFor();
  await lina.getByText("Connected").waitFor();
  await eventually(() => lina.getByText("written while offline").count()).toBe(1);
});

test("axe finds no problem, and the app fits a phone, in both colour schemes", async () => {
  const page = await signIn("yuki");
  for (const viewport of [{ width: 1280, height: 800 }, PHONE])
    for (const colorScheme of ["dark", "light"] as const) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const where = `example ${viewport === PHONE ? "phone" : "desktop"} ${colorScheme}`;
      await picture(page, where.replaceAll(" ", "-"));
      expect({ where, found: await barriers(page) }).toEqual({ where, found: [] });
      expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    }
});

async function signIn(username: string, isCut = false): Promise<Page> {
  const page = await house.open(url, { isCut });
  await page.getByRole("button", { name: username }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  await eventually(() => page.getByRole("textbox", { name: "Message" }).isEnabled()).toBe(true);
  return page;
}

async function say(page: Page, text: string): Promise<void> {
  const box = page.getByRole("textbox", { name: "Message" });
  await eventually(() => box.isEnabled()).toBe(true);
  await box.fill(text);
  await box.press("Enter");
}
