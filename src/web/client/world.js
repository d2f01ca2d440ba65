// Made by `npm run pages` from client/src. Change it there.
/** The client's environment: sockets, HTTP, clock, timers, randomness, and signals of the network and the page. */
import { steadyClock } from "./clock.js";
import { StoppedError } from "./errors.js";
/** The longest timer. Browsers and Node run a longer one immediately. */
const TIMER_MS_MAX = 2 ** 31 - 1;
/** Returns the environment of the browser or of Node. */
export function realWorld(own = {}) {
    return {
        openSocket(url) {
            const Socket = own.WebSocket ?? globalThis.WebSocket;
            if (!Socket)
                throw new StoppedError("no_websocket", "no WebSocket here: pass one to connect(), such as the one of `ws`");
            return new Socket(url, ["usher.v1"]);
        },
        // Looks up `fetch` at each call, because a page may replace it. It must be called without a `this`.
        fetch: (url, init) => (own.fetch ?? globalThis.fetch)(url, init),
        now: steadyClock(),
        random: () => Math.random(),
        uuid,
        setTimer: (act, ms) => setTimeout(act, Math.min(ms, TIMER_MS_MAX)),
        clearTimer: (timer) => clearTimeout(timer),
        watch,
    };
}
function uuid() {
    // Despite the types, `randomUUID` is missing on pages without TLS and in React Native.
    const crypto = globalThis.crypto;
    if (crypto?.randomUUID)
        return crypto.randomUUID();
    return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
        const bits = Number(digit);
        return (bits ^ ((Math.random() * 16) >> (bits / 4))).toString(16);
    });
}
/**
 * The browser events and their signals. Timers of a hidden, frozen or sleeping page fire late, so the client checks its
 * connection when the page wakes up.
 */
const NEWS = [
    ["online", "online"],
    ["offline", "offline"],
    ["pageshow", "wake"],
    ["visibilitychange", "wake"],
    ["resume", "wake"],
];
function watch(on) {
    const targets = [globalThis, globalThis.document].filter((target) => typeof target?.addEventListener === "function");
    const added = targets.flatMap((target) => NEWS.map(([event, signal]) => {
        const listener = () => {
            if (signal !== "wake" || globalThis.document?.visibilityState !== "hidden")
                on(signal);
        };
        target.addEventListener(event, listener);
        return () => target.removeEventListener(event, listener);
    }));
    return () => {
        for (const remove of added)
            remove();
    };
}
