/** The TypeScript client of Usher. */

export { type Chat, MESSAGES_MAX, type Message, type PendingMessage } from "./chat.ts";
export type { ConnectionState, Transport } from "./connection_state.ts";
export type { Continuity } from "./continuity.ts";
/** Types of Usher's tables, for `createClient<Database>()` of supabase-js. */
export type { Database, Json, Tables, TablesInsert, TablesUpdate } from "./database.types.ts";
export {
  AbandonedError,
  type ClientCode,
  type ErrorCode,
  type RefusalCode,
  RefusedError,
  StoppedError,
  TokenError,
  UsherError,
} from "./errors.ts";
export type { Sent } from "./follower.ts";
export { type Origin, type SendOptions, Session, type SessionEvents } from "./session.ts";
export type { SessionState, SessionStatus } from "./state.ts";
export { type SupabaseLike, supabaseTokens } from "./supabase.ts";
export type { GetToken } from "./tokens.ts";
export { type ConnectOptions, connect, Usher } from "./usher.ts";
export { type StandingRow, standing, type Voting } from "./votings.ts";
export type {
  Author,
  Can,
  Count,
  EventOf,
  LogEvent,
  MessageRow,
  SessionInfo,
  VotingOption,
  VotingRow,
} from "./wire.ts";
export type { Fetch, SocketClass, SocketLike } from "./world.ts";
