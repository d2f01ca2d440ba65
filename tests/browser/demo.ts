// Starts one `usher dev` for all tests: a real gateway with a real Postgres.

import type { TestProject } from "vitest/node";

import { type Demo, startDemo } from "../../client/tests/gateway.ts";

declare module "vitest" {
  interface ProvidedContext {
    demo: Omit<Demo, "stop">;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { stop, ...demo } = await startDemo();
  project.provide("demo", demo);
  return stop;
}
