// The viewer's page: watch, talk, vote.

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
    // Another choice was made meanwhile: that one has its own answer.
    if (code === "superseded") return;
    const text = VOTE_ERRORS[code] ?? `Your vote was not counted: ${message}`;
    dispatch({ type: "toast", tone: "warn", text });
  }
}

const VOTE_ERRORS = {
  no_answer: "No answer to your vote. Please try again.",
  voting_closed: "Voting has closed; this vote came too late.",
  conflict: "Votes cannot be changed here; your first one counts.",
  banned: "You are timed out and cannot vote.",
  session_ended: "This session has ended.",
  forbidden: "You cannot vote in this session.",
  rate_limited: "That was a little fast. Try again in a moment.",
  busy: "This poll is locked at the moment. Please try again.",
};
