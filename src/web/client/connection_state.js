// Made by `npm run pages` from client/src. Change it there.
/** The state of the connection, as an app sees it. */
/** The state before the app follows a session. */
export const IDLE = {
    status: "idle",
    online: true,
    failures: 0,
    retryAt: null,
    error: null,
    transport: "websocket",
    server: null,
};
