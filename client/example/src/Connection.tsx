import { type UseConnection, useConnection } from "@usher/client/react";
import { useEffect, useState } from "react";

/** How the connection stands, and a button to reconnect at once. */
export function Connection() {
  const connection = useConnection();
  const { status, retryAt, retry } = connection;
  const seconds = useSecondsUntil(retryAt);
  return (
    <p className="connection" data-status={status}>
      {/* Not the seconds: they would be read aloud, one by one. */}
      <span role="status">{wordsFor(connection)}</span>
      {status === "waiting" && seconds > 0 && ` in ${seconds} s`}
      {(status === "waiting" || status === "stopped") && (
        <button type="button" className="quiet" onClick={retry}>
          Try now
        </button>
      )}
    </p>
  );
}

function wordsFor({ status, online, failures, error }: UseConnection): string {
  if (!online) return "Offline";
  // The auth server is away: the session is still shown, and messages wait until it is back.
  if (status === "open") return error ? "Connected, but your sign-in cannot be renewed at the moment" : "Connected";
  if (status === "stopped") return "Disconnected";
  return failures > 0 ? "Reconnecting" : "Connecting";
}

function useSecondsUntil(time: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (time === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [time]);
  return time === null ? 0 : Math.max(0, Math.ceil((time - now) / 1000));
}
