// Derives a readable colour for each viewer, for dark and light backgrounds, and a picture for each title.
//
// Pure: the same text gives the same colours on every screen.

/** The background on which names are hardest to read, in each colour scheme. */
export const NAME_BACKGROUNDS = { dark: [38, 42, 58], light: [228, 222, 206] };
const CONTRAST_MIN = 5;

/** Returns a 32-bit hash of a text (FNV-1a). */
export function hash(text) {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    value = Math.imul(value ^ text.charCodeAt(at), 0x01000193);
  }
  // Mixes once more, so that ids with the same prefix get different hues.
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (value ^ (value >>> 13)) >>> 0;
}

/** Returns the CSS colour of a name: a hue from the id, with enough contrast in each colour scheme. */
export function nameColour(id) {
  const value = hash(String(id));
  const hue = value % 360;
  const saturation = 58 + ((value >>> 9) % 28);
  const shade = (from, step, background) => {
    let lightness = from;
    while (lightness > 4 && lightness < 96 && contrast(rgb(hue, saturation, lightness), background) < CONTRAST_MIN)
      lightness += step;
    return `hsl(${hue} ${saturation}% ${lightness}%)`;
  };
  return `light-dark(${shade(42, -2, NAME_BACKGROUNDS.light)}, ${shade(62, 2, NAME_BACKGROUNDS.dark)})`;
}

/** Returns the contrast ratio of two colours, as WCAG defines it. */
export function contrast(a, b) {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light + 0.05) / (dark + 0.05);
}

/** Converts an HSL colour to red, green and blue, each from 0 to 255. */
export function rgb(hue, saturation, lightness) {
  const s = saturation / 100;
  const l = lightness / 100;
  const reach = s * Math.min(l, 1 - l);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (l - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/** Returns a CSS background for a title: layered gradients, dark enough for white text. */
export function posterArt(title) {
  const value = hash(title);
  const hue = value % 360;
  const other = (hue + 40 + ((value >>> 8) % 90)) % 360;
  const x = 15 + ((value >>> 12) % 70);
  const y = 5 + ((value >>> 18) % 40);
  const tilt = 120 + ((value >>> 22) % 110);
  return [
    `radial-gradient(90% 70% at ${x}% ${y}%, hsl(${other} 62% 46% / 0.85), transparent 70%)`,
    `radial-gradient(70% 90% at ${100 - x}% 110%, hsl(${hue} 70% 36% / 0.8), transparent 65%)`,
    `linear-gradient(${tilt}deg, hsl(${hue} 48% 13%), hsl(${other} 46% 20%))`,
  ].join(", ");
}

/** Returns one or two initials of a title or a name. */
export function initials(text) {
  const words = text
    .trim()
    .split(/\s+/u)
    .filter((word) => !/^(the|a|an|of|and|der|die|das)$/iu.test(word));
  const first = (word) =>
    [...(word ?? "")].find((char) => /[\p{L}\p{N}\p{Extended_Pictographic}]/u.test(char)) ?? "";
  const letters = first(words[0]) + (words.length > 1 ? first(words[1]) : "");
  return (letters || [...text.trim()][0] || "?").toLocaleUpperCase();
}

function luminance(colour) {
  const [r, g, b] = colour.map((channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
