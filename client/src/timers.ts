/** Timers by name: one of each, and all of them end together. */

import type { World } from "./world.ts";

/** The timers of one owner. */
export class Timers<Name extends string> {
  readonly #world: Pick<World, "setTimer" | "clearTimer">;
  readonly #running = new Map<Name, unknown>();

  constructor(world: Pick<World, "setTimer" | "clearTimer">) {
    this.#world = world;
  }

  /** Runs `act` after so many milliseconds, in the place of an earlier timer of that name. */
  after(name: Name, ms: number, act: () => void): void {
    this.cancel(name);
    const fire = () => {
      this.#running.delete(name);
      act();
    };
    this.#running.set(name, this.#world.setTimer(fire, ms));
  }

  /** Ends a timer, if it runs. */
  cancel(name: Name): void {
    if (this.#running.has(name)) this.#world.clearTimer(this.#running.get(name));
    this.#running.delete(name);
  }

  /** Ends all of them. */
  clear(): void {
    for (const name of [...this.#running.keys()]) this.cancel(name);
  }

  /** Whether the timer runs. */
  has(name: Name): boolean {
    return this.#running.has(name);
  }
}
