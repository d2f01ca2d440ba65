/**
 * The words on the wire, as `usher.v1` has them.
 *
 * What mirrors a row or a frame keeps its names, so that what a component was written for with supabase-js fits.
 */

import type { Tables } from "./database.types.ts";

/** Who wrote a message. */
export interface Author {
  readonly username: string;
  readonly display_name: string | null;
  readonly avatar_path: string | null;
  readonly role: string;
}

/** A row of `chat_messages` as the log has it. A deleted message has no body. */
export type MessageRow = Omit<Tables<"chat_messages">, "body"> & { readonly body: string | null };

/** One choice on a ballot. */
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

/** A row of `voting_sessions` with its ballot, as the log has it. */
export type VotingRow = Omit<Tables<"voting_sessions">, "results"> & {
  readonly options: readonly VotingOption[];
  readonly results: { readonly total: number; readonly counts: readonly Count[] } | null;
};

/** One event of a session's log. A newer gateway may send types that are not listed: leave them be. */
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
  /** Its number in the log: consecutive, from 1. */
  readonly seq: number;
  readonly type: Type;
  readonly at: string;
  readonly data: Data;
}

/** What the viewer may do. */
export interface Can {
  readonly send: boolean;
  readonly vote: boolean;
  readonly moderate: boolean;
}

/** The session itself. */
export interface SessionInfo {
  readonly title: string;
  readonly status: string;
  readonly slow_mode_seconds: number;
  readonly chat_enabled: boolean;
  readonly visibility?: string;
  readonly movie_id?: string | null;
  readonly streamer_id?: string;
}

/** Absolute counts; `counts` is null while they are hidden from this viewer. */
export interface TallyFrame {
  readonly voting: string;
  readonly status: string;
  readonly version: number;
  readonly total: number;
  readonly counts: readonly Count[] | null;
  readonly closes_at: string | null;
}

/** A voting as a subscription begins with it. `mine` is absent where the gateway did not ask the database. */
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

/** `subscribed`: where this client stands. */
export interface SubscribedFrame extends Start {
  readonly type: "subscribed";
  readonly id?: number;
  readonly recovered: boolean;
  readonly viewers?: number;
}

/** `reset`: continuity was lost while subscribed. */
export interface ResetFrame extends Start {
  readonly type: "reset";
}

/** `error`: something was refused. */
export interface ErrorFrame {
  readonly type: "error";
  readonly id?: number;
  readonly code: string;
  readonly message?: string;
  readonly retry_after_ms?: number;
  /** What about a token is wrong. A newer gateway may know more reasons. */
  readonly reason?: TokenFlaw | (string & {});
}

/** What can be wrong with an access token. */
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

/** `ack`: a message or a vote is committed. */
export interface AckFrame {
  readonly type: "ack";
  readonly id?: number;
  readonly seq?: number;
  readonly message?: string;
}

/** `mine`: the viewer's own vote, which may have been cast on another socket. */
export interface MineFrame {
  readonly type: "mine";
  readonly session: string;
  readonly voting: string;
  readonly option?: string | null;
  readonly movie: string | null;
}

/** What the gateway says about one session. */
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

/** What the gateway says. */
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

/** Where a client stood. */
export interface ResumePoint {
  readonly seq: number;
  readonly epoch?: string;
  readonly token?: string;
}

/** What a client says. */
export type ClientFrame =
  | { readonly type: "auth"; readonly token: string }
  | { readonly type: "subscribe"; readonly session: string; readonly history: number }
  | { readonly type: "subscribe"; readonly session: string; readonly resume: ResumePoint }
  | { readonly type: "unsubscribe"; readonly session: string }
  | {
      readonly type: "send";
      readonly session: string;
      /** 1 to 2,000 characters. One of them shows: the gateway refuses white space and invisible characters alone. */
      readonly body: string;
      readonly nonce: string;
      readonly reply_to?: string;
    }
  | { readonly type: "vote"; readonly voting: string; readonly movie: string | null }
  | { readonly type: "ping" };

/** Reads one text frame; null for what is not one. The shape behind `type` is the gateway's promise. */
export function parseFrame(text: unknown): ServerFrame | null {
  if (typeof text !== "string") return null;
  try {
    const frame: unknown = JSON.parse(text);
    return typeof frame === "object" && frame !== null && "type" in frame ? (frame as ServerFrame) : null;
  } catch {
    return null;
  }
}

/** Whether a text has more bytes than that. */
export function isLonger(text: string, bytes: number): boolean {
  // A UTF-16 unit has at most three bytes, so that most texts need not be encoded.
  return text.length * 3 > bytes && new TextEncoder().encode(text).length > bytes;
}
