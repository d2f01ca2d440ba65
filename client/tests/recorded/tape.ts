// A tape: the frames on the sockets of one client in order, with the viewer's actions and the database changes.

import { WebSocket } from "ws";

import type { Session, Usher } from "../../src/index.ts";

export const SESSION = "5e551000-0000-4000-8000-000000000001";
/** A private session of the demo. Its viewer Lina may see it. */
export const OTHER = "5e551000-0000-4000-8000-000000000002";

/** A frame of any type. */
export type Frame = { readonly type: string; readonly id?: number } & Readonly<Record<string, unknown>>;

/** An action of the viewer. */
export type Deed =
  | { readonly does: "send"; readonly body: string; readonly replyTo?: string }
  | { readonly does: "vote"; readonly voting: string; readonly movie: string | null }
  | { readonly does: "follow" | "leave" | "wake" };

/** One line of a tape. */
export type Line =
  | Deed
  | { readonly opens: number }
  | { readonly says: Frame }
  | { readonly hears: Frame }
  | { readonly closed: number }
  | { readonly sql: string };

/** A recorded conversation, from the first frame to the last. */
export interface Tape {
  /** A note about the origin of the tape. */
  readonly note: string;
  readonly server: string;
  readonly lines: readonly Line[];
  /** The result of each `send` and `vote`, in order: an event number, `ok`, or an error code. */
  readonly outcomes: readonly (number | string)[];
  /** The final state of the client that recorded the tape. */
  readonly shows: object;
}

/** Replaces access tokens on a tape, so that the repository contains none. */
export const TOKEN = "<access token>";

/** Returns a WebSocket class that records its frames. */
export function recording(lines: Line[]) {
  let opened = 0;
  return class extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      lines.push({ opens: (opened += 1) });
      this.on("message", (data) => lines.push({ hears: JSON.parse(String(data)) }));
      this.on("close", (code) => lines.push({ closed: code }));
    }

    override send(text: string): void {
      const frame: Frame = JSON.parse(text);
      lines.push({ says: frame.type === "auth" ? { ...frame, token: TOKEN } : frame });
      super.send(text);
    }
  };
}

/** Performs an action of the viewer. Returns the result of a `send` or `vote`, and null for the others. */
export function perform(
  deed: Deed,
  usher: Usher,
  session: Session,
  others: Session[],
): Promise<number | string> | null {
  switch (deed.does) {
    case "send":
      return outcome(session.send(deed.body, deed.replyTo === undefined ? {} : { replyTo: deed.replyTo }));
    case "vote":
      return outcome(session.vote(deed.voting, deed.movie));
    case "follow":
      others.push(usher.session(OTHER));
      return null;
    case "leave":
      others.pop()?.close();
      return null;
    case "wake":
      usher.wake();
      return null;
  }
}

function outcome(promise: Promise<unknown>): Promise<number | string> {
  return promise.then(
    (sent) => (sent as { seq: number } | undefined)?.seq ?? "ok",
    (error: { readonly code: string }) => error.code,
  );
}

/** Returns the part of a session's state that a tape stores. */
export function shown({ state }: Session): object {
  const { status, error, info, can, viewers, votings, chat, continuity } = state;
  const { messages } = chat;
  const pending = chat.pending.map((item) => ({
    body: item.body,
    status: item.status,
    error: item.error?.code ?? null,
  }));
  return { status, error: error?.code ?? null, info, can, viewers, votings, messages, pending, continuity };
}

/** Formats a tape as JSON with one text line per tape line, so that a diff is readable. */
export function written({ lines, ...rest }: Tape): string {
  const texts = lines.map((line) => `    ${JSON.stringify(line)}`);
  return (
    JSON.stringify({ ...rest, lines: [] }, null, 2).replace(
      '"lines": []',
      () => `"lines": [\n${texts.join(",\n")}\n  ]`,
    ) + "\n"
  );
}

/** Groups the received frames and events by type. */
export function kindsOf(lines: readonly Line[]): Map<string, Frame[]> {
  const kinds = new Map<string, Frame[]>();
  const add = (kind: string, frame: Frame) => kinds.set(kind, [...(kinds.get(kind) ?? []), frame]);
  for (const line of lines) {
    if (!("hears" in line)) continue;
    const { hears: frame } = line;
    if (frame.type !== "events") add(frame.type, frame);
    else for (const event of frame.events as Frame[]) add(`event ${event.type}`, event);
  }
  return kinds;
}

/** Returns the paths that `now` lacks, or has with another type than `before`. Ignores null values of `before`. */
export function missing(before: unknown, now: unknown, path = ""): string[] {
  if (before === null || before === undefined) return [];
  if (typeof before !== typeof now || Array.isArray(before) !== Array.isArray(now) || now === null) return [path];
  if (Array.isArray(before) && Array.isArray(now))
    return now.length === 0 ? [] : missing(before[0], now[0], `${path}[]`);
  if (typeof before !== "object") return [];
  return Object.entries(before).flatMap(([key, value]) =>
    key in (now as object)
      ? missing(value, (now as Record<string, unknown>)[key], `${path}.${key}`)
      : [`${path}.${key}`],
  );
}
