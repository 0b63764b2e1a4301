import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UNNAMED } from "../../client/reporters/events.ts";
import { jestRunner } from "../../client/runners/jest.ts";
import { pathOf, plainStatus, type RunnerRun, runRunner, told } from "../../client/testing/run-runner.ts";
import { ensureReportersBuilt } from "../../scripts/build.mjs";
import { installPackages, jestCommand, projectOf } from "./javascript-packages.ts";
import { root } from "./tools.ts";

const report = join(tmpdir(), `toolplane-jest-${process.pid}.json`);

/** Real Jest, and what it reports of itself in the same run. */
export function testJest() {
  let directory: string;
  beforeAll(async () => {
    await installPackages();
    await ensureReportersBuilt();
    directory = await projectOf("jest", join(root, "test", "polyglot", "jest-project"));
  });
  afterAll(() => rm(report, { force: true }));

  const command = () => [jestCommand, "--ci", "--json", `--outputFile=${report}`, "--maxWorkers=2"];

  describe("a run of all tests", () => {
    let run: RunnerRun;
    beforeAll(async () => {
      run = await runRunner(jestRunner, { command: command(), directory });
    });

    const resultsOf = (name: string) => run.results.filter((result) => pathOf(result).endsWith(name));
    const statusOf = (name: string) => resultsOf(name).map(({ status }) => TestStatus[status]);

    it("has the status of each test that Jest reports itself, and comes to its totals", async () => {
      const own = await jestReport();
      // Jest forgets the tests of a process that died.
      const ours = told(run.results).filter(({ test }) => test?.file !== "crash.fixture.cjs");

      expect(own.tests.length).toBeGreaterThan(20);
      expect(linesOf(ours)).toEqual(own.tests);
      expect(totalsOf(ours)).toEqual(own.totals);
      expect(run.exitCode).toBe(1);
    });

    it("tells all that Jest knows of a test", () => {
      expect(statusOf("fails as it should")).toEqual(["EXPECTED_FAILURE"]);
      expect(statusOf("passes although it should not")).toEqual(["UNEXPECTED_PASS"]);
      expect(resultsOf("throws no error")[0]?.attempts[0]?.failures[0]?.message).toContain("only text");
      expect(run.results.find((result) => pathOf(result) === "fails")?.attempts).toMatchObject([
        {
          failures: [
            {
              message: expect.stringContaining("toEqual"),
              stack: expect.stringContaining("outcomes.fixture.cjs"),
              expected: '{"a":2}',
              actual: '{"a":1}',
            },
          ],
        },
      ]);
    });

    it("tells tests of one name apart by the order of their definition", () => {
      expect(resultsOf("twice").map(({ test, status }) => [test?.occurrence, TestStatus[status]])).toEqual([
        [0, "PASSED"],
        [1, "FAILED"],
      ]);
    });

    it("tells every attempt", () => {
      const attempts = (name: string) =>
        resultsOf(name).map((result) => result.attempts.map(({ status }) => TestStatus[status]));

      expect(attempts("passes at last")).toEqual([["FAILED", "FAILED", "PASSED"]]);
      expect(attempts("fails however often")).toEqual([["FAILED", "FAILED", "FAILED"]]);
      expect(attempts("of one name")).toEqual([
        [],
        ["FAILED", "FAILED", "FAILED"],
        ["FAILED", "FAILED", "FAILED"],
      ]);
    });

    it("names what failed outside of tests", () => {
      const failures = Object.fromEntries(
        run.events.flatMap(({ kind }) =>
          kind.case === "fileEnded"
            ? [[kind.value.file, kind.value.failures.map(({ message }) => message).join("\n")]]
            : [],
        ),
      );
      expect(failures["outcomes.fixture.cjs"]).toContain("no tear-down");
      expect(failures["load-error.fixture.cjs"]).toContain("this file cannot be loaded");
      expect(failures["crash.fixture.cjs"]).toContain("SIGKILL");
      expect(failures["passes.fixture.cjs"]).toBe("");
    });

    it("says of a process that died what it ran", () => {
      expect(statusOf("passes before")).toEqual(["PASSED"]);
      expect(statusOf("kills its process")).toEqual(["INTERRUPTED"]);
    });
  });

  it("leaves what was reported when Jest itself is killed", async () => {
    const run = await runRunner(jestRunner, {
      command: [jestCommand, "--runInBand"],
      directory,
      selection: { files: ["crash.fixture.cjs"] },
    });

    expect(run.signal).toBe("SIGKILL");
    expect(run.results.map((result) => [pathOf(result), TestStatus[result.status]])).toEqual([
      ["passes before", "PASSED"],
    ]);
    expect(
      run.events.flatMap(({ kind }) => (kind.case === "testStarted" ? [kind.value.test?.name] : [])),
    ).toEqual(["passes before", "kills its process"]);
  });

  describe("a selection", () => {
    const run = async (selection: Parameters<typeof runRunner>[1]["selection"], coverage = false) => {
      const ran = await runRunner(jestRunner, {
        command: [jestCommand],
        directory,
        coverage,
        ...(selection && { selection }),
      });
      return { ...ran, results: ran.results.filter(({ status }) => status !== TestStatus.SKIPPED) };
    };

    it("takes files, and measures coverage where that is asked for", async () => {
      const { results, coverage } = await run({ files: ["passes.fixture.cjs"] }, true);
      expect(results.map(({ test }) => test?.file)).toEqual(["passes.fixture.cjs"]);
      expect(coverage).toHaveLength(1);
    });

    it("takes a pattern of names", async () => {
      const { results } = await run({ files: ["outcomes.fixture.cjs"], namePattern: "^is odd" });
      expect(results.map(pathOf)).toEqual(["is odd: 1", "is odd: 2", "is odd: 3"]);
    });

    it("takes single tests, whatever they are called", async () => {
      const { results: all } = await run({ files: ["outcomes.fixture.cjs"] });
      const wanted = all.filter((result) => /inside \(|^is odd: 2$/.test(pathOf(result)));
      const { results } = await run({ tests: wanted.flatMap(({ test }) => (test ? [test] : [])) });

      expect(wanted).toHaveLength(3);
      expect(results.map(pathOf)).toEqual(wanted.map(pathOf));
    });
  });

  it("runs the tests of Zod, and comes to what Jest prints", async () => {
    const config = {
      rootDir: await projectOf("zod"),
      testMatch: ["**/src/v3/tests/*.test.ts"],
      transform: { "\\.ts$": join(root, "test", "polyglot", "jest-project", "transform-typescript.cjs") },
      moduleNameMapper: { "^(\\.{1,2}/.*)\\.js$": "$1" },
    };
    const run = await runRunner(jestRunner, {
      command: [...command(), `--config=${JSON.stringify(config)}`],
      directory: config.rootDir,
    });
    const own = await jestReport();

    expect(own.tests.length).toBeGreaterThan(500);
    expect(linesOf(run.results)).toEqual(own.tests);
    expect(totalsOf(run.results)).toEqual(own.totals);
    expect(run.exitCode).toBe(0);
  });

  it("runs the tests for Jest of process-warning", async () => {
    const run = await runRunner(jestRunner, {
      command: [...command(), "jest.test.js"],
      directory: await projectOf("process-warning"),
    });
    expect(linesOf(run.results)).toEqual((await jestReport()).tests);
    expect(run.exitCode).toBe(0);
  });
}

function linesOf(results: RunnerRun["results"]): string[] {
  return results.map((result) => `${pathOf(result)}: ${plainStatus(result)}`).toSorted();
}

function totalsOf(results: RunnerRun["results"]) {
  const count = (status: string) => results.filter((result) => plainStatus(result) === status).length;
  return {
    total: results.length,
    passed: count("passed"),
    failed: count("failed"),
    skipped: count("skipped"),
    todo: count("todo"),
  };
}

interface JestJson {
  readonly numTotalTests: number;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}

async function jestReport() {
  const json: JestJson = JSON.parse(await readFile(report, "utf8"));
  const tests = json.testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .map(({ ancestorTitles, title, status }) => {
      const name = [...ancestorTitles, title || UNNAMED].join(" > ");
      return `${name}: ${status === "pending" ? "skipped" : status}`;
    });
  return {
    tests: tests.toSorted(),
    totals: {
      total: json.numTotalTests,
      passed: json.numPassedTests,
      failed: json.numFailedTests,
      skipped: json.numPendingTests,
      todo: json.numTodoTests,
    },
  };
}
