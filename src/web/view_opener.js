// The form of a new voting: a question, a ballot chosen from the catalogue, and how it is counted.

import { words } from "./calls.js";
import { byId, el, setShown, setText } from "./dom.js";
import { currentVoting } from "./room.js";

const BALLOT_MIN = 2;
const BALLOT_MAX = 20;
/** After the last key: a search each is too many. */
const TYPING_MS = 200;

/** The form. `calls` are the gateway's; `opened` is called when a voting is. */
export function openerView({ calls, opened }) {
  const chosen = new Map(); // Movie id to the movie, in the order of the ballot.
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
    setText(byId("opener-title"), isOpen ? "Prepare the next voting" : "Open a voting");
    byId("open").disabled = isOpen;
    setText(byId("open"), isOpen ? "Close the present one first" : "Open the voting");
  }

  async function search() {
    const number = ++asked;
    const answer = await calls.movies(byId("search").value.trim()).catch((error) => ({ error }));
    // Answers may overtake each other.
    if (number !== asked) return;
    found = answer.movies ?? [];
    const none = found.length === 0 ? "No movie of that title." : "";
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
    setText(byId("chosen-count"), `${chosen.size} of ${BALLOT_MIN} to ${BALLOT_MAX}`);
    setShown(byId("chosen-empty"), chosen.size === 0);
    byId("chosen").replaceChildren(
      ...[...chosen.values()].map((movie) =>
        el(
          "li",
          {},
          el("span", { class: "chosen-title", dir: "auto" }, movie.title),
          el("button", { type: "button", class: "icon", "aria-label": `Take ${movie.title} off`, onclick: () => takeOff(movie) }, "✕"),
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
    if (question === "") return { text: "Ask something.", field: "question" };
    if (chosen.size < BALLOT_MIN) return { text: "Choose two movies at least.", field: "search" };
    return null;
  }
}
