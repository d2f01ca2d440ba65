// The shared part of the viewer's page and the studio: reads the session from the address, shows a card if the session
// cannot be shown, and updates the views after changes and as time passes.

import { followSession } from "./follow.js";
import { isSessionId, placeOf } from "./identity.js";
import { now as time } from "./now.js";
import { screenView } from "./view_screen.js";

const TICK_MS = 250;
const HISTORY = 100;

/**
 * Opens a page.
 * - `makeViews(follow, place)` returns the views. A view has some of `render(room)` (after a change), `tick(room, now)`
 *   (every 250 ms while the page is visible) and `pass(room, now)` (every 250 ms, even while it is hidden).
 * - `instead(room)` returns the page's own card to show in place of the session, or null.
 * - `welcome` is the {title, text} of the start screen.
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
