// Shows the poll: a button for each movie with its bar and votes, the viewer's vote, and the winner.
//
// Keeps its elements between renders, so that bars move smoothly and the keyboard focus stays.

import { initials, posterArt } from "./colour.js";
import { byId, el, setAttribute, setShown, setText } from "./dom.js";
import { percent, plural, spokenDuration } from "./format.js";
import { standing } from "./client/votings.js";
import { now as time } from "./now.js";
import { closesAt, currentVoting, serverNow, voteBar } from "./room.js";

/** Creates the poll panel. It calls `vote(voting, movie)` to vote, and with null to withdraw the vote. */
export function votesView({ vote }) {
  let shown = null; // The poll and movies of the current elements.
  let rows = new Map();
  let latest = null;
  byId("withdraw").addEventListener("click", () => {
    const voting = latest && currentVoting(latest);
    if (voting) vote(voting.id, null);
    rows.values().next().value?.button.focus();
  });
  return { render, tick };

  function render(state) {
    latest = state;
    const voting = currentVoting(state);
    setShown(byId("vote-empty"), voting === null || voting.options.length === 0);
    setShown(byId("tab-vote-dot"), voting?.status === "open" && !voting.mine);
    byId("vote").dataset.state = voting?.status ?? "none";
    if (!voting) {
      setText(byId("vote-label"), "Poll");
      setText(byId("vote-question"), "No poll yet");
      setText(byId("vote-total"), "");
      rebuild("", []);
      return;
    }
    const standings = standing(voting);
    const hidden = voting.counts === null;
    const winners = standings.filter((row) => row.leads);
    setText(byId("vote-question"), voting.question || "Which movie?");
    setText(byId("vote-total"), plural(voting.total, "vote"));
    rebuild(`${voting.id} ${voting.options.map((option) => option.movie).join(" ")}`, voting.options);
    for (const row of standings) renderRow(rows.get(row.movie), row, voting, hidden, winners);
  }

  function tick(state, now) {
    const voting = currentVoting(state);
    if (!voting) {
      setText(byId("vote-note"), "");
      setShown(byId("withdraw"), false);
      return;
    }
    const bar = voteBar(state, voting, now);
    for (const { button } of rows.values()) setAttribute(button, "aria-disabled", bar ? "true" : null);
    setText(byId("vote-label"), labelOf(voting));
    setText(byId("vote-note"), noteOf(state, voting, bar, now));
    setShown(byId("withdraw"), bar === null && voting.mine !== null && voting.allow_change);
  }

  function rebuild(key, options) {
    if (shown === key) return;
    shown = key;
    rows = new Map(options.map((option) => [option.movie, makeRow(option)]));
    byId("ballot").replaceChildren(...[...rows.values()].map((row) => row.button));
  }

  function makeRow(option) {
    const poster = el("span", { class: "poster", "aria-hidden": "true" }, initials(option.title));
    poster.style.backgroundImage = posterArt(option.title);
    const fill = el("span", { class: "fill" });
    const percentText = el("span", { class: "percent" });
    const votes = el("span", { class: "votes" });
    const mark = el("span", { class: "mark" });
    const title = el("span", { class: "movie", dir: "auto" }, option.title);
    const body = el(
      "span",
      { class: "row-body" },
      el("span", { class: "row-top" }, title, percentText),
      el("span", { class: "track", "aria-hidden": "true" }, fill),
      el("span", { class: "row-foot" }, votes, mark),
    );
    const button = el(
      "button",
      { type: "button", class: "option", "aria-pressed": "false", onclick: () => choose(option.movie) },
      poster,
      body,
    );
    return { button, fill, percentText, votes, mark };
  }

  function choose(movie) {
    const voting = latest && currentVoting(latest);
    if (!voting || voteBar(latest, voting, time())) return;
    vote(voting.id, voting.mine === movie ? null : movie);
  }
}

function renderRow(row, standing, voting, hidden, winners) {
  const closed = voting.status === "closed";
  const won = closed && standing.leads;
  setAttribute(row.button, "aria-pressed", String(standing.mine));
  setAttribute(row.button, "data-wish", standing.mine && voting.wish ? "yes" : null);
  setAttribute(row.button, "data-won", won ? "yes" : null);
  setAttribute(row.button, "data-leads", !closed && standing.leads ? "yes" : null);
  row.fill.style.transform = `scaleX(${hidden ? 0 : standing.share.toFixed(4)})`;
  setText(row.percentText, hidden ? "" : percent(standing.share));
  setText(row.votes, hidden ? "Hidden until it closes" : plural(standing.votes, "vote"));
  setText(row.mark, markOf(standing, voting, won, winners.length > 1));
}

function markOf(standing, voting, won, tie) {
  const mine = standing.mine ? (voting.wish ? "Sending…" : "✓ Your vote") : "";
  const place = won ? (tie ? "★ Tied for first" : "★ Winner") : "";
  return [place, mine].filter(Boolean).join(" · ");
}

function labelOf(voting) {
  if (voting.status === "closed") return "Final result";
  return voting.counts === null ? "Poll · results after it closes" : "Poll · open now";
}

function noteOf(state, voting, bar, now) {
  if (bar) return bar;
  const closes = closesAt(voting);
  const left = closes === null ? "" : ` Closes in ${spokenDuration(closes - serverNow(state, now))}.`;
  if (voting.mine) return voting.allow_change ? `You can change your vote until the poll closes.${left}` : "";
  if (!voting.allow_change) return `Choose one movie. You cannot change your vote later.${left}`;
  return `Choose one movie.${left}`;
}
