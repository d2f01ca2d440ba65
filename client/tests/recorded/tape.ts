// What was said on the sockets of one client, in order, with what the viewer did and what was done to the database.

import { WebSocket } from "ws";

import type { Session, Usher } from "../../src/index.ts";

export const SESSION = "5e551000-0000-4000-8000-000000000001";
/** A private session of the demo, which its viewer Lina may see. */
export const OTHER = "5e551000-0000-4000-8000-000000000002";

/** Whatever a frame is made of. */
export type Frame = { readonly type: string; readonly id?: number } & Readonly<Record<string, unknown>>;

/** What a viewer does. */
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

/** A session from its first frame to its last. */
export interface Tape {
  /** How it was made. */
  readonly note: string;
  readonly server: string;
  readonly lines: readonly Line[];
  /** What each `send` and `vote` came to, in order: a number, `ok`, or the name of a refusal. */
  readonly outcomes: readonly (number | string)[];
  /** What the client of that day had in the end. */
  readonly shows: object;
}

/** In the place of access tokens, which nobody should find in a repository. */
export const TOKEN = "<access token>";

/** A WebSocket whose frames go on the tape. */
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

/** Does what a viewer did; gives what it comes to, where it comes to something. */
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

/** What a client shows in the end, by the names that its state has. */
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

/** The tape as it is kept: a line of text for each line of it, so that a difference can be read. */
export function written({ lines, ...rest }: Tape): string {
  const texts = lines.map((line) => `    ${JSON.stringify(line)}`);
  return (
    JSON.stringify({ ...rest, lines: [] }, null, 2).replace(
      '"lines": []',
      () => `"lines": [\n${texts.join(",\n")}\n  ]`,
    ) + "\n"
  );
}

/** The kinds of frames among them, each with all that were of it. */
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

/** Paths of what `before` has and `now` has not, or has as another type. What was null tells nothing. */
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
