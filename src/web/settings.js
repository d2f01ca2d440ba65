// Reads the settings of an overlay from its address. Unknown values fall back to the defaults.

const SIDES = ["right", "left"];
const SIZES = ["m", "s", "l"];
const PARTS = ["chat", "votes"];
const LINES = { most: 20, usual: 8 };
const FADE_SECONDS_MAX = 600;
const RESULT_SECONDS = { most: 3600, usual: 20 };

/** Returns {side, size, chat, votes, lines, fadeMs, resultMs}. */
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
    /** The time that a message stays. With 0, it stays until newer ones replace it. */
    fadeMs: number(query.get("fade"), FADE_SECONDS_MAX, 0) * 1000,
    /** The time that a result stays after the poll closes. */
    resultMs: number(query.get("result"), RESULT_SECONDS.most, RESULT_SECONDS.usual) * 1000,
  };
}

function oneOf(text, choices) {
  return choices.includes(text) ? text : choices[0];
}

function number(text, most, usual) {
  return /^\d{1,6}$/.test(text ?? "") ? Math.min(Number(text), most) : usual;
}
