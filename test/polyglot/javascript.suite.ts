import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { UNNAMED } from "../../client/reporters/events.ts";
import { nodeTestRunner } from "../../client/runners/node-test.ts";
import { vitestRunner } from "../../client/runners/vitest.ts";
import { pathOf, plainStatus, type RunnerRun, runRunner } from "../../client/testing/run-runner.ts";
import { parseTap } from "../../client/testing/tap.ts";
import { ensureReportersBuilt } from "../../scripts/build.mjs";
import { installPackages, projectOf } from "./javascript-packages.ts";

const report = join(tmpdir(), `toolplane-javascript-${process.pid}`);

/** Suites that well-known packages publish, and what the runners report of themselves in the same run. */
export function testJavaScriptSuites() {
  beforeAll(async () => {
    await installPackages();
    await ensureReportersBuilt();
  });
  afterAll(() => rm(report, { force: true }));

  it("runs the tests of Zod, and comes to what Vitest prints", async () => {
    const run = await runRunner(vitestRunner, {
      command: ["vitest", "run", "--reporter=json", `--outputFile=${report}`, "--maxWorkers=2"],
      directory: await projectOf("zod"),
      selection: { files: ["src/v3"] },
    });
    const own: VitestJson = JSON.parse(await readFile(report, "utf8"));
    const theirs = own.testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .map(({ ancestorTitles, title, status }) => {
        return `${[...ancestorTitles, title || UNNAMED].join(" > ")}: ${status}`;
      });

    expect(theirs.length).toBeGreaterThan(500);
    expect(linesOf(run)).toEqual(theirs.toSorted());
    expect(run.results.length).toBe(own.numTotalTests);
    expect(run.exitCode).toBe(0);
  });

  it("runs the tests of find-my-way, and comes to what Node prints", async () => {
    const run = await runRunner(nodeTestRunner, {
      command: [
        "node",
        "--test",
        "--test-reporter=tap",
        `--test-reporter-destination=${report}`,
        "test/**/*.test.js",
      ],
      directory: await projectOf("find-my-way"),
    });
    const own = parseTap(await readFile(report, "utf8"));

    expect(own.tests.length).toBeGreaterThan(500);
    expect(linesOf(run)).toEqual(own.tests.map(({ path, status }) => `${path}: ${status}`).toSorted());
    expect(run.results.length).toBe(own.totals["tests"]);
    expect(run.exitCode).toBe(0);
  });
}

function linesOf({ results }: RunnerRun): string[] {
  return results.map((result) => `${pathOf(result)}: ${plainStatus(result)}`).toSorted();
}

interface VitestJson {
  readonly numTotalTests: number;
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}
