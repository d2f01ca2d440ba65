// Shows the streamer the current poll, with buttons to close it and to hide its counts.

import { ask } from "./ask.js";
import { barsView } from "./bars.js";
import { byId, setShown, setText } from "./dom.js";
import { countdown, plural } from "./format.js";
import { closesAt, currentVoting, serverNow } from "./room.js";

/** Creates the poll panel. `on.change(voting, change)` changes a poll and resolves to whether it succeeded. */
export function controlView(on) {
  const bars = barsView(byId("bars"));
  let latest = null;
  byId("close").addEventListener("click", close);
  byId("visibility").addEventListener("click", () => {
    const isLive = latest.results_visibility === "live";
    void on.change(latest.id, { results_visibility: isLive ? "after_close" : "live" });
  });
  return { render, tick };

  function render(room) {
    latest = currentVoting(room);
    const isOpen = latest?.status === "open";
    byId("vote").dataset.state = latest?.status ?? "none";
    setText(byId("vote-label"), latest === null ? "Poll" : isOpen ? "Poll · open now" : "Last result");
    setText(byId("vote-question"), latest?.question || (latest === null ? "No poll yet" : "Which movie?"));
    setText(byId("vote-total"), latest === null ? "" : plural(latest.total, "vote"));
    setShown(byId("vote-empty"), latest === null);
    setShown(byId("vote-foot"), isOpen);
    const isLive = latest?.results_visibility === "live";
    setText(byId("visibility"), isLive ? "Hide counts from viewers" : "Show counts to viewers");
    bars.render(latest);
  }

  function tick(room, now) {
    if (latest?.status !== "open") return;
    const closes = closesAt(latest);
    const left = closes === null ? null : closes - serverNow(room, now);
    const clock = left === null ? "Open until you close it" : left > 0 ? `Closes in ${countdown(left)}` : "Counting the last votes…";
    setText(byId("vote-note"), latest.results_visibility === "live" ? clock : `${clock} · counts hidden from viewers`);
  }

  async function close() {
    const { id, total } = latest;
    const chosen = await ask({
      title: "Close the poll?",
      text: `${plural(total, "vote")} so far. Closing makes the result final and shows it to all viewers.`,
      choices: [{ value: "close", label: "Close poll", danger: true }],
    });
    if (chosen && (await on.change(id, { state: "closed" }))) byId("question").focus();
  }
}
