// Reads how an overlay is to look from the page's address; what is not known there falls back to the default.

const SIDES = ["right", "left"];
const SIZES = ["m", "s", "l"];
const PARTS = ["chat", "votes"];
const LINES = { most: 20, usual: 8 };
const FADE_SECONDS_MAX = 600;
const RESULT_SECONDS = { most: 3600, usual: 20 };

/** {side, size, chat, votes, lines, fadeMs, resultMs}. */
export function settingsOf(search) {
  const query = new URLSearchParams(search);
  const wanted = (query.get("show") ?? "").split(",").filter((part) => PARTS.includes(part));
  const shows = (part) => wanted.length === 0 || wanted.includes(part);
  return {
    side: oneOf(query.get("side"), SIDES),
    size: oneOf(query.get("size"), SIZES),
    chat: shows("chat"),
    votes: shows("votes"),
    lines: Math.max(1, number(query.get("lines"), LINES.most, LINES.usual)),
    /** How long a message stays; 0 is until others push it out. */
    fadeMs: number(query.get("fade"), FADE_SECONDS_MAX, 0) * 1000,
    /** How long a result stays after the close. */
    resultMs: number(query.get("result"), RESULT_SECONDS.most, RESULT_SECONDS.usual) * 1000,
  };
}

function oneOf(text, choices) {
  return choices.includes(text) ? text : choices[0];
}

function number(text, most, usual) {
  return /^\d{1,6}$/.test(text ?? "") ? Math.min(Number(text), most) : usual;
}
