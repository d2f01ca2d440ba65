// Made by `npm run pages` from client/src. Change it there.
/** Timers by name: one of each, and all of them end together. */
/** The timers of one owner. */
export class Timers {
    #world;
    #running = new Map();
    constructor(world) {
        this.#world = world;
    }
    /** Runs `act` after so many milliseconds, in the place of an earlier timer of that name. */
    after(name, ms, act) {
        this.cancel(name);
        const fire = () => {
            this.#running.delete(name);
            act();
        };
        this.#running.set(name, this.#world.setTimer(fire, ms));
    }
    /** Ends a timer, if it runs. */
    cancel(name) {
        if (this.#running.has(name))
            this.#world.clearTimer(this.#running.get(name));
        this.#running.delete(name);
    }
    /** Ends all of them. */
    clear() {
        for (const name of [...this.#running.keys()])
            this.cancel(name);
    }
    /** Whether the timer runs. */
    has(name) {
        return this.#running.has(name);
    }
}
