// Made by `npm run pages` from client/src. Change it there.
/** Named timers: at most one runs per name, and one call cancels all. */
/** The timers of one owner. */
export class Timers {
    #world;
    #running = new Map();
    constructor(world) {
        this.#world = world;
    }
    /** Runs `act` after `ms` milliseconds. Replaces an earlier timer with this name. */
    after(name, ms, act) {
        this.cancel(name);
        const fire = () => {
            this.#running.delete(name);
            act();
        };
        this.#running.set(name, this.#world.setTimer(fire, ms));
    }
    /** Cancels the timer if it runs. */
    cancel(name) {
        if (this.#running.has(name))
            this.#world.clearTimer(this.#running.get(name));
        this.#running.delete(name);
    }
    /** Cancels all timers. */
    clear() {
        for (const name of [...this.#running.keys()])
            this.cancel(name);
    }
    /** Returns whether the timer runs. */
    has(name) {
        return this.#running.has(name);
    }
}
