import { type UseConnection, useConnection } from "@usher/client/react";
import { useEffect, useState } from "react";

/** Shows the state of the connection and a button to reconnect. */
export function Connection() {
  const connection = useConnection();
  const { status, retryAt, retry, now } = connection;
  const seconds = useSecondsUntil(retryAt, now);
  return (
    <p className="connection" data-status={status}>
      {/* The seconds stay outside: a screen reader would announce each one. */}
      <span role="status">{wordsFor(connection)}</span>
      {status === "waiting" && seconds > 0 && ` in ${seconds} s`}
      {(status === "waiting" || status === "stopped") && (
        <button type="button" className="quiet" onClick={retry}>
          Reconnect now
        </button>
      )}
    </p>
  );
}

function wordsFor({ status, online, failures, error }: UseConnection): string {
  if (!online) return "Offline";
  // The auth server is down. The app still shows the session, and messages wait.
  if (status === "open") return error ? "Connected, but your sign-in cannot be renewed right now" : "Connected";
  if (status === "stopped") return "Disconnected";
  return failures > 0 ? "Reconnecting" : "Connecting";
}

/** Counts down with the client's clock. With the device clock, a countdown would not end if the clock is set back. */
function useSecondsUntil(time: number | null, clock: () => number) {
  const [now, setNow] = useState(clock);
  useEffect(() => {
    if (time === null) return;
    setNow(clock());
    const timer = setInterval(() => setNow(clock()), 500);
    return () => clearInterval(timer);
  }, [time, clock]);
  return time === null ? 0 : Math.max(0, Math.ceil((time - now) / 1000));
}
