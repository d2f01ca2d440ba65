/** React hooks for Usher. */

export { type QueryClientLike, type QueryKey, usherKeys } from "./cache.ts";
export { type UseChat, useChat } from "./chat.ts";
export {
  type SessionId,
  type Tally,
  type UseConnection,
  type UseSession,
  type UseVote,
  useConnection,
  useSession,
  useTally,
  useViewers,
  useVote,
} from "./hooks.ts";
export { UsherProvider, type UsherProviderProps, useUsher } from "./provider.ts";
