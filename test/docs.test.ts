import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "..");
const node = join(root, "node_modules/.bin/node");

/** Pages whose programs are whole. Those that say what they print, in lines with an arrow, are run. */
const pages = ["docs/policies.md", "framework/README.md"];

/** The programs of a page: the heading above each, and its file, which a line right above it may name. */
function programs(page: string): { heading: string; file: string; source: string }[] {
  const text = readFileSync(join(root, page), "utf8");
  return text.split(/^#+ /m).flatMap((section, index) => {
    const [heading = ""] = section.split("\n");
    return [...section.matchAll(/(?:^`([^`\n]+)`:\n\n)?^```ts\n(.*?)^```$/gms)].map(
      ([, file = `program-${index}.ts`, source = ""]) => ({ heading, file, source }),
    );
  });
}

/** What a program says that it prints. */
function promised(source: string): string[] {
  return [...source.matchAll(/\/\/ → (.*)$/gm)].map(([, line = ""]) => line);
}

describe.each(pages)("%s", (page) => {
  const all = programs(page);
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "toolplane-docs-"));
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    for (const name of ["gen", "text-service.ts", "readability.ts"]) {
      await symlink(join(root, "examples/typescript", name), join(folder, name));
    }
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    const compilerOptions = { noEmit: true, types: ["node"], typeRoots: ["node_modules/@types"] };
    await writeFile(
      join(folder, "tsconfig.json"),
      JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, include: ["*.ts"] }),
    );
    await Promise.all(all.map(({ file, source }) => writeFile(join(folder, file), source)));
  });

  afterAll(() => rm(folder, { recursive: true }));

  it.each(all.filter(({ source }) => promised(source).length > 0))(
    "runs the program of $heading and prints what it says",
    async ({ file, source }) => {
      const { stdout, stderr } = await promisify(execFile)(node, ["--conditions=toolplane-source", file], {
        cwd: folder,
        timeout: 60_000,
      });

      expect(stderr).toBe("");
      expect(stdout.trimEnd().split("\n")).toEqual(promised(source));
    },
  );

  it("has programs that the compiler accepts", async () => {
    const compiled = await promisify(execFile)(join(root, "node_modules/.bin/tsc"), ["--project", folder], {
      cwd: folder,
    }).catch((error: { stdout: string }) => error);

    expect(compiled.stdout).toBe("");
  });
});

/** Where the options of each policy are declared. */
const optionsOf: Record<string, readonly string[]> = {
  "Rate limit": ["rate-limit/rate-limiter.ts", "rate-limit/gcra.ts"],
  "Shared limits": ["rate-limit/shared-limit-set.ts", "rate-limit/store-health.ts"],
  "Adaptive rate": ["rate-limit/adaptive-rate.ts"],
  "Adaptive concurrency": ["concurrency/adaptive-concurrency.ts"],
  "Fixed concurrency": ["concurrency/fixed-concurrency.ts"],
  "Circuit breaker": ["breaker/options.ts", "breaker/breaker-set.ts"],
  "Outlier ejection": ["outlier/options.ts"],
  Retry: ["retry/retrier.ts", "retry/retry-budget.ts"],
  Hedging: ["hedge/hedger.ts"],
  Coalescer: ["coalesce/coalescer.ts"],
  Idempotency: ["idempotency/idempotency.ts"],
  "Response cache": ["cache/response-cache.ts"],
  Batcher: ["batch/batcher.ts"],
};

/** What all policies have, what is no default of a policy's own, and what only names it. */
const common = [
  "clock",
  "random",
  "onEvent",
  "name",
  "durable",
  "defaults",
  "optionsFor",
  "budget",
  "sizeOf",
];

describe.each(Object.entries(optionsOf))("docs/policies.md, %s", (heading, files) => {
  const page = readFileSync(join(root, "docs/policies.md"), "utf8");
  const section = page.split(/^## /m).find((each) => each.startsWith(`${heading}\n`)) ?? "";
  const told = new Map(
    [...section.matchAll(/^\| (`.+?)(?: \(of .*?\))? \| (.*?) \|/gm)].flatMap(
      ([, options = "", defaults = ""]) => {
        const values = defaults.split(", ");
        return options.split(", ").map((option, i) => [option.replaceAll("`", ""), values[i] ?? ""] as const);
      },
    ),
  );
  const source = files.map((file) => readFileSync(join(root, "framework/policies", file), "utf8")).join("\n");

  it("tells every option", () => {
    const options = [...source.matchAll(/^export interface (?!Call|Wait)\w*Options\b.*?\{$(.*?)^\}$/gms)]
      .flatMap(([, body = ""]) => [...body.matchAll(/^ {2}readonly (\w+)\?:/gm)])
      .map(([, option = ""]) => option)
      .filter((option) => !common.includes(option));

    expect(options.filter((option) => !told.has(option))).toEqual([]);
  });

  it("tells the defaults that the code has", () => {
    for (const [option, value] of told) {
      if (/^[\d,.]+$/.test(value)) {
        expect([option, defaultsIn(source, option)]).toEqual([
          option,
          expect.arrayContaining([Number(value.replaceAll(",", ""))]),
        ]);
      }
    }
  });
});

/** The numbers that stand in for an option that is not given: `option = 5`, `option ?? 5`, `option: 5`, or a constant. */
function defaultsIn(source: string, option: string): number[] {
  const uses = source.matchAll(
    new RegExp(`\\b${option}(?:: \\w+)?(?: =| \\?\\?|:) (?:Math\\.m\\w+\\()?([\\dA-Z][\\w. *]*)`, "g"),
  );
  return [...uses].map(([, expression = ""]) => {
    const [, constant] =
      new RegExp(`^(?:export )?const ${expression} = ([\\w. *]+);`, "m").exec(source) ?? [];
    const factors = (constant ?? expression).replaceAll("_", "").split("*");
    return factors.reduce((product, factor) => product * Number(factor), 1);
  });
}
