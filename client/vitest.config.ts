import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const packages = fileURLToPath(new URL("node_modules/", import.meta.url));
const TESTING_LIBRARY = "@testing-library/react";

export default defineConfig({
  test: {
    // The gateway of the integration tests takes its time where many builds share two cores.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["default"],
    projects: [
      { extends: true, test: { name: "client", include: ["tests/**/*.test.ts"] } },
      {
        // The hooks once more, with the oldest React that they are for.
        extends: true,
        resolve: {
          alias: [
            { find: /^(react|react-dom)(?=\/|$)/, replacement: `${packages}react-18/node_modules/$1` },
            // Its CommonJS would find the other React by itself.
            { find: TESTING_LIBRARY, replacement: `${packages}${TESTING_LIBRARY}/dist/${TESTING_LIBRARY}.esm.js` },
          ],
        },
        test: {
          name: "react 18",
          include: ["tests/react.test.ts", "tests/server.test.ts"],
          // They import React themselves.
          server: { deps: { inline: [/@testing-library/, /@tanstack/] } },
        },
      },
    ],
  },
});
