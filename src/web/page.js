// What the pages for those who take part have in common: the address says which session, a card says what stands in the
// way of it, and every view draws when something has changed, and as time passes.

import { followSession } from "./follow.js";
import { isSessionId, placeOf } from "./identity.js";
import { screenView } from "./view_screen.js";

const TICK_MS = 250;
const HISTORY = 100;

/**
 * Opens a page. `makeViews(follow, place)` gives its views, each with `render(room)` or `tick(room, now)` or both;
 * `instead(room)` a card of its own where it has nothing to show.
 */
export function openPage({ makeViews, instead }) {
  const place = placeOf(location.search, location.hash);
  const screen = screenView({ retry: () => follow?.retry(), go: (address) => location.assign(address), instead });
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
    if (document.visibilityState === "visible") for (const view of views) view.tick?.(follow.room(), Date.now());
  }
}
