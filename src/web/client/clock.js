// Made by `npm run pages` from client/src. Change it there.
/** A clock for timeouts and countdowns. A change of the device clock does not stop it. */
/** A difference that is too large to be drift between two readings: the wall clock was set, or the machine slept. */
const JUMP_MS = 1000;
/**
 * Returns a clock in milliseconds since 1970 that never runs backwards.
 *
 * It advances with the monotonic clock, so it ignores a device clock that is set back. It follows a wall clock that
 * jumps ahead, because `performance.now` stops in some browsers while the machine sleeps.
 */
export function steadyClock(wall = () => Date.now(), monotonic = () => performance.now()) {
    let difference = wall() - monotonic();
    let offset = difference;
    return () => {
        const time = monotonic();
        const jump = wall() - time - difference;
        if (Math.abs(jump) > JUMP_MS) {
            difference += jump;
            offset += Math.max(0, jump);
        }
        return Math.round(time + offset);
    };
}
