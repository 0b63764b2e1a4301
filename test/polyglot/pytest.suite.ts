import { execFile } from "node:child_process";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { type TestIdentity, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { beforeAll, describe, expect, it } from "vitest";
import { pytestRunner } from "../../client/runners/pytest.ts";
import { type ReportServer, startReportServer } from "../../client/testing/report-server.ts";
import {
  countOf,
  keyOf,
  pythonWith,
  type RanTests,
  resultsOf,
  runTests,
  sourcesOf,
  statusesOf,
  unfinished,
} from "./run-tests.ts";
import { type Output, root } from "./tools.ts";

const PROJECT = join(root, "test", "polyglot", "pytest-project");
const PLUGIN_FOLDER = join(root, "client", "reporters", "pytest");
const PACKAGES = [
  "pytest==9.2.0",
  "pytest-cov==7.1.0",
  "pytest-rerunfailures==16.7",
  "pytest-xdist==3.8.0",
  // What the suites of others need.
  "click==8.3.0",
  "freezegun==1.5.5",
  "itsdangerous==2.2.0",
  "packaging==25.0",
  "pretend==1.0.9",
];
const OLD_PACKAGES = ["pytest==7.0.1", "pytest-subtests==0.8.0"];

/** Suites that people know, of which none takes long. */
const WELL_KNOWN = [
  ["itsdangerous", "2.2.0", []],
  // These two files alone have 20,000 tests.
  ["packaging", "25.0", ["--ignore=tests/test_specifiers.py", "--ignore=tests/test_version.py"]],
  // It is older than this pytest, and takes warnings for errors.
  ["click", "8.3.0", ["-W", "ignore::pytest.PytestRemovedIn10Warning"]],
] as const;

/** How statuses of ours are called by pytest. */
const WORDS: Readonly<Partial<Record<TestStatus, string>>> = {
  [TestStatus.PASSED]: "PASSED",
  [TestStatus.FAILED]: "FAILED",
  [TestStatus.UNEXPECTED_PASS]: "FAILED",
  [TestStatus.SKIPPED]: "SKIPPED",
  [TestStatus.EXPECTED_FAILURE]: "XFAIL",
  [TestStatus.ERROR]: "ERROR",
};

function nodeId(test: TestIdentity | undefined): string {
  const { file = "", suitePath = [], name = "", parameters = "" } = test ?? {};
  return [file, ...suitePath, parameters === "" ? name : `${name}[${parameters}]`].join("::");
}

/** How each test ended, as pytest prints it with -v. Of a test with two words, the one that we take. */
function told({ lines }: RanTests): Map<string, string> {
  const words = new Map<string, string>();
  for (const line of lines) {
    const [, id = "", word = ""] =
      /^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?: \(.*\)?)? +\[ *\d+%\]$/.exec(line) ?? [];
    if (id !== "" && !(word === "ERROR" && words.get(id) === "FAILED")) {
      // Empty parameters are the same as none.
      words.set(id.replace(/\[\]$/, ""), word === "XPASS" ? "PASSED" : word);
    }
  }
  return words;
}

/** The numbers in pytest's last line. */
function summary({ lines }: RanTests): Record<string, number> {
  const line = lines.findLast((each) => /^=+ .* in [\d.]+s/.test(each)) ?? "";
  return Object.fromEntries(
    [...line.matchAll(/(\d+) (failed|passed|skipped|xfailed|xpassed|errors?|rerun|subtests passed)/g)].map(
      ([, count, name = ""]) => [name.replace(/^errors$/, "error"), Number(count)],
    ),
  );
}

/** The same numbers by what was reported. */
function counted({ results, events }: RanTests) {
  const files = events.filter(({ kind }) => kind.case === "fileEnded" && kind.value.failures.length > 0);
  return {
    failed: countOf(results, TestStatus.FAILED, TestStatus.UNEXPECTED_PASS),
    passed: countOf(results, TestStatus.PASSED),
    skipped: countOf(results, TestStatus.SKIPPED),
    xfailed: countOf(results, TestStatus.EXPECTED_FAILURE),
    error: countOf(results, TestStatus.ERROR) + files.length,
  };
}

/** Statuses by node id, in pytest's words; `among` leaves out what pytest has no line for, such as subtests. */
function reported({ results }: RanTests, among: ReadonlyMap<string, string>): Map<string, string> {
  const all = new Map([...results.values()].map(({ test, status }) => [nodeId(test), WORDS[status] ?? "?"]));
  return new Map([...among.keys()].map((id) => [id, all.get(id) ?? "not reported"]));
}

/** The real pytest, on suites of ours that go wrong in all ways, and on suites of others. */
export function testPytest(): void {
  let python: string;
  beforeAll(async () => {
    python = await pythonWith("pytest", PACKAGES);
  });
  const command = (...words: string[]) => [python, "-m", "pytest", "-p", "no:cacheprovider", ...words];
  const outcomes = (...words: string[]) =>
    runTests(pytestRunner, command("-v", "--continue-on-collection-errors", ...words), PROJECT);

  describe.each([
    ["in one process", []],
    ["in two workers", ["-n", "2"]],
  ])("a project whose tests end in every way, %s,", (_, words) => {
    it("is told as pytest tells it", async () => {
      const ran = await outcomes("--deselect=sub/test_attempts.py", ...words);
      const numbers = summary(ran);
      // One test failed in its tear-down only, and another one there, too: pytest counts both twice.
      expect(counted(ran)).toEqual({
        failed: numbers["failed"],
        passed: (numbers["passed"] ?? 0) + (numbers["xpassed"] ?? 0) + (numbers["subtests passed"] ?? 0) - 1,
        skipped: numbers["skipped"],
        xfailed: numbers["xfailed"],
        error: (numbers["error"] ?? 0) - 1,
      });
      expect(ran.end).toMatchObject({ exitCode: 1, reason: TestRunEndReason.UNSPECIFIED });
      expect(unfinished(ran.events)).toEqual([]);
      if (words.length === 0) {
        const words = told(ran);
        expect(words.size).toBeGreaterThan(20);
        expect(reported(ran, words)).toEqual(words);
      }
    });
  });

  it("has what pytest says about tests besides how they ended", async () => {
    const { results, events } = await outcomes();
    expect(results.get("test_outcomes.py test_pass")).toMatchObject({
      attempts: [{ stdout: "to standard output\n", stderr: "to standard error\n" }],
      properties: { owner: "team a" },
      line: expect.any(Number),
    });
    expect(results.get("test_outcomes.py test_fail")?.attempts[0]?.failures).toMatchObject([
      {
        type: "AssertionError",
        message: expect.stringContaining("lists differ"),
        stack: expect.stringContaining("test_outcomes.py:"),
      },
    ]);
    expect(results.get("test_outcomes.py TestClass > TestInner > test_parameters[2-[z]]")).toMatchObject({
      tags: ["db", "slow"],
      test: { suitePath: ["TestClass", "TestInner"], name: "test_parameters", parameters: "2-[z]" },
    });
    expect(results.get("test_outcomes.py test_skip")?.message).toBe("not today");
    expect(results.get("test_outcomes.py test_call_and_teardown")?.attempts[0]?.failures).toHaveLength(2);
    expect(results.get("test_outcomes.py test_xpass_strict")?.status).toBe(TestStatus.UNEXPECTED_PASS);
    expect(results.get("test_outcomes.py test_parts > part[i=1]")?.status).toBe(TestStatus.FAILED);
    expect(results.get("test_outcomes.py test_parts > <subtest> #1")?.status).toBe(TestStatus.PASSED);
    expect(
      events.flatMap(({ kind }) => (kind.case === "fileEnded" && kind.value.failures[0] ? [kind.value] : [])),
    ).toMatchObject([
      { file: "sub/test_broken.py", failures: [{ message: expect.stringContaining("no_such_module") }] },
    ]);
  });

  it("announces the tests before it runs them", async () => {
    const { events } = await runTests(pytestRunner, command("-x", "test_outcomes.py"), PROJECT);
    const found = events.flatMap(({ kind }) => (kind.case === "testsFound" ? kind.value.tests : []));
    expect(found.length).toBeGreaterThan(20);
    // With -x, what comes after the first failure is not run.
    expect(resultsOf(events).size).toBe(2);
  });

  it.each([[[]], [["-n", "1"]]])("tells attempts with the reruns of a plug-in (%j)", async (words) => {
    const ran = await runTests(
      pytestRunner,
      command("--reruns=2", "sub/test_attempts.py", ...words),
      PROJECT,
    );
    expect(summary(ran)).toEqual({ passed: 2, rerun: 3 });
    const attempts = ran.results.get("sub/test_attempts.py test_passes_at_last")?.attempts;
    expect(attempts?.map(({ status, stdout }) => [TestStatus[status], stdout])).toEqual([
      ["FAILED", "try 1\n"],
      ["FAILED", "try 2\n"],
      ["PASSED", "try 3\n"],
    ]);
    const setUp = ran.results.get("sub/test_attempts.py test_set_up_at_last")?.attempts;
    expect(setUp?.map(({ status }) => TestStatus[status])).toEqual(["ERROR", "PASSED"]);
    expect(ran.events.filter(({ kind }) => kind.case === "attemptEnded")).toHaveLength(3);
  });

  it.each([[[]], [["-n", "2"]]])("runs exactly the tests that are selected (%j)", async (words) => {
    const all = await outcomes();
    const wanted = [...all.results.values()].flatMap(({ test }) =>
      test && (/^test_(odd|parameters|xfail|teardown)/.test(test.name) || test.name === "part") ? [test] : [],
    );
    const options = { selection: { tests: wanted } };
    const some = await runTests(
      pytestRunner,
      command("--continue-on-collection-errors", ...words),
      PROJECT,
      options,
    );
    const names = wanted.map(keyOf);
    // Of a part, all of its test is run.
    const around = [...all.results.keys()].filter((name) => /^test_outcomes.py test_parts( > |$)/.test(name));
    expect([...some.results.keys()].sort()).toEqual([...new Set([...names, ...around])].sort());
  });

  it("selects by file, name and mark, besides what the command says", async () => {
    const selection = { files: ["test_outcomes.py"], namePattern: "not 2-", tags: ["db", "other"] };
    const { results } = await runTests(pytestRunner, command("-m", "slow", "-k", "parameters"), PROJECT, {
      selection,
    });
    expect(statusesOf(results)).toEqual({
      "test_outcomes.py TestClass > TestInner > test_parameters[1-x::y]": "PASSED",
      "test_outcomes.py TestClass > TestInner > test_parameters[3-]": "PASSED",
    });
  });

  it("says so when there is nothing to run", async () => {
    const { end, events } = await runTests(pytestRunner, command(), PROJECT, {
      selection: { files: ["no/such/folder"] },
    });
    expect(end).toMatchObject({ exitCode: 5, reason: TestRunEndReason.UNSPECIFIED });
    const problems = events.flatMap(({ kind }) => (kind.case === "problem" ? [kind.value.message] : []));
    expect(problems).toEqual([expect.stringContaining("found no tests")]);
  });

  it("has told everything up to the moment in which a test takes pytest with it", async () => {
    const ran = await runTests(pytestRunner, command("sub/dies.py"), PROJECT);
    expect(ran.end).toMatchObject({ exitCode: 7, reason: TestRunEndReason.RUNNER_ERROR });
    expect(statusesOf(ran.results)).toEqual({ "sub/dies.py test_before": "PASSED" });
    expect(unfinished(ran.events)).toEqual(["sub/dies.py test_dies"]);
  });

  it("fails the test with which a worker dies, and goes on", async () => {
    const ran = await runTests(pytestRunner, command("-n", "1", "sub/dies.py"), PROJECT);
    expect(statusesOf(ran.results)).toEqual({
      "sub/dies.py test_before": "PASSED",
      "sub/dies.py test_dies": "FAILED",
      "sub/dies.py test_after": "PASSED",
    });
  });

  it("has told everything up to the moment in which pytest is killed", async () => {
    let pid: number | undefined;
    let waits = false;
    const ran = await runTests(pytestRunner, command("-s", "sub/waits.py"), PROJECT, {
      // What is written and what is reported come in no particular order.
      onEvent({ kind }) {
        if (kind.case === "output") {
          pid = Number(/^pid (\d+)$/m.exec(kind.value.text)?.[1] ?? pid);
        }
        waits ||= kind.case === "testStarted" && kind.value.test?.name === "test_waits";
        if (pid !== undefined && waits) {
          process.kill(pid, "SIGKILL");
          waits = false;
        }
      },
    });
    expect(ran.end).toMatchObject({ signal: "SIGKILL", reason: TestRunEndReason.CRASHED });
    expect(statusesOf(ran.results)).toEqual({ "sub/waits.py test_before": "PASSED" });
    expect(unfinished(ran.events)).toEqual(["sub/waits.py test_waits"]);
  });

  it("measures coverage, and refuses where that cannot be", async () => {
    const { events } = await runTests(pytestRunner, command("test_outcomes.py"), PROJECT, { coverage: true });
    const covered = events.flatMap(({ kind }) => (kind.case === "coverage" ? kind.value.files : []));
    const hits = covered.find(({ file }) => file === "conftest.py")?.lines.map((line) => line.hits > 0);
    expect(hits).toContain(true);
    const old = await pythonWith("pytest-old", OLD_PACKAGES);
    await expect(
      runTests(pytestRunner, [old, "-m", "pytest"], PROJECT, { coverage: true }),
    ).rejects.toMatchObject({ field: "coverage" });
  });

  it("works with an old pytest", async () => {
    const old = await pythonWith("pytest-old", OLD_PACKAGES);
    const words = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "test_outcomes.py"];
    const ran = await runTests(pytestRunner, [old, ...words], PROJECT);
    expect(told(ran).size).toBeGreaterThan(20);
    expect(reported(ran, told(ran))).toEqual(told(ran));
    expect(ran.results.get("test_outcomes.py test_parts > part[i=1]")?.status).toBe(TestStatus.FAILED);
  });

  it.each(WELL_KNOWN)("tells the tests of %s %s as pytest tells them", async (name, version, extra) => {
    const ran = await runTests(pytestRunner, command("-v", ...extra), await sourcesOf(python, name, version));
    const words = told(ran);
    const numbers = summary(ran);
    expect(words.size).toBeGreaterThan(250);
    expect(counted(ran)).toEqual({
      failed: numbers["failed"] ?? 0,
      passed: (numbers["passed"] ?? 0) + (numbers["xpassed"] ?? 0) + (numbers["subtests passed"] ?? 0),
      skipped: numbers["skipped"] ?? 0,
      xfailed: numbers["xfailed"] ?? 0,
      error: numbers["error"] ?? 0,
    });
    expect(reported(ran, words)).toEqual(words);
  });

  describe("without a parent that takes its reports", () => {
    /** Runs pytest by itself, with the plug-in's own upload. */
    function alone(server: ReportServer, ...words: string[]): Promise<Output> {
      const args = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "toolplane_pytest", ...words];
      const env = {
        ...process.env,
        PYTHONPATH: PLUGIN_FOLDER,
        PYTHONDONTWRITEBYTECODE: "1",
        TOOLPLANE_URL: server.url,
        TOOLPLANE_PROJECT: "alone",
      };
      return new Promise((resolve) => {
        execFile(python, args, { cwd: PROJECT, env, timeout: 60_000 }, (error, stdout, stderr) => {
          resolve({ code: Number(error?.code ?? 0), stdout, stderr });
        });
      });
    }

    it("uploads its events in order, once, whatever befalls the connection", async () => {
      await using server = await startReportServer();
      // The first three befall the creation of the run.
      server.faults.push("lost-before", "lost-after", "none");
      server.faults.push("unavailable", "lost-after", "restart", "lost-before", "none", "lost-after");
      const { code, stderr } = await alone(server, "test_outcomes.py");
      expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
      const [reported, ...others] = server.runs.values();
      expect(others).toEqual([]);
      expect(reported?.request).toMatchObject({ project: "alone", framework: "pytest" });
      expect(reported?.request.context?.frameworkVersion).toBe("pytest 9.2.0");
      const { results } = await runTests(pytestRunner, command("test_outcomes.py"), PROJECT);
      expect(statusesOf(resultsOf(reported?.events ?? []))).toEqual(statusesOf(results));
      const ended = reported?.events.filter(({ kind }) => kind.case === "testEnded") ?? [];
      expect(ended).toHaveLength(results.size);
      expect(reported?.finish).toMatchObject({
        exitCode: 1,
        lastPosition: BigInt(reported?.events.length ?? 0),
      });
    });

    it("leaves out only the event that the server does not take", async () => {
      await using server = await startReportServer();
      server.isInvalid = ({ kind }) => kind.case === "testEnded" && kind.value.test?.name === "test_fail";
      const { code, stderr } = await alone(server, "test_outcomes.py");
      expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
      const [reported] = server.runs.values();
      const { results } = await runTests(pytestRunner, command("test_outcomes.py"), PROJECT);
      expect(resultsOf(reported?.events ?? []).size).toBe(results.size - 1);
      expect(reported?.events.some(({ kind }) => kind.case === "problem")).toBe(true);
    });

    it("does not wait for a server that is not there", async () => {
      await using server = await startReportServer();
      await server.stop();
      const { code, stderr } = await alone(server, "sub/test_attempts.py", "--reruns=2");
      expect(code).toBe(0);
      expect(stderr).toContain("is not complete: the server cannot be reached");
    });

    it("keeps pytest's exit code, and says what is missing, when it is refused", async () => {
      await using server = await startReportServer();
      server.refusal = new ConnectError("no access to this run", Code.PermissionDenied);
      const { code, stderr } = await alone(server, "sub/test_attempts.py", "-k", "nothing");
      expect(code).toBe(5);
      expect(stderr).toContain("is not complete: no access to this run");
    });
  });
}
