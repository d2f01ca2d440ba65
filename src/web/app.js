// The viewer's page: watch, chat, vote.

import { byId } from "./dom.js";
import { openPage } from "./page.js";
import { chatView } from "./view_chat.js";
import { composerView } from "./view_composer.js";
import { headerView } from "./view_header.js";
import { insightsView } from "./view_insights.js";
import { proofView } from "./view_proof.js";
import { stageView } from "./view_stage.js";
import { showTab, tabsView } from "./view_tabs.js";
import { toastsView } from "./view_toasts.js";
import { votesView } from "./view_votes.js";

openPage({ makeViews });

function makeViews(follow, place) {
  const { session, dispatch } = follow;
  const composer = composerView({
    send: (body, replyTo) => {
      session.send(body, replyTo ? { replyTo } : {}).then(() => dispatch({ type: "sent" }), () => {});
      chat.stick();
    },
  });
  const chat = chatView({
    retry: (nonce) => session.resend(nonce),
    discard: (nonce) => session.discard(nonce),
    reply: (message) => composer.reply(message),
    older: () => session.older(),
    hold: () => session.readBack(),
    newest: () => session.newest(),
  });
  byId("skip").addEventListener("click", () => {
    showTab("chat");
    (byId("field").hidden ? byId("log-scroll") : byId("body")).focus();
  });
  const vote = (voting, movie) => session.vote(voting, movie).catch(refused);
  return [
    headerView({ retry: follow.retry, place }),
    stageView(),
    votesView({ vote }),
    insightsView(),
    chat,
    composer,
    proofView(),
    toastsView(),
    tabsView(chat),
  ];

  function refused({ code, message }) {
    // The viewer has voted again. The later vote has its own answer.
    if (code === "superseded") return;
    const text = VOTE_ERRORS[code] ?? `Your vote did not count: ${message}`;
    dispatch({ type: "toast", tone: "warn", text });
  }
}

const VOTE_ERRORS = {
  no_answer: "The server did not answer. Please vote again.",
  voting_closed: "This poll is closed. Your vote came too late.",
  conflict: "You cannot change your vote in this poll. Your first vote counts.",
  banned: "You are timed out and cannot vote.",
  session_ended: "This session has ended.",
  forbidden: "You cannot vote in this session.",
  rate_limited: "You voted too often in a short time. Try again in a moment.",
  busy: "This poll is busy. Please vote again.",
};
