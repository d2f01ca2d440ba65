// The overlay over a video: transparent, idle without changes, and reconnecting after an outage.

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { startGateway } from "../../client/tests/gateway.ts";
import { openDatabase } from "./database.ts";
import { eventually, openHouse } from "./house.ts";
import { seat, userOf } from "./viewer.ts";

const house = openHouse();
const { demo } = house;
const database = openDatabase(demo);
let gateway: Awaited<ReturnType<typeof startGateway>>;
let overlay: Page;

beforeAll(async () => {
  gateway = await startGateway(demo);
  const url = `${gateway.url}/overlay?session=${demo.session}#token=${demo.overlay_token}`;
  overlay = await house.open(url, { isCut: true, viewport: { width: 1920, height: 1080 } });
  await overlay.getByRole("list", { name: "Chat" }).getByRole("listitem").first().waitFor();
});
afterAll(() => gateway.stop());

test("the overlay is transparent around the chat and the poll", async () => {
  const png = await overlay.screenshot({ omitBackground: true });
  const blank = await house.open("about:blank");
  const { clear, drawn } = await blank.evaluate(async (data) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context?.drawImage(image, 0, 0);
    const pixels = context?.getImageData(0, 0, image.width, image.height).data ?? new Uint8ClampedArray();
    let clear = 0;
    for (let at = 3; at < pixels.length; at += 4) if (pixels[at] === 0) clear += 1;
    return { clear: (clear * 4) / pixels.length, drawn: pixels.length / 4 - clear };
  }, png.toString("base64"));
  expect(clear).toBeGreaterThan(0.5);
  expect(drawn).toBeGreaterThan(1000);
});

test("the overlay shows new messages as text, and new votes", async () => {
  await database.say("sol", "<b>hello</b> <script>document.title = 'run'</script> from sol");
  await overlay.getByText("<b>hello</b>").waitFor();
  expect(await overlay.title()).not.toBe("run");
  const votes = async () => {
    const total = await overlay.locator("#vote-note").textContent();
    return Number.parseInt(total ?? "", 10);
  };
  const before = await votes();
  const vote = (method: string) =>
    fetch(`${gateway.url}/v1/votings/${demo.voting}/vote`, {
      method,
      headers: { authorization: `Bearer ${userOf(demo, "sol").token}`, "content-type": "application/json" },
      ...(method === "PUT" && { body: JSON.stringify({ movie: demo.movies[0] }) }),
    });
  await vote("PUT");
  await eventually(votes).toBe(before + 1);
  await vote("DELETE");
  await eventually(votes).toBe(before);
});

test("the overlay hides messages that do not fit completely", async () => {
  const rows = overlay.getByRole("list", { name: "Chat" }).locator("li");
  const shown = () =>
    rows.evaluateAll((items) => {
      const top = items[0]?.parentElement?.getBoundingClientRect().top ?? 0;
      const seen = items.filter((item) => getComputedStyle(item).visibility === "visible");
      return { seen: seen.length, whole: seen.every((item) => item.getBoundingClientRect().top >= top - 1) };
    });
  const story = "and so on, ".repeat(40);
  for (let part = 1; part <= 8; part += 1) await database.say("lina", `a long story, part ${part}, ${story}`);
  await overlay.getByText("a long story, part 8").waitFor();
  expect(await rows.count()).toBe(8);
  const { seen, whole } = await shown();
  expect([seen > 0 && seen < 8, whole]).toEqual([true, true]);
  for (let part = 1; part <= 8; part += 1) await database.say("lina", `short ${part}`);
  await eventually(shown).toEqual({ seen: 8, whole: true });
});

test("the overlay does not draw without a change", async () => {
  const devtools = await overlay.context().newCDPSession(overlay);
  await devtools.send("Performance.enable");
  const work = async () => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    const [layouts, styles] = ["LayoutCount", "RecalcStyleCount"].map(
      (name) => metrics.find((metric) => metric.name === name)?.value ?? Number.NaN,
    );
    return { layouts, styles };
  };
  // Waits for running animations to end.
  await overlay.waitForTimeout(1500);
  const before = await work();
  await overlay.waitForTimeout(1500);
  expect(await work()).toEqual(before);
});

test("the overlay keeps its state during an outage and then shows the missed messages", async () => {
  await gateway.kill();
  await database.say("otto", "while the overlay was away");
  expect(await overlay.getByRole("list", { name: "Chat" }).getByRole("listitem").count()).toBeGreaterThan(0);
  expect(await overlay.getByRole("status").isVisible()).toBe(false);
  await gateway.start();
  await overlay.getByText("while the overlay was away").waitFor();
  expect(await overlay.getByText("while the overlay was away").count()).toBe(1);
});

test("the overlay says what to do about a missing session or an invalid token", async () => {
  const nowhere = await house.open(`${demo.url}/overlay`);
  await nowhere.getByText("has no session ID").waitFor();
  const stranger = await house.open(`${seat(demo, null).replace("/?", "/overlay?")}#token=not.a.token`);
  await stranger.getByText(/token of this overlay is not valid/).waitFor();
});
