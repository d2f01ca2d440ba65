// What the pages for those who take part have in common: the address says which session, a card says what stands in the
// way of it, and every view draws when something has changed, and as time passes.

import { followSession } from "./follow.js";
import { isSessionId, placeOf } from "./identity.js";
import { now as time } from "./now.js";
import { screenView } from "./view_screen.js";

const TICK_MS = 250;
const HISTORY = 100;

/**
 * Opens a page. `makeViews(follow, place)` gives its views, each with some of `render(room)`, `tick(room, now)` as time
 * passes in sight, and `pass(room, now)` as it passes in sight or not. `instead(room)` gives a card of the page's own where
 * it has nothing to show; `welcome` is {title, text} where no session is named.
 */
export function openPage({ makeViews, instead, welcome }) {
  const place = placeOf(location.search, location.hash);
  const screen = screenView({ retry: () => follow?.retry(), go: (address) => location.assign(address), instead, welcome });
  let follow = null;
  let views = [];
  if (place.session && isSessionId(place.session)) begin();
  else screen.start(place.session !== null);
  window.addEventListener("hashchange", () => location.reload());

  function begin() {
    follow = followSession({ id: place.session, token: place.token, history: HISTORY, draw });
    views = [screen, ...makeViews(follow, place)];
    setInterval(tick, TICK_MS);
  }

  function draw(room) {
    for (const view of views) view.render?.(room);
    tick();
  }

  function tick() {
    const [room, now] = [follow.room(), time()];
    const isSeen = document.visibilityState === "visible";
    for (const view of views) {
      view.pass?.(room, now);
      if (isSeen) view.tick?.(room, now);
    }
  }
}
