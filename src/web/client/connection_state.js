// Made by `npm run pages` from client/src. Change it there.
/** What an app sees of the connection. */
/** The state before anybody follows a session. */
export const IDLE = {
    status: "idle",
    online: true,
    failures: 0,
    retryAt: null,
    error: null,
    transport: "websocket",
    server: null,
};
