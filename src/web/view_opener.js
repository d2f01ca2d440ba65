// The form for a new poll: question, movies from the catalogue, and settings.

import { words } from "./calls.js";
import { byId, el, setShown, setText } from "./dom.js";
import { currentVoting } from "./room.js";

const BALLOT_MIN = 2;
const BALLOT_MAX = 20;
/** The pause after the last key before a search, so that not every key starts one. */
const TYPING_MS = 200;

/** Creates the form. `calls` are the gateway's calls. Calls `opened` after a poll opens. */
export function openerView({ calls, opened }) {
  const chosen = new Map(); // From movie id to movie, in ballot order.
  let found = [];
  let typing = null;
  let asked = 0;

  byId("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, TYPING_MS);
  });
  byId("search").addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  byId("new-voting").addEventListener("submit", (event) => {
    event.preventDefault();
    void submit();
  });
  void search();
  return { render };

  function render(room) {
    const isOpen = currentVoting(room)?.status === "open";
    setText(byId("opener-title"), isOpen ? "Prepare the next poll" : "Open a poll");
    byId("open").disabled = isOpen;
    setText(byId("open"), isOpen ? "Close the open poll first" : "Open poll");
  }

  async function search() {
    const number = ++asked;
    const answer = await calls.movies(byId("search").value.trim()).catch((error) => ({ error }));
    // Ignores the answer of an older search.
    if (number !== asked) return;
    found = answer.movies ?? [];
    const none = found.length === 0 ? "No movie found. Try another title." : "";
    setText(byId("found-note"), answer.error ? words(answer.error) : none);
    drawFound();
  }

  function drawFound() {
    byId("found").replaceChildren(
      ...found.map((movie) => {
        const isChosen = chosen.has(movie.id);
        const year = movie.release_year ? el("span", { class: "soft" }, ` ${movie.release_year}`) : null;
        const button = el(
          "button",
          { type: "button", "aria-pressed": String(isChosen), onclick: () => toggle(movie, button) },
          el("span", { dir: "auto" }, movie.title),
          year,
        );
        return el("li", {}, button);
      }),
    );
  }

  function toggle(movie, button) {
    if (chosen.has(movie.id)) chosen.delete(movie.id);
    else if (chosen.size < BALLOT_MAX) chosen.set(movie.id, movie);
    button.setAttribute("aria-pressed", String(chosen.has(movie.id)));
    setText(byId("voting-error"), "");
    drawChosen();
  }

  function drawChosen() {
    setText(byId("chosen-count"), `${chosen.size} (${BALLOT_MIN} to ${BALLOT_MAX} needed)`);
    setShown(byId("chosen-empty"), chosen.size === 0);
    byId("chosen").replaceChildren(
      ...[...chosen.values()].map((movie) =>
        el(
          "li",
          {},
          el("span", { class: "chosen-title", dir: "auto" }, movie.title),
          el("button", { type: "button", class: "icon", "aria-label": `Remove ${movie.title}`, onclick: () => takeOff(movie) }, "✕"),
        ),
      ),
    );
  }

  function takeOff(movie) {
    chosen.delete(movie.id);
    drawChosen();
    drawFound();
    byId("search").focus();
  }

  async function submit() {
    const question = byId("question").value.trim();
    const flaw = flawOf(question);
    setText(byId("voting-error"), flaw?.text ?? "");
    if (flaw) return byId(flaw.field).focus();
    const seconds = byId("closes-in").value;
    byId("open").disabled = true;
    try {
      await calls.openVoting({
        question,
        movies: [...chosen.keys()],
        ...(seconds && { closes_in_seconds: Number(seconds) }),
        results_visibility: byId("hide-counts").checked ? "after_close" : "live",
        allow_change: byId("allow-change").checked,
      });
      chosen.clear();
      byId("question").value = "";
      drawChosen();
      drawFound();
      opened();
    } catch (error) {
      setText(byId("voting-error"), words(error));
      byId("open").disabled = false;
    }
  }

  function flawOf(question) {
    if (question === "") return { text: "Enter a question.", field: "question" };
    if (chosen.size < BALLOT_MIN) return { text: "Choose at least two movies.", field: "search" };
    return null;
  }
}
