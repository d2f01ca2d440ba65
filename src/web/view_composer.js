// The box to write a message: permission, length, slow mode, and replies.

import { byId, setAttribute, setShown, setText } from "./dom.js";
import { characters, count, plural, spokenDuration } from "./format.js";
import { now as time } from "./now.js";
import { linkPhase, sendBar, serverNow } from "./room.js";
import { hasInk } from "./text.js";
import { quoteOf } from "./view_message.js";

const BODY_MAX = 2000;
const COUNTER_FROM = 1800;

/** Creates the composer. It calls `send(body, replyTo)` for each message. */
export function composerView({ send }) {
  const [form, body] = [byId("composer"), byId("body")];
  let latest = null;
  let replyTo = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  body.addEventListener("keydown", (event) => {
    // While an input method composes text, Enter chooses a word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && replyTo) {
      setReply(null);
    }
  });
  body.addEventListener("input", onInput);
  byId("replying-cancel").addEventListener("click", () => {
    setReply(null);
    body.focus();
  });
  return { render, tick, reply };

  function render(state) {
    latest = state;
    const mode = modeOf(state.info);
    setShown(byId("chat-mode"), mode !== null);
    setText(byId("chat-mode"), mode ?? "");
  }

  function tick(state, now) {
    latest = state;
    const bar = sendBar(state, now);
    setShown(byId("bar-reason"), bar !== null);
    setText(byId("bar-reason"), bar === null ? "" : withEnd(bar, state, now));
    setShown(byId("field"), bar === null);
    setShown(byId("replying"), bar === null && replyTo !== null);
    setAttribute(form, "data-barred", bar ? "yes" : null);
    const note = noteOf(state, now);
    setText(byId("composer-note"), bar ? "" : note.text);
    setAttribute(byId("composer-note"), "data-tone", note.tone);
    // A screen reader must not announce each second of a countdown.
    setAttribute(byId("composer-note"), "aria-live", note.quiet ? "off" : "polite");
    setAttribute(byId("send"), "aria-disabled", maySend(now) ? null : "true");
  }

  function reply(message) {
    if (latest && sendBar(latest, time())) return;
    setReply(message);
    body.focus();
  }

  function setReply(message) {
    replyTo = message;
    setText(byId("replying-text"), message ? `Reply to ${quoteOf(message)}` : "");
    setShown(byId("replying"), message !== null);
  }

  function submit() {
    if (!maySend(time())) return;
    send(body.value.trim(), replyTo?.id ?? null);
    body.value = "";
    setReply(null);
    onInput();
    body.focus();
  }

  function maySend(now) {
    const text = body.value.trim();
    return (
      hasInk(text) &&
      characters(text) <= BODY_MAX &&
      latest !== null &&
      !sendBar(latest, now) &&
      latest.slowUntil <= now
    );
  }

  function onInput() {
    body.style.height = "auto";
    body.style.height = `${Math.min(body.scrollHeight, 132)}px`;
    if (latest) tick(latest, time());
  }

  function noteOf(state, now) {
    const length = characters(body.value.trim());
    if (length > BODY_MAX) return { text: `Too long: remove ${plural(length - BODY_MAX, "character")}`, tone: "bad" };
    const wait = state.slowUntil - now;
    if (wait > 0)
      return {
        text: `${state.info.slow_mode_seconds > 0 ? "Slow mode" : "Too fast"}: next message in ${spokenDuration(wait)}`,
        tone: "warn",
        quiet: true,
      };
    if (length >= COUNTER_FROM)
      return { text: `${count(BODY_MAX - length)} characters left`, tone: "warn", quiet: true };
    const phase = linkPhase(state);
    if (phase !== "live" && phase !== "catching_up")
      return { text: "Not connected. Your message goes out if the connection returns within 15 s.", tone: "warn" };
    return { text: "", tone: null };
  }
}

function withEnd(bar, state, now) {
  const left = state.timeoutUntil - serverNow(state, now);
  return left > 0 && bar.startsWith("You are timed out")
    ? `You are timed out for another ${spokenDuration(left)}.`
    : bar;
}

function modeOf(info) {
  if (info.status === "ended") return null;
  if (!info.chat_enabled) return "Chat is off";
  return info.slow_mode_seconds > 0 ? `Slow mode · ${info.slow_mode_seconds} s` : null;
}
