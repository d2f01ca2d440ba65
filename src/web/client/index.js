// Made by `npm run pages` from client/src. Change it there.
/** The TypeScript client of Usher. */
export { MESSAGES_MAX } from "./chat.js";
export { AbandonedError, RefusedError, StoppedError, TokenError, UsherError, } from "./errors.js";
export { Session } from "./session.js";
export { supabaseTokens } from "./supabase.js";
export { connect, Usher } from "./usher.js";
export { standing } from "./votings.js";
