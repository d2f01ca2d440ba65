import type { Message, PendingMessage } from "@usher/client";
import { useChat, useSession } from "@usher/client/react";
import { type FormEvent, memo } from "react";

/** Shows the messages, the pending ones, and a box to write in. */
export function Chat({ session, user }: { session: string; user: string | null }) {
  const chat = useChat(session);
  return (
    <section className="card chat" aria-label="Chat">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: keyboard users must be able to scroll it. */}
      <div className="log" ref={chat.listRef} role="log" aria-label="Messages" tabIndex={0}>
        <ol>
          {chat.messages.map((message) => (
            <Row key={message.id} message={message} isMine={message.user_id === user} />
          ))}
          {chat.pending.map((message) => (
            <PendingRow key={message.nonce} message={message} resend={chat.resend} discard={chat.discard} />
          ))}
        </ol>
      </div>
      {chat.isLoading && <p role="status">Loading messages …</p>}
      {!chat.isLoading && chat.messages.length + chat.pending.length === 0 && <p>No messages yet.</p>}
      {chat.isLoadingOlder && <p role="status">Loading older messages …</p>}
      {chat.error && (
        <button type="button" className="quiet" onClick={chat.loadOlder}>
          Could not load older messages. Try again
        </button>
      )}
      {chat.unread > 0 && (
        <button type="button" className="unread" onClick={chat.toNewest}>
          {chat.unread} new
        </button>
      )}
      <Composer session={session} send={chat.send} />
    </section>
  );
}

/** Renders again only if its message changes: the client replaces changed messages and keeps the others. */
const Row = memo(function Row({ message, isMine }: { message: Message; isMine: boolean }) {
  const { author, body, created_at } = message;
  return (
    <li className={isMine ? "mine" : undefined}>
      <b>{author?.display_name ?? author?.username ?? "Unknown user"}</b>
      <time dateTime={created_at}>{new Date(created_at).toLocaleTimeString([], { timeStyle: "short" })}</time>
      {body === null ? <p className="soft">deleted</p> : <p dir="auto">{body}</p>}
    </li>
  );
});

interface PendingRowProps {
  message: PendingMessage;
  resend: (nonce: string) => Promise<unknown>;
  discard: (nonce: string) => void;
}

/** Shows a pending message until its log event replaces it. Sending it again is safe: it counts once. */
function PendingRow({ message: { nonce, body, status, error }, resend, discard }: PendingRowProps) {
  return (
    <li className="mine" aria-busy={status === "sending"}>
      <p dir="auto">{body}</p>
      {status === "failed" && (
        <p role="alert">
          Not sent: {error?.message}
          <button type="button" className="quiet" onClick={() => void resend(nonce).catch(() => {})}>
            Send again
          </button>
          <button type="button" className="quiet" onClick={() => discard(nonce)}>
            Discard
          </button>
        </p>
      )}
    </li>
  );
}

function Composer({ session, send }: { session: string; send: (body: string) => Promise<unknown> }) {
  const { can, info } = useSession(session);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const body = String(new FormData(form).get("body")).trim();
    if (body === "") return;
    // The list shows a failure at the pending message.
    send(body).catch(() => {});
    form.reset();
  };
  const slow = info?.slow_mode_seconds ?? 0;
  const hint = slow > 0 ? `One message every ${slow} s` : "Write a message";
  return (
    <form onSubmit={submit}>
      <input
        name="body"
        aria-label="Message"
        placeholder={hint}
        maxLength={2000}
        disabled={!can.send}
        autoComplete="off"
      />
      <button type="submit" disabled={!can.send}>
        Send
      </button>
    </form>
  );
}
