// The viewer's page as a person uses it: by what is written on it.

import type { Locator, Page } from "playwright-core";

import type { Demo } from "../../client/tests/gateway.ts";
import { eventually } from "./house.ts";

/** The address of the demo's session for one of its people, or for a guest. */
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

  /** Waits until the page says so. */
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

  /** The texts of the messages, oldest first. */
  said(): Promise<string[]> {
    return this.page.locator("#log .message .text").evaluateAll((texts) => texts.map((text) => text.textContent ?? ""));
  }

  /** Waits until somebody's message is shown. */
  async hears(text: string): Promise<void> {
    await eventually(() => this.said()).toContain(text);
  }

  /** A movie on the ballot. */
  movie(title: string): Locator {
    return this.page.getByRole("button", { name: title });
  }

  /** The counts on the ballot, in its order. */
  async counts(): Promise<number[]> {
    const texts = await this.page.locator("#ballot .votes").allTextContents();
    return texts.map((text) => Number.parseInt(text.replace(/\D/g, ""), 10));
  }

  /** How long the bars are drawn, each as a part of its track. */
  bars(): Promise<number[]> {
    return this.page.locator("#ballot .fill").evaluateAll((fills) =>
      fills.map((fill) => {
        const track = fill.parentElement?.getBoundingClientRect().width ?? 1;
        return fill.getBoundingClientRect().width / track;
      }),
    );
  }
}
