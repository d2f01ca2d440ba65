// The streamer's dashboard: run polls, moderate the chat, watch the activity.

import { ask } from "./ask.js";
import { callsOf, words } from "./calls.js";
import { openPage } from "./page.js";
import { stopCode } from "./room.js";
import { chatView } from "./view_chat.js";
import { composerView } from "./view_composer.js";
import { controlView } from "./view_control.js";
import { headerView } from "./view_header.js";
import { insightsView } from "./view_insights.js";
import { openerView } from "./view_opener.js";
import { overlayLinkView } from "./view_overlay_link.js";
import { rulesView } from "./view_rules.js";
import { tabsView } from "./view_tabs.js";
import { toastsView } from "./view_toasts.js";

/** Only hides controls that the viewer may not use. The database refuses their calls anyway. */
const NOT_YOURS = {
  title: "You cannot use this studio",
  text: "Only the streamer and the moderators of this session can. Open the studio with the link that you got for that role.",
  actions: ["watch", "other"],
};
const ACTS = [
  { name: "remove", label: "Delete", describe: (name) => `Delete the message of ${name}` },
  { name: "exclude", label: "Time out", describe: (name) => `Time out or ban ${name}`, isForOthers: true },
];

const WELCOME = {
  title: "Open the studio",
  text: "Run polls and moderate the chat of your session. Enter the session ID and your token.",
};

openPage({ makeViews, instead, welcome: WELCOME });

function instead(room) {
  const knows = room.ready && stopCode(room) === null;
  return knows && !room.session.can.moderate ? NOT_YOURS : null;
}

function makeViews(follow, place) {
  const { session } = follow;
  const calls = callsOf(place.session, place.token);
  const composer = composerView({
    send: (body, replyTo) => {
      session.send(body, replyTo ? { replyTo } : {}).catch(() => {});
      chat.stick();
    },
  });
  const chat = chatView(
    {
      retry: (nonce) => session.resend(nonce),
      discard: (nonce) => session.discard(nonce),
      reply: (message) => composer.reply(message),
      remove: (message) => act(calls.deleteMessage(message.id), "Message deleted"),
      exclude,
      older: () => session.older(),
      hold: () => session.readBack(),
      newest: () => session.newest(),
    },
    ACTS,
  );
  const rules = rulesView({ calls, act });
  return [
    headerView({ retry: follow.retry, place }),
    controlView({ change: (voting, change) => act(calls.changeVoting(voting, change), null) }),
    openerView({ calls, opened: () => toast("good", "The poll is open") }),
    insightsView(),
    overlayLinkView(place.session),
    rules,
    chat,
    composer,
    toastsView(),
    tabsView(chat),
  ];

  async function exclude({ userId, name }) {
    const chosen = await ask({
      title: `Time out or ban ${name}?`,
      text: "Timed-out viewers can read but not chat or vote. Banned viewers leave the session immediately.",
      choices: [
        { value: "60", label: "1 minute" },
        { value: "600", label: "10 minutes" },
        { value: "86400", label: "1 day" },
        { value: "ban", label: "Ban permanently", danger: true },
      ],
    });
    if (chosen === null) return;
    const seconds = chosen === "ban" ? null : Number(chosen);
    await act(calls.ban(userId, seconds), seconds === null ? `${name} is banned` : `${name} is timed out`);
    await rules.list();
  }

  /** Shows the result of a call as a notice. Resolves to whether it succeeded. */
  async function act(promise, done) {
    try {
      await promise;
      if (done !== null) toast("good", done);
      return true;
    } catch (error) {
      toast("warn", words(error));
      return false;
    }
  }

  function toast(tone, text) {
    follow.dispatch({ type: "toast", tone, text });
  }
}
