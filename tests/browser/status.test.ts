// The operator's status page during an outage.

import { afterAll, beforeAll, expect, test } from "vitest";

import { startGateway } from "../../client/tests/gateway.ts";
import { eventually, openHouse } from "./house.ts";
import { seat, Viewer } from "./viewer.ts";

const house = openHouse();
const { demo } = house;
let gateway: Awaited<ReturnType<typeof startGateway>>;

beforeAll(async () => {
  gateway = await startGateway(demo);
});
afterAll(() => gateway.stop());

test("the status page shows checks and connections, and reports an outage and its end", async () => {
  const page = await house.open(`${gateway.url}/status`, { isCut: true });
  await page.getByText("Up to date").waitFor();
  for (const check of ["Database", "Schema", "LISTEN"]) await page.getByRole("listitem").getByText(check).waitFor();
  expect(await page.locator("#checks [data-state=bad]").count()).toBe(0);
  const connections = page.getByRole("figure", { name: /^Connections/ });
  await eventually(() => connections.locator("strong").textContent()).toBe("0");
  await new Viewer(await house.open(seat(demo, "ayla", gateway.url), { isCut: true })).isConnected();
  await eventually(() => connections.locator("strong").textContent()).toBe("1");

  await gateway.kill();
  await page.getByRole("alert").getByText("The gateway does not answer").waitFor();
  await gateway.start();
  await page.getByText("Up to date").waitFor();
  await eventually(() => page.getByRole("alert").isVisible()).toBe(false);
  // The plot has two lines with a gap for the outage.
  await eventually(() => connections.locator(".plot-line").getAttribute("d")).toMatch(/^M[^M]+M[^M]+$/);
});
