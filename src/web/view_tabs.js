// Switches between the chat and the poll on a phone. Shows the number of unread messages on the chat tab.

import { byId, setAttribute, setShown, setText } from "./dom.js";
import { shortCount } from "./format.js";
import { linkPhase } from "./room.js";

/** Creates the two tabs. */
export function tabsView(chat) {
  let seen = 0;
  byId("tab-vote").addEventListener("click", () => showTab("vote"));
  byId("tab-chat").addEventListener("click", () => {
    showTab("chat");
    chat.stick();
  });
  return { render };

  function render(room) {
    const isHere = document.body.dataset.tab === "chat";
    const { arrived } = room.session.chat;
    if (isHere || linkPhase(room) !== "live") seen = arrived;
    const fresh = arrived - seen;
    setShown(byId("tab-chat-new"), fresh > 0);
    setText(byId("tab-chat-new"), fresh > 0 ? shortCount(fresh) : "");
  }
}

/** Shows one tab: `chat` or `vote`. */
export function showTab(name) {
  document.body.dataset.tab = name;
  setAttribute(byId("tab-chat"), "aria-pressed", String(name === "chat"));
  setAttribute(byId("tab-vote"), "aria-pressed", String(name === "vote"));
}
