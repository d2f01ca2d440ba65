/** Named timers: at most one runs per name, and one call cancels all. */

import type { World } from "./world.ts";

/** The timers of one owner. */
export class Timers<Name extends string> {
  readonly #world: Pick<World, "setTimer" | "clearTimer">;
  readonly #running = new Map<Name, unknown>();

  constructor(world: Pick<World, "setTimer" | "clearTimer">) {
    this.#world = world;
  }

  /** Runs `act` after `ms` milliseconds. Replaces an earlier timer with this name. */
  after(name: Name, ms: number, act: () => void): void {
    this.cancel(name);
    const fire = () => {
      this.#running.delete(name);
      act();
    };
    this.#running.set(name, this.#world.setTimer(fire, ms));
  }

  /** Cancels the timer if it runs. */
  cancel(name: Name): void {
    if (this.#running.has(name)) this.#world.clearTimer(this.#running.get(name));
    this.#running.delete(name);
  }

  /** Cancels all timers. */
  clear(): void {
    for (const name of [...this.#running.keys()]) this.cancel(name);
  }

  /** Returns whether the timer runs. */
  has(name: Name): boolean {
    return this.#running.has(name);
  }
}
