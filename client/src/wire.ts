/**
 * Types of the `usher.v1` frames.
 *
 * Rows and frames keep the names of their columns and keys, so components written for supabase-js work unchanged.
 */

import type { Tables } from "./database.types.ts";

/** The author of a message. */
export interface Author {
  readonly username: string;
  readonly display_name: string | null;
  readonly avatar_path: string | null;
  readonly role: string;
}

/** A row of `chat_messages`, as the log contains it. A deleted message has no body. */
export type MessageRow = Omit<Tables<"chat_messages">, "body"> & { readonly body: string | null };

/** One option of a poll. */
export interface VotingOption {
  readonly movie: string;
  readonly title: string;
  readonly poster: string | null;
}

/** The votes of one movie. */
export interface Count {
  readonly movie: string;
  readonly votes: number;
}

/** A row of `voting_sessions` with its options, as the log contains it. */
export type VotingRow = Omit<Tables<"voting_sessions">, "results"> & {
  readonly options: readonly VotingOption[];
  readonly results: { readonly total: number; readonly counts: readonly Count[] } | null;
};

/** One event of a session's log. A newer gateway may send types that are not listed here: ignore them. */
export type LogEvent =
  | EventOf<"chat.created", MessageRow & { readonly author: Author | null }>
  | EventOf<"chat.updated", MessageRow>
  | EventOf<"chat.deleted", Pick<MessageRow, "id" | "session_id" | "deleted_at" | "deleted_by">>
  | EventOf<"voting.opened" | "voting.updated" | "voting.closed", VotingRow>
  | EventOf<"voting.deleted", Pick<VotingRow, "id">>
  | EventOf<"session.updated", Partial<Tables<"movie_sessions">>>
  | EventOf<"member.banned" | "member.unbanned", Partial<Tables<"session_bans">> & { readonly user_id: string }>;

/** An event of one type. */
export interface EventOf<Type extends string, Data> {
  /** The event number in the log: consecutive, from 1. */
  readonly seq: number;
  readonly type: Type;
  readonly at: string;
  readonly data: Data;
}

/** The viewer's permissions. */
export interface Can {
  readonly send: boolean;
  readonly vote: boolean;
  readonly moderate: boolean;
}

/** Properties of the session. */
export interface SessionInfo {
  readonly title: string;
  readonly status: string;
  readonly slow_mode_seconds: number;
  readonly chat_enabled: boolean;
  readonly visibility?: string;
  readonly movie_id?: string | null;
  readonly streamer_id?: string;
}

/** The counts of a poll, always absolute. `counts` is null while they are hidden from this viewer. */
export interface TallyFrame {
  readonly voting: string;
  readonly status: string;
  readonly version: number;
  readonly total: number;
  readonly counts: readonly Count[] | null;
  readonly closes_at: string | null;
}

/** A poll at the start of a subscription. `mine` is absent if the gateway has not queried the database. */
export interface VotingFrame extends TallyFrame {
  readonly question: string;
  readonly options: readonly VotingOption[];
  readonly results_visibility?: string;
  readonly allow_change?: boolean;
  readonly mine?: string | null;
}

interface Start {
  readonly session: string;
  readonly epoch: string;
  readonly seq: number;
  readonly head?: number;
  readonly reason: string | null;
  readonly resume_token?: string;
  readonly can?: Can;
  readonly info?: SessionInfo;
  readonly votings?: readonly VotingFrame[];
}

/** `subscribed`: the answer to `subscribe`, with the client's position. */
export interface SubscribedFrame extends Start {
  readonly type: "subscribed";
  readonly id?: number;
  readonly recovered: boolean;
  readonly viewers?: number;
}

/** `reset`: the gateway starts an open subscription over. */
export interface ResetFrame extends Start {
  readonly type: "reset";
}

/** `error`: the gateway refuses a request. */
export interface ErrorFrame {
  readonly type: "error";
  readonly id?: number;
  readonly code: string;
  readonly message?: string;
  readonly retry_after_ms?: number;
  /** The flaw of a refused token. A newer gateway may send other reasons. */
  readonly reason?: TokenFlaw | (string & {});
}

/** The flaws of an access token. */
export type TokenFlaw =
  | "algorithm"
  | "claim"
  | "expired"
  | "issuer"
  | "malformed"
  | "missing"
  | "not_yet_valid"
  | "role"
  | "secret_key"
  | "signature"
  | "too_large"
  | "unknown_key";

/** `ack`: the database has committed a message or a vote. */
export interface AckFrame {
  readonly type: "ack";
  readonly id?: number;
  readonly seq?: number;
  readonly message?: string;
}

/** `mine`: the viewer's own vote, possibly from another socket. */
export interface MineFrame {
  readonly type: "mine";
  readonly session: string;
  readonly voting: string;
  readonly option?: string | null;
  readonly movie: string | null;
}

/** A frame from the gateway about one session. */
export type SessionFrame =
  | SubscribedFrame
  | ResetFrame
  | { readonly type: "events"; readonly session: string; readonly events: readonly LogEvent[] }
  | ({ readonly type: "tally"; readonly session: string } & TallyFrame)
  | { readonly type: "viewers"; readonly session: string; readonly count: number }
  | { readonly type: "resume_token"; readonly session: string; readonly token: string }
  | { readonly type: "access"; readonly session: string; readonly can: Can }
  | MineFrame
  | { readonly type: "unsubscribed"; readonly session: string; readonly reason?: string; readonly id?: number };

/** A frame from the gateway. */
export type ServerFrame =
  | SessionFrame
  | ErrorFrame
  | AckFrame
  | {
      readonly type: "welcome";
      readonly server?: string;
      readonly heartbeat_ms?: number;
      readonly max_frame_bytes?: number;
    }
  | { readonly type: "authenticated"; readonly id?: number; readonly sub: string | null; readonly role: string }
  | { readonly type: "token_expiring" }
  | { readonly type: "reconnect"; readonly after_ms?: number }
  | { readonly type: "pong" };

/** The position that a client resumes from. */
export interface ResumePoint {
  readonly seq: number;
  readonly epoch?: string;
  readonly token?: string;
}

/** A frame from the client. */
export type ClientFrame =
  | { readonly type: "auth"; readonly token: string }
  | { readonly type: "subscribe"; readonly session: string; readonly history: number }
  | { readonly type: "subscribe"; readonly session: string; readonly resume: ResumePoint }
  | { readonly type: "unsubscribe"; readonly session: string }
  | {
      readonly type: "send";
      readonly session: string;
      /** 1 to 2,000 characters, at least one of them visible. */
      readonly body: string;
      readonly nonce: string;
      readonly reply_to?: string;
    }
  | { readonly type: "vote"; readonly voting: string; readonly movie: string | null }
  | { readonly type: "ping" };

/** Parses one text frame. Returns null for anything else. Checks only that `type` exists and trusts the gateway. */
export function parseFrame(text: unknown): ServerFrame | null {
  if (typeof text !== "string") return null;
  try {
    const frame: unknown = JSON.parse(text);
    return typeof frame === "object" && frame !== null && "type" in frame ? (frame as ServerFrame) : null;
  } catch {
    return null;
  }
}

/** Returns whether a text has more than `bytes` bytes in UTF-8. */
export function isLonger(text: string, bytes: number): boolean {
  // A UTF-16 unit takes at most three bytes, so most texts need no encoding.
  return text.length * 3 > bytes && new TextEncoder().encode(text).length > bytes;
}
