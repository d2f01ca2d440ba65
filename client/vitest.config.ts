import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const packages = fileURLToPath(new URL("node_modules/", import.meta.url));
const TESTING_LIBRARY = "@testing-library/react";

export default defineConfig({
  test: {
    // The integration tests start gateways, which is slow on a machine that builds at the same time.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["default"],
    projects: [
      { extends: true, test: { name: "client", include: ["tests/**/*.test.ts"] } },
      {
        // Runs the hooks again with the oldest supported React.
        extends: true,
        resolve: {
          alias: [
            { find: /^(react|react-dom)(?=\/|$)/, replacement: `${packages}react-18/node_modules/$1` },
            // The CommonJS build would load the other React.
            { find: TESTING_LIBRARY, replacement: `${packages}${TESTING_LIBRARY}/dist/${TESTING_LIBRARY}.esm.js` },
          ],
        },
        test: {
          name: "react 18",
          include: ["tests/react.test.ts", "tests/server.test.ts"],
          // These packages import React, so the aliases must apply to them.
          server: { deps: { inline: [/@testing-library/, /@tanstack/] } },
        },
      },
    ],
  },
});
