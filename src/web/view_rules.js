// The chat settings: on or off, slow mode, and the banned users.

import { words } from "./calls.js";
import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { spokenDuration } from "./format.js";
import { now } from "./now.js";
import { serverNow } from "./room.js";

/** Creates the settings. `act(promise, done)` reports the result of a call. */
export function rulesView({ calls, act }) {
  const slow = byId("slow-mode");
  let latest = null;
  byId("chat-enabled").addEventListener("click", () => {
    const chat_enabled = !latest.info.chat_enabled;
    void act(calls.changeSession({ chat_enabled }), chat_enabled ? "Chat is on" : "Chat is off");
  });
  slow.addEventListener("change", async () => {
    const seconds = Number(slow.value);
    const said = seconds > 0 ? `Slow mode: one message every ${spokenDuration(seconds * 1000)}` : "Slow mode is off";
    if (!(await act(calls.changeSession({ slow_mode_seconds: seconds }), said))) render(latest);
  });
  byId("show-bans").addEventListener("click", () => {
    const isShown = byId("bans").hidden;
    setShown(byId("bans"), isShown);
    setAttribute(byId("show-bans"), "aria-expanded", String(isShown));
    if (isShown) void list();
  });
  return { render, list };

  function render(room) {
    latest = room;
    setAttribute(byId("chat-enabled"), "aria-checked", String(room.info.chat_enabled));
    if (document.activeElement === slow) return;
    const seconds = String(room.info.slow_mode_seconds);
    // Another app may have set a time that is not in the list.
    if (![...slow.options].some((option) => option.value === seconds))
      slow.append(el("option", { value: seconds }, spokenDuration(room.info.slow_mode_seconds * 1000)));
    slow.value = seconds;
  }

  /** Loads the list again if it is visible. */
  async function list() {
    if (byId("bans").hidden) return;
    const { bans, error } = await calls.bans().catch((error) => ({ bans: [], error }));
    const none = bans.length === 0 ? "No banned or timed-out users." : "";
    setText(byId("bans-note"), error ? words(error) : none);
    byId("bans-list").replaceChildren(...bans.map(row));
  }

  function row({ user, username, display_name, until }) {
    const name = display_name || username;
    const left = until === null ? "banned" : `timed out, ${spokenDuration(Date.parse(until) - serverNow(latest, now()))} left`;
    const [label, described] = until === null ? ["Unban", `Unban ${name}`] : ["End time-out", `End time-out of ${name}`];
    const lift = async () => {
      if (await act(calls.liftBan(user), `${name} can use the session again`)) await list();
      byId("show-bans").focus();
    };
    return el(
      "li",
      {},
      el("span", { class: "ban-name", dir: "auto" }, name),
      el("span", { class: "soft" }, left),
      el("button", { type: "button", class: "ghost small", "aria-label": described, onclick: lift }, label),
    );
  }
}
