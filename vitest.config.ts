import { configDefaults, defineConfig } from "vitest/config";

// Workspace packages are tested from their sources, through the same export condition that the compiler uses.
const conditions = ["toolplane-source", "node", "import", "module", "default"];

const common = {
  resolve: { conditions },
  // Node adds its own conditions for what is not transformed; with "import" here, `require` would get modules.
  ssr: { resolve: { conditions: ["toolplane-source"], externalConditions: ["toolplane-source"] } },
};

// How long a condition may take to hold. It bounds a failure, it measures nothing: on a busy machine a process
// starts in seconds, so the default of 1 s would fail tests of code that is right.
const waiting = { poll: { timeout: 20_000 } };

export default defineConfig({
  test: {
    // Each file starts real servers, some a database: more at once than cores only makes all of them slower.
    maxWorkers: 2,
    reporters: [
      "default",
      ["json", { outputFile: `.test-results/${process.env["npm_lifecycle_event"] ?? "vitest"}.json` }],
    ],
    projects: [
      {
        ...common,
        test: {
          name: "unit",
          include: ["{framework,client,server}/**/*.test.ts", "test/*.test.ts"],
          // Filling a disk takes a file system of its own, which only root may mount.
          exclude: [
            ...configDefaults.exclude,
            "**/dist/**",
            ...(process.getuid?.() === 0 ? [] : ["**/full-disk.test.ts"]),
          ],
          expect: waiting,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        ...common,
        test: {
          name: "polyglot",
          include: ["test/polyglot/*.test.ts"],
          expect: waiting,
          testTimeout: 120_000,
          hookTimeout: 300_000,
        },
      },
      {
        ...common,
        test: {
          name: "redis",
          include: ["test/redis/*.test.ts"],
          expect: waiting,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        ...common,
        test: {
          name: "browser",
          include: ["test/browser/*.test.ts"],
          expect: waiting,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
