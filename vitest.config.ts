import { defineConfig } from "vitest/config";

// Workspace packages are tested from their sources, through the same export condition that the compiler uses.
const conditions = ["toolplane-source", "node", "import", "module", "default"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    include: ["{framework,client,server,test}/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
  },
});
