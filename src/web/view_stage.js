// Shows the stage: the movie or session with a picture made from its title, and the countdown of the poll.

import { posterArt } from "./colour.js";
import { byId, setAttribute, setShown, setText } from "./dom.js";
import { countdown } from "./format.js";
import { closesAt, currentVoting, serverNow } from "./room.js";

const URGENT_MS = 30_000;

/** Creates the stage. */
export function stageView() {
  let drawn = null;
  return { render, tick };

  function render(state) {
    const movie = movieTitle(state);
    const title = movie ?? state.info.title;
    setText(byId("stage-label"), label(state.info.status, movie));
    setText(byId("stage-title"), title || "…");
    const note = noteOf(state);
    setShown(byId("stage-note"), note !== null);
    setText(byId("stage-note"), note ?? "");
    byId("stage").dataset.status = state.info.status;
    setAttribute(byId("stage"), "data-compact", state.session.can.moderate ? "yes" : null);
    if (drawn !== title) {
      byId("stage-art").style.backgroundImage = posterArt(title || "Usher");
      drawn = title;
    }
  }
}

function tick(state, now) {
  const voting = currentVoting(state);
  const closes = voting === null ? null : closesAt(voting);
  const running = voting?.status === "open" && closes !== null;
  setShown(byId("stage-clock"), running);
  if (!running) setText(byId("tab-vote-clock"), "");
  if (!running) return;
  const left = closes - serverNow(state, now);
  setText(byId("clock-label"), left > 0 ? "Poll closes in" : "Poll closes");
  setText(byId("clock"), left > 0 ? countdown(left) : "now");
  setText(byId("tab-vote-clock"), left > 0 ? countdown(left) : "");
  setAttribute(byId("stage-clock"), "data-urgent", left < URGENT_MS ? "yes" : null);
}

// Takes the title from the session if it has one, or else from the polls that contain the movie.
function movieTitle(state) {
  const { movie, movie_title: named, movie_id: id } = state.info;
  if (movie?.title || named) return movie?.title ?? named;
  if (!id) return null;
  const options = state.session.votings.flatMap((voting) => voting.options);
  return options.find((option) => option.movie === id)?.title ?? null;
}

function label(status, movie) {
  if (status === "ended") return "Ended";
  if (status === "scheduled") return "Coming up";
  return movie ? "Now showing" : "Live now";
}

function noteOf(state) {
  if (state.info.status === "ended") return "This session has ended. You can still read the chat.";
  if (state.info.status === "scheduled") return "This session has not started yet.";
  return null;
}
