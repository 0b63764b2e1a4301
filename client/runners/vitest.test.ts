import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureReportersBuilt } from "../../scripts/build.mjs";
import { pathOf, plainStatus, type RunnerRun, runRunner, told } from "../testing/run-runner.ts";
import { vitestRunner } from "./vitest.ts";

const directory = fileURLToPath(new URL("./fixtures/vitest", import.meta.url));
const report = join(tmpdir(), `toolplane-vitest-${process.pid}.json`);

beforeAll(ensureReportersBuilt);
afterAll(async () => {
  await rm(report, { force: true });
  // Vite keeps a cache beside the configuration.
  await rm(join(directory, "node_modules"), { recursive: true, force: true });
});

describe("a run of all tests", () => {
  let run: RunnerRun;
  beforeAll(async () => {
    run = await runRunner(vitestRunner, {
      command: ["vitest", "run", "--reporter=json", `--outputFile.json=${report}`, "--reporter=default"],
      directory,
    });
  });

  const resultsOf = (name: string) => run.results.filter((result) => pathOf(result).endsWith(name));
  const statusOf = (name: string) => resultsOf(name).map(({ status }) => TestStatus[status]);

  it("has the status of each test that Vitest reports itself", async () => {
    const own: VitestReport = JSON.parse(await readFile(report, "utf8"));
    const theirs = own.testResults
      .filter(({ name }) => !name.endsWith("crash.fixture.mjs"))
      .flatMap(({ assertionResults }) => assertionResults)
      .map(({ ancestorTitles, title, status }) => `${[...ancestorTitles, title].join(" > ")}: ${status}`);
    const ours = told(run.results)
      .filter(({ test }) => test?.file !== "crash.fixture.mjs")
      .map((result) => `${pathOf(result)}: ${plainStatus(result)}`);

    expect(theirs.length).toBeGreaterThan(25);
    expect(ours.toSorted()).toEqual(theirs.toSorted());
  });

  it("comes to the totals that Vitest prints", () => {
    const count = (status: string) => told(run.results).filter((one) => plainStatus(one) === status).length;
    const expected = run.results.filter(({ status }) => status === TestStatus.EXPECTED_FAILURE).length;

    expect(stripped(run.stdout)).toContain(
      `Tests  ${count("failed")} failed | ${count("passed") - expected} passed | ${expected} expected fail | ` +
        `${count("skipped")} skipped | ${count("todo")} todo (${run.results.length})`,
    );
    expect(run.exitCode).toBe(1);
  });

  it("tells all that Vitest knows of a test", () => {
    expect(statusOf("fails as it should")).toEqual(["EXPECTED_FAILURE"]);
    expect(statusOf("passes although it should not")).toEqual(["UNEXPECTED_PASS"]);
    expect(resultsOf("skips itself")).toMatchObject([{ message: "there is no network" }]);
    expect(resultsOf("has a tag")).toMatchObject([{ tags: ["quick"] }]);
    expect(resultsOf("throws no error")[0]?.attempts[0]?.failures).toMatchObject([{ message: "only text" }]);
    expect(run.results.find((result) => pathOf(result) === "fails")?.attempts).toMatchObject([
      {
        failures: [
          {
            message: expect.stringContaining("expected { a: 1 } to deeply equal { a: 2 }"),
            type: "AssertionError",
            stack: expect.stringContaining("outcomes.fixture.mjs"),
            expected: expect.stringContaining('"a": 2'),
            actual: expect.stringContaining('"a": 1'),
          },
        ],
      },
    ]);
    expect(run.events.flatMap(({ kind }) => (kind.case === "output" ? [kind.value] : []))).toMatchObject([
      { text: "to standard output\n", stderr: false, test: { name: "writes" } },
      { text: "to standard error\n", stderr: true, test: { name: "writes" } },
    ]);
  });

  it("tells tests of one name apart by the order of their definition", () => {
    expect(resultsOf("twice").map(({ test, status }) => [test?.occurrence, TestStatus[status]])).toEqual([
      [0, "PASSED"],
      [1, "FAILED"],
    ]);
  });

  it("tells every attempt", () => {
    const [result] = resultsOf("passes when tried again");
    const ended = run.events.flatMap(({ kind }) =>
      kind.case === "attemptEnded" && kind.value.test?.name === "passes when tried again" ? [kind.value] : [],
    );

    expect(result?.attempts.map(({ status }) => TestStatus[status])).toEqual(["FAILED", "FAILED", "PASSED"]);
    expect(ended.map(({ attempt }) => attempt)).toEqual([1, 2]);
    expect(resultsOf("is repeated")[0]?.attempts).toHaveLength(3);
  });

  it("names what failed outside of tests", () => {
    const failures = Object.fromEntries(
      run.events.flatMap(({ kind }) =>
        kind.case === "fileEnded"
          ? [[kind.value.file, kind.value.failures.map(({ message }) => message)]]
          : [],
      ),
    );
    const problems = run.events.flatMap(({ kind }) => (kind.case === "problem" ? [kind.value.message] : []));

    expect(failures).toMatchObject({
      "outcomes.fixture.mjs": ["no set-up", "no tear-down"],
      "load-error.fixture.mjs": ["this file cannot be loaded"],
      "unhandled.fixture.mjs": [],
    });
    expect(problems.join("\n")).toContain("nobody waits for me");
    expect(problems.join("\n")).toContain("signal SIGKILL");
  });

  it("says of a worker that died what it ran and what it did not come to", () => {
    expect(statusOf("passes before")).toEqual(["PASSED"]);
    expect(statusOf("kills its process")).toEqual(["INTERRUPTED"]);
    expect(statusOf("never begins")).toEqual(["NOT_RUN"]);
  });

  it("announces every test before it begins", () => {
    const known = new Set<string>();
    for (const { kind } of run.events) {
      if (kind.case === "testsFound") {
        for (const test of kind.value.tests) {
          known.add(JSON.stringify(test));
        }
      } else if (kind.case === "testStarted" || kind.case === "testEnded") {
        expect(known).toContain(JSON.stringify(kind.value.test));
      }
    }
    expect(known.size).toBe(run.results.length);
  });
});

it("leaves what was reported when the runner itself is killed", async () => {
  const run = await runRunner(vitestRunner, {
    command: ["vitest", "run"],
    directory,
    selection: { files: ["crash.fixture.mjs"] },
    env: { CRASH: "runner" },
  });
  const started = run.events.flatMap(({ kind }) =>
    kind.case === "testStarted" ? [kind.value.test?.name] : [],
  );

  expect(run.signal).toBe("SIGKILL");
  expect(run.results.map((result) => [pathOf(result), TestStatus[result.status]])).toEqual([
    ["passes before", "PASSED"],
  ]);
  expect(started).toEqual(["passes before", "kills its process"]);
});

describe("a selection", () => {
  const run = async (selection: Parameters<typeof runRunner>[1]["selection"]) => {
    const { results } = await runRunner(vitestRunner, {
      command: ["vitest", "run"],
      directory,
      ...(selection && { selection: { files: ["outcomes.fixture.mjs"], ...selection } }),
    });
    return results.filter(({ status }) => status !== TestStatus.SKIPPED && status !== TestStatus.TODO);
  };

  it("takes files", async () => {
    const results = await run({ files: ["unhandled.fixture.mjs"] });
    expect(results.map(pathOf)).toEqual(["leaves a rejection behind"]);
  });

  it("takes a pattern of names", async () => {
    expect((await run({ namePattern: "^is odd" })).map(pathOf)).toEqual([
      "is odd: 1",
      "is odd: 2",
      "is odd: 3",
    ]);
  });

  it("takes tags", async () => {
    expect((await run({ tags: ["quick", "thorough"] })).map(pathOf)).toEqual(["has a tag"]);
  });

  it("takes single tests, whatever they are called", async () => {
    const all = await run({});
    const wanted = all.filter((result) => /inside|^is odd: 2$/.test(pathOf(result)));
    const tests = wanted.flatMap(({ test }) => (test ? [test] : []));

    expect(wanted).toHaveLength(3);
    expect((await run({ files: [], tests })).map(pathOf)).toEqual(wanted.map(pathOf));
  });

  it("refuses tags that are expressions", async () => {
    await expect(run({ tags: ["quick || slow"] })).rejects.toMatchObject({ field: "tags" });
  });
});

describe("a command", () => {
  const plan = {
    directory,
    selection: { files: [], namePattern: "", tags: [], tests: [] },
    coverage: false,
    workFolder: "/tmp/work",
    spoolFile: "/tmp/work/events",
    env: {},
  };

  it("is recognised by what it starts", () => {
    const recognised = [
      ["vitest"],
      ["npx", "vitest", "run"],
      ["pnpm", "exec", "vitest"],
      ["node", "node_modules/vitest/vitest.mjs", "run"],
      ["./node_modules/.bin/vitest"],
    ];
    expect(recognised.filter((command) => !vitestRunner.recognises(command))).toEqual([]);
    expect(vitestRunner.recognises(["npm", "test"])).toBe(false);
    expect(vitestRunner.recognises(["rm", "-r", "vitest"])).toBe(false);
  });

  it("may be a script of package.json", async () => {
    const { argv } = await vitestRunner.prepare({ ...plan, command: ["npm", "test"] });
    expect(argv.slice(0, 5)).toEqual(["npm", "test", "--", "--run", "--reporter=default"]);
  });

  it("must start Vitest", async () => {
    await expect(vitestRunner.prepare({ ...plan, command: ["make", "test"] })).rejects.toMatchObject({
      field: "command",
    });
  });

  it("never takes what is selected for an option", async () => {
    const { argv } = await vitestRunner.prepare({
      ...plan,
      command: ["vitest"],
      selection: { ...plan.selection, files: ["--globals"], namePattern: "--update" },
    });
    expect(argv).toContain(join(directory, "--globals"));
    expect(argv).toContain("--testNamePattern=--update");
  });

  it("cannot measure coverage without a provider", async () => {
    await expect(
      vitestRunner.prepare({ ...plan, command: ["vitest"], coverage: true }),
    ).rejects.toMatchObject({ field: "coverage" });
  });
});

interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}

function stripped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
  return text.replaceAll(/\u001b\[[\d;]*m/g, "");
}
