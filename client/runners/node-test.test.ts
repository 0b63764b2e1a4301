import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureReportersBuilt } from "../../scripts/build.mjs";
import { pathOf, plainStatus, type RunnerRun, runRunner, told } from "../testing/run-runner.ts";
import { parseTap } from "../testing/tap.ts";
import { nodeTestRunner } from "./node-test.ts";

const directory = fileURLToPath(new URL("./fixtures/node-test", import.meta.url));
const report = join(tmpdir(), `toolplane-node-test-${process.pid}.tap`);

beforeAll(ensureReportersBuilt);
afterAll(() => rm(report, { force: true }));

describe("a run of all tests", () => {
  let run: RunnerRun;
  let own: ReturnType<typeof parseTap>;
  beforeAll(async () => {
    run = await runRunner(nodeTestRunner, {
      command: [
        "node",
        "--test",
        "--test-reporter=tap",
        `--test-reporter-destination=${report}`,
        "*.fixture.mjs",
      ],
      directory,
    });
    own = parseTap(await readFile(report, "utf8"));
  });

  const resultsOf = (name: string) => run.results.filter((result) => pathOf(result).endsWith(name));
  const statusOf = (name: string) => resultsOf(name).map(({ status }) => TestStatus[status]);

  it("has the status of each test that Node prints", () => {
    const theirs = own.tests.map(({ path, status }) => `${path}: ${status}`);
    const ours = told(run.results).map((result) => `${pathOf(result)}: ${plainStatus(result)}`);

    expect(theirs.length).toBeGreaterThan(35);
    expect(ours.toSorted()).toEqual(theirs.toSorted());
  });

  it("comes to the totals that Node prints", () => {
    const results = told(run.results);
    const count = (status: string) => results.filter((one) => plainStatus(one) === status).length;
    const { tests, pass, fail = 0, cancelled = 0, skipped, todo } = own.totals;

    expect({
      tests: results.length,
      pass: count("passed"),
      notPassed: count("failed"),
      skipped: count("skipped"),
      todo: count("todo"),
    }).toEqual({ tests, pass, notPassed: fail + cancelled, skipped, todo });
    expect(run.exitCode).toBe(1);
  });

  it("tells all that Node knows of a test", () => {
    expect(statusOf("fails as it should")).toEqual(["EXPECTED_FAILURE"]);
    expect(statusOf("passes although it should not")).toEqual(["UNEXPECTED_PASS"]);
    expect(statusOf("never runs")).toEqual(["ERROR"]);
    expect(resultsOf("skips itself")).toMatchObject([{ message: "there is no network" }]);
    expect(resultsOf("is known to fail")).toMatchObject([{ status: TestStatus.TODO, message: "one day" }]);
    expect(run.results.find((result) => pathOf(result) === "fails")?.attempts).toMatchObject([
      {
        failures: [
          {
            message: expect.stringContaining("deep-equal"),
            type: "AssertionError",
            stack: expect.stringContaining("outcomes.fixture.mjs"),
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
    expect(resultsOf("at once > b > y").map(({ test }) => test?.occurrence)).toEqual([0, 1]);
  });

  it("says of a file that fails as a whole why", () => {
    expect(resultsOf("load-error.fixture.mjs")).toMatchObject([
      {
        status: TestStatus.ERROR,
        attempts: [{ failures: [{ stack: expect.stringContaining("this file cannot be loaded") }] }],
      },
    ]);
    const failures = run.events.flatMap(({ kind }) =>
      kind.case === "fileEnded" && kind.value.file === "outcomes.fixture.mjs" ? kind.value.failures : [],
    );
    expect(failures.map(({ message }) => message)).toEqual([
      "whose set-up fails: no set-up",
      "whose tear-down fails: no tear-down",
    ]);
  });

  it("says of a process that died what it ran and what it did not come to", () => {
    expect(statusOf("passes before")).toEqual(["PASSED"]);
    expect(statusOf("kills its process")).toEqual(["INTERRUPTED"]);
    expect(statusOf("never begins")).toEqual(["NOT_RUN"]);
  });

  it("starts every test once, and no suite", () => {
    const started = run.events.flatMap(({ kind }) =>
      kind.case === "testStarted" ? [JSON.stringify(kind.value.test)] : [],
    );
    const ended = run.results.map(({ test }) => JSON.stringify(test));

    expect(new Set(started).size).toBe(started.length);
    expect(started.filter((test) => !ended.includes(test))).toEqual([]);
  });
});

it("leaves what was reported when the runner itself is killed", async () => {
  const run = await runRunner(nodeTestRunner, {
    command: ["node", "--test"],
    directory,
    selection: { files: ["crash.fixture.mjs"] },
    env: { CRASH: "runner" },
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
  const run = async (selection: Parameters<typeof runRunner>[1]["selection"], coverage = false) =>
    runRunner(nodeTestRunner, {
      command: ["node", "--test"],
      directory,
      coverage,
      selection: { files: ["outcomes.fixture.mjs"], ...selection },
    });

  it("takes a pattern of names", async () => {
    const { results } = await run({ namePattern: "^is odd" });
    expect(results.map(pathOf)).toEqual(["is odd: 1", "is odd: 2", "is odd: 3"]);
  });

  it("takes single tests, whatever they are called", async () => {
    const { results: all } = await run({});
    const wanted = all.filter((result) => /inside \(|^is odd: 2$/.test(pathOf(result)));
    const tests = wanted.flatMap(({ test }) => (test ? [test] : []));
    const { results } = await run({ files: [], tests });

    expect(wanted).toHaveLength(2);
    expect(results.map(pathOf)).toEqual(wanted.map(pathOf));
  });

  it("knows no tags", async () => {
    await expect(run({ tags: ["quick"] })).rejects.toMatchObject({ field: "tags" });
  });

  it("comes with coverage where that is asked for", async () => {
    const { coverage } = await run({ namePattern: "^passes$" }, true);
    expect(coverage.join("")).toMatch(/^(?:TN:|SF:)/m);
  });
});

describe("a command", () => {
  it("is recognised by what it starts", () => {
    expect(nodeTestRunner.recognises(["node", "--import", "tsx", "--test", "test/*.js"])).toBe(true);
    expect(nodeTestRunner.recognises(["/usr/bin/node", "--test"])).toBe(true);
    expect(nodeTestRunner.recognises(["node", "server.js"])).toBe(false);
    expect(nodeTestRunner.recognises(["npx", "vitest"])).toBe(false);
  });

  it("keeps its options, and its files unless others are selected", async () => {
    const plan = {
      command: ["node", "--import", "./setup.js", "--test", "--test-timeout", "500", "a.js", "b.js"],
      directory,
      coverage: false,
      workFolder: "/tmp/work",
      spoolFile: "/tmp/work/events",
      env: {},
    };
    const all = { files: [], namePattern: "", tags: [], tests: [] };
    const { argv } = await nodeTestRunner.prepare({ ...plan, selection: all });
    const selected = await nodeTestRunner.prepare({ ...plan, selection: { ...all, files: ["--c.js"] } });

    expect(argv.slice(0, 6)).toEqual(["node", "--import", "./setup.js", "--test", "--test-timeout", "500"]);
    expect(argv.slice(-2)).toEqual(["a.js", "b.js"]);
    expect(selected.argv.at(-1)).toBe(join(directory, "--c.js"));
    expect(selected.argv).not.toContain("a.js");
  });
});
