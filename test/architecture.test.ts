import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");

/** What each package may import. Tests and benchmarks may look into anything. */
const packages: Record<string, readonly string[]> = {
  framework: ["gen"],
  client: ["gen", "framework"],
  server: ["gen", "framework", "client"],
};

/** What each folder of the framework may import. Policies know nothing of RPC, and interceptors nothing of `serve()`. */
const layers: Record<string, readonly string[]> = {
  policies: ["clock.ts"],
  errors: ["logging.ts"],
  interceptors: ["policies", "access", "errors", "clock.ts", "logging.ts"],
  access: ["interceptors", "errors", "clock.ts", "logging.ts"],
  serving: ["interceptors", "errors", "clock.ts", "logging.ts"],
};

/** What each folder of the server may import; those of its parent, `server/*.ts`, put the parts together. */
const domains: Record<string, readonly string[]> = {
  schema: [],
  config: ["schema"],
  pool: [],
  backends: ["schema", "pool", "config"],
  storage: [],
  registry: ["backends", "schema", "pool", "storage", "config"],
  tools: ["registry/registry.ts", "backends", "config"],
  "event-log": ["storage"],
  "event-streams": ["event-log/event-log.ts", "storage/announcements.ts"],
  "test-runs": ["event-log/event-log.ts", "event-streams", "storage", "config", "idempotency"],
  orchestration: [
    "event-log/event-log.ts",
    "event-streams",
    "registry/registry.ts",
    "tools/caller.ts",
    "tools/result.ts",
    "tools/streaming.ts",
    "backends/invocation.ts",
    "schema",
    "storage",
    "config",
  ],
  idempotency: ["storage/database.ts"],
  cache: ["storage", "config"],
  access: ["storage", "config"],
  admin: ["config/durations.ts"],
};

/** Neither a domain nor a part of one. */
const shared = [
  "error-code.ts",
  "fingerprint.ts",
  "ownership.ts",
  "page-token.ts",
  "timeout.ts",
  "version.ts",
];

interface Import {
  readonly from: string;
  readonly to: string;
}

/** The imports of values and types by the files of a folder, tests left out. */
function importsOf(folder: string): Import[] {
  return globSync("**/*.ts", { cwd: join(root, folder), exclude: ["dist/**", "node_modules/**"] })
    .filter(
      (file) => !/\.test\.ts$|(^|\/)(test-support|testing)|testing[^/]*\.ts$|silent-logger\.ts$/.test(file),
    )
    .flatMap((file) => {
      const text = readFileSync(join(root, folder, file), "utf8");
      return [...text.matchAll(/^(?:import|export) [^;]*?from "([^"]+)";/gms)].map(([, to = ""]) => ({
        from: join(folder, file),
        to,
      }));
    });
}

test.each(Object.entries(packages))("%s imports no package that stands above it", (name, allowed) => {
  const forbidden = importsOf(name).filter(({ from, to }) => {
    if (to.startsWith(".")) {
      return relative(join(root, name), resolve(root, dirname(from), to)).startsWith("..");
    }
    const [, other] = /^@toolplane\/([a-z]+)/.exec(to) ?? [];
    return other !== undefined && !allowed.includes(other);
  });
  expect(forbidden).toEqual([]);
});

test.each(Object.entries(layers))("framework/%s imports only what it stands on", (name, allowed) => {
  const forbidden = importsOf(join("framework", name)).filter(({ from, to }) => {
    const target = to.startsWith(".")
      ? relative(join(root, "framework"), resolve(root, dirname(from), to))
      : undefined;
    return (
      target !== undefined &&
      ![name, ...allowed].some((each) => target === each || target.startsWith(`${each}/`))
    );
  });
  expect(forbidden).toEqual([]);
});

test("policies know nothing of RPC", () => {
  const forbidden = importsOf("framework/policies").filter(({ to }) =>
    /^@(connectrpc|toolplane|bufbuild)\//.test(to),
  );
  expect(forbidden).toEqual([]);
});

test.each(Object.entries(domains))("server/%s imports only what it stands on", (name, allowed) => {
  const forbidden = importsOf(join("server", name)).filter(({ from, to }) => {
    const target = to.startsWith(".")
      ? relative(join(root, "server"), resolve(root, dirname(from), to))
      : undefined;
    // The tables of all domains are one type, and each domain describes its own.
    const describesTables = from === "server/storage/tables.ts" && /^[a-z-]+\/tables\.ts$/.test(target ?? "");
    return (
      target !== undefined &&
      !describesTables &&
      ![name, ...allowed].some((each) => target === each || target.startsWith(`${each}/`)) &&
      !shared.includes(target)
    );
  });
  expect(forbidden).toEqual([]);
});

test("the libraries of models are loaded with the first turn only", () => {
  const values = globSync("**/*.ts", {
    cwd: join(root, "server"),
    exclude: ["dist/**", "**/*.test.ts"],
  }).filter((file) =>
    /^import (?!type )[^;]*?from "(ai|@ai-sdk\/[^"]+|[^"]*\/protocols\.ts)";/m.test(
      readFileSync(join(root, "server", file), "utf8"),
    ),
  );
  expect(values).toEqual(["orchestration/models/protocols.ts"]);
});
