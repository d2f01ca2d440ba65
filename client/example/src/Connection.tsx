import { type UseConnection, useConnection } from "@usher/client/react";
import { useEffect, useState } from "react";

/** How the connection stands, and a button to reconnect at once. */
export function Connection() {
  const connection = useConnection();
  const { status, retryAt, retry, now } = connection;
  const seconds = useSecondsUntil(retryAt, now);
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

/** Counts down by the client's clock. The device clock may be set back meanwhile, and the countdown would not end. */
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
