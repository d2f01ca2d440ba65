// Helpers to use the viewer's page by its visible texts.

import type { Locator, Page } from "playwright-core";

import type { Demo } from "../../client/tests/gateway.ts";
import { eventually } from "./house.ts";

/** Returns the address of the demo's session for a demo user, or for a guest. */
export function seat(demo: Demo, username: string | null, url: string = demo.url): string {
  const hash = username === null ? "" : `#token=${userOf(demo, username).token}`;
  return `${url}/?session=${demo.session}${hash}`;
}

export function userOf(demo: Demo, username: string) {
  const user = demo.users.find((user) => user.username === username);
  if (!user) throw new Error(`the demo has no ${username}`);
  return user;
}

export class Viewer {
  readonly page: Page;

  constructor(page: Page) {
    this.page = page;
  }

  /** Waits until the page shows "Connected". */
  async isConnected(): Promise<this> {
    await this.page.getByText("Connected", { exact: true }).waitFor();
    return this;
  }

  get box(): Locator {
    return this.page.getByRole("textbox", { name: "Message" });
  }

  async say(text: string): Promise<void> {
    await this.box.fill(text);
    await this.box.press("Enter");
  }

  /** Returns the texts of the messages, oldest first. */
  said(): Promise<string[]> {
    return this.page.locator("#log .message .text").evaluateAll((texts) => texts.map((text) => text.textContent ?? ""));
  }

  /** Waits until the page shows a message with this text. */
  async hears(text: string): Promise<void> {
    await eventually(() => this.said()).toContain(text);
  }

  /** Returns the button of a movie in the poll. */
  movie(title: string): Locator {
    return this.page.getByRole("button", { name: title });
  }

  /** Returns the vote counts in ballot order. */
  async counts(): Promise<number[]> {
    const texts = await this.page.locator("#ballot .votes").allTextContents();
    return texts.map((text) => Number.parseInt(text.replace(/\D/g, ""), 10));
  }

  /** Returns the lengths of the bars, each as a share of its track. */
  bars(): Promise<number[]> {
    return this.page.locator("#ballot .fill").evaluateAll((fills) =>
      fills.map((fill) => {
        const track = fill.parentElement?.getBoundingClientRect().width ?? 1;
        return fill.getBoundingClientRect().width / track;
      }),
    );
  }
}
