import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { TestChangeKind } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type {
  CompareTestRunsRequest,
  ImportTestResultsRequest,
  ListTestRunsRequest,
  StartTestRunRequest,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BundledCli, bundleCli, type RunOptions } from "../../../testing/bundled-cli.ts";
import { aTestRun, type ReportServer, startReportServer } from "../../../testing/report-server.ts";
import { ExitCode } from "../../exit-code.ts";

let cli: BundledCli;
let server: ReportServer;
/** Where the command line keeps what it could not report. */
let folder: string;
let started: StartTestRunRequest[] = [];
let listed: ListTestRunsRequest[] = [];
let compared: CompareTestRunsRequest[] = [];
let imported: ImportTestResultsRequest[][] = [];
let cancelled: string[] = [];

const ended = {
  duration: durationFromMs(1_500),
  context: { branch: "main", commit: "0123456789abcdef" },
  createTime: timestampFromMs(0),
  lastSequence: 4n,
};
const passed = aTestRun({
  ...ended,
  id: "run-passed",
  state: TestRunState.PASSED,
  counts: { total: 2, passed: 2 },
  end: { state: TestRunState.PASSED },
});
const failed = aTestRun({
  ...ended,
  id: "run-failed",
  state: TestRunState.FAILED,
  counts: { total: 2, passed: 1, failed: 1 },
  end: { state: TestRunState.FAILED },
});
const crashed = aTestRun({
  ...ended,
  id: "run-crashed",
  state: TestRunState.ERROR,
  end: {
    state: TestRunState.ERROR,
    reason: TestRunEndReason.CRASHED,
    signal: "SIGKILL",
    runningTests: [{ file: "cart.test.ts", name: "hangs" }],
    notRun: 3,
  },
});
const running = aTestRun({ id: "run-running" });
/** As the server names runs; nothing ran in it. */
const empty = aTestRun({
  ...ended,
  id: "5093e212-2767-4b17-91dd-f96b6caae8e8",
  state: TestRunState.PASSED,
  counts: {},
  end: { state: TestRunState.PASSED },
});
const sibling = { ...empty, id: "5093ffff-2767-4b17-91dd-f96b6caae8e8" };
const runs = [passed, failed, crashed, running, empty, sibling];

const failure = {
  test: { file: "cart.test.ts", suitePath: ["cart"], name: "adds" },
  status: TestStatus.FAILED,
  duration: durationFromMs(12),
  attempts: [
    {
      status: TestStatus.FAILED,
      failures: [{ message: "expected 1\u001b[2J to be 2", stack: "at cart.test.ts:3" }],
    },
  ],
};

beforeAll(async () => {
  cli = await bundleCli();
});
afterAll(async () => {
  await cli[Symbol.asyncDispose]();
});
beforeEach(async () => {
  started = [];
  listed = [];
  compared = [];
  imported = [];
  cancelled = [];
  let cancel = () => {};
  const wasCancelled = new Promise<void>((resolve) => {
    cancel = resolve;
  });
  folder = await mkdtemp(join(tmpdir(), "toolplane-cli-test-"));
  server = await startReportServer({
    others: {
      startTestRun(request) {
        started.push(request);
        return { run: running };
      },
      cancelTestRun({ runId }) {
        cancelled.push(runId);
        cancel();
        return { run: running };
      },
      async *watchTestRun({ runId, afterSequence, withoutOutput }, { signal }) {
        const run = runs.find(({ id }) => id === runId);
        if (run === undefined) throw new ConnectError(`test run "${runId}" does not exist`, Code.NotFound);
        yield { kind: { case: "connected", value: { run } } };
        yield {
          kind: {
            case: "events",
            value: {
              events: [
                { sequence: 1n, kind: { case: "created" as const, value: run } },
                ...(withoutOutput
                  ? []
                  : [
                      {
                        sequence: 2n,
                        kind: { case: "output" as const, value: { text: "wri\u001b[31mtten\nto" } },
                      },
                    ]),
                { sequence: 3n, kind: { case: "testEnded" as const, value: failure } },
              ].filter(({ sequence }) => sequence > afterSequence),
            },
          },
        };
        yield { kind: { case: "caughtUp", value: { sequence: 3n } } };
        if (run.end === undefined) {
          const left = new Promise((resolve) => signal.addEventListener("abort", resolve));
          await Promise.race([wasCancelled, left]);
        }
        const last =
          run.end === undefined
            ? aTestRun({
                id: runId,
                state: TestRunState.CANCELLED,
                end: { state: TestRunState.CANCELLED, reason: TestRunEndReason.CANCELLED },
              })
            : run;
        yield {
          kind: {
            case: "events",
            value: { events: [{ sequence: 4n, kind: { case: "ended" as const, value: last } }] },
          },
        };
      },
      getTestRun({ runId }) {
        const run = runs.find(({ id }) => id === runId);
        if (run === undefined) throw new ConnectError(`test run "${runId}" does not exist`, Code.NotFound);
        return { run };
      },
      listTestRuns(request) {
        listed.push(request);
        return { runs: request.filter?.project === "empty" ? [] : runs.slice(0, request.pageSize) };
      },
      listTestResults: ({ filter }) => ({
        results: filter?.statuses.includes(TestStatus.FAILED)
          ? [failure]
          : [{ ...failure, status: TestStatus.PASSED }, failure],
      }),
      listProjects: () => ({
        projects: [{ name: "shop", runner: "vitest", environments: ["node", "bun"], latestRun: failed }],
      }),
      getTestCoverage: () => ({
        totals: { linesTotal: 4n, linesCovered: 1n, files: 1 },
        files: [
          { file: "src/cart.ts", lines: [1, 2, 3, 7].map((line) => ({ line, hits: line === 7 ? 2 : 0 })) },
        ],
      }),
      getTestHistory: ({ test }) =>
        test === ""
          ? { history: { case: "project", value: { project: "shop", points: [{ runId: "run-1" }] } } }
          : {
              history: {
                case: "test",
                value: {
                  test: failure.test,
                  runs: 3,
                  passRate: 2 / 3,
                  flakiness: {
                    score: 0.5,
                    flaky: true,
                    evidence: [{ explanation: "1 of 3 commits had both" }],
                  },
                  entries: [{ runId: "run-1", status: TestStatus.PASSED, duration: durationFromMs(3) }],
                },
              },
            },
      compareTestRuns(request) {
        compared.push(request);
        return {
          markdown: request.markdown ? "## Comparison" : "",
          comparison: {
            base: [passed],
            head: [failed],
            comparability: { comparable: !request.head?.runIds.includes("run-crashed") },
            summary: { regression: true, newlyFailing: 1, headline: "1 test broke." },
            changes: [
              {
                test: failure.test,
                kind: TestChangeKind.NEWLY_FAILING,
                baseStatus: TestStatus.PASSED,
                headStatus: TestStatus.FAILED,
                regression: true,
              },
            ],
          },
        };
      },
      async importTestResults(requests) {
        const all: ImportTestResultsRequest[] = [];
        for await (const request of requests) all.push(request);
        imported.push(all);
        return { run: failed, problems: [] };
      },
      async *exportTestResults() {
        yield { data: Buffer.from("<testsuites>"), fileName: "run.xml" };
        yield { data: Buffer.from("</testsuites>") };
      },
    },
  });
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  cli.run(args, { url: server.url, ...options, env: { TMPDIR: folder, ...options.env } });

const textOf = ({ kind }: TestEvent) => (kind.case === "output" ? kind.value.text : String(kind.case));
const reported = () => [...server.runs.values()].map(({ events }) => events.map(textOf).join(""));

describe("test report", () => {
  const command = ["--", "sh", "-c", "echo out; echo err >&2; exit 3"];

  it("shows what the command writes, reports it, and exits as the command does", async () => {
    const { code, stdout, stderr } = await run([
      "test",
      "report",
      "--project",
      "shop",
      "--env",
      "ci",
      ...command,
    ]);
    expect(code).toBe(3);
    expect(stdout).toBe("out\n");
    expect(stderr).toMatch(/^err\n▲ reported as test run run-1: /);
    expect(stderr).toContain("--junit");
    const reportedRun = server.runs.get("run-1");
    expect(reportedRun).toMatchObject({
      request: {
        project: "shop",
        environment: "ci",
        context: { platform: `${process.platform}/${process.arch}` },
      },
      finish: { exitCode: 3, signal: "" },
    });
    expect(reported()[0]).toMatch(/^(out\nerr\n|err\nout\n)$/);
    expect(await readdir(folder)).toEqual([]);
  });

  it("exits as the command does when there is no server, and keeps the report for later", async () => {
    const { url } = server;
    await server.stop();
    const { code, stdout, stderr } = await run(["test", "report", "--project", "shop", ...command], { url });
    expect({ code, stdout }).toEqual({ code: 3, stdout: "out\n" });
    const kept = /toolplane test upload (\S+)/.exec(stderr)?.[1] ?? "";
    expect(kept.startsWith(folder)).toBe(true);

    await server.start();
    const upload = await run(["test", "upload", kept]);
    expect(upload.code).toBe(0);
    expect(server.runs.size).toBe(1);
    expect(server.runs.get("run-1")).toMatchObject({ request: { project: "shop" }, finish: { exitCode: 3 } });
    expect(reported()[0]).toMatch(/^(out\nerr\n|err\nout\n)$/);
    expect(await readdir(folder)).toEqual([]);
  });

  it("exits as the command does when the server refuses", async () => {
    server.refusal = new ConnectError("may not", Code.PermissionDenied);
    const { code, stdout, stderr } = await run(["test", "report", ...command]);
    expect({ code, stdout }).toEqual({ code: 3, stdout: "out\n" });
    expect(stderr).toContain("the server refused it (may not)");
  });

  it.each(["lost-before", "lost-after", "unavailable", "restart"] as const)(
    "exits as the command does when requests are %s, and reports once",
    async (fault) => {
      server.faults.push(fault, "none", fault, "none", fault);
      const { code, stdout } = await run(["test", "report", ...command]);
      expect({ code, stdout }).toEqual({ code: 3, stdout: "out\n" });
      expect(reported()).toEqual([expect.stringMatching(/^(out\nerr\n|err\nout\n)$/)]);
    },
  );

  it("stops the command when its run is cancelled", async () => {
    const child = cli.start(
      ["test", "report", "--", "sh", "-c", "for n in $(seq 600); do echo out; sleep 0.1; done"],
      { url: server.url, env: { TMPDIR: folder } },
    );
    const output = text(child.stdout);
    const notes = text(child.stderr);
    child.stdin.end();
    await expect.poll(reported).toEqual([expect.stringContaining("out")]);
    for (const each of server.runs.values()) each.cancelled = true;
    expect(await once(child, "close")).toEqual([128 + constants.signals.SIGTERM, null]);
    expect(await output).toContain("out");
    expect(await notes).toContain("test run run-1 was cancelled");
  });

  it("leaves behind what can be uploaded when it is killed, at whatever moment", async () => {
    for (let kill = 1; kill <= 20; kill++) {
      const count = "n=0; while true; do n=$((n + 1)); echo $n; sleep 0.002; done";
      const child = cli.start(["test", "report", "--project", "shop", "--", "sh", "-c", count], {
        url: server.url,
        env: { TMPDIR: folder },
      });
      child.stdin.end();
      const wanted = 1 + Math.floor(Math.random() * 60);
      const lines = () => (reported().at(-1) ?? "").split("\n").slice(0, -1).map(Number);
      await expect
        .poll(() => server.runs.size === kill && lines().length >= wanted, { interval: 5 })
        .toBe(true);
      child.kill("SIGKILL");
      await once(child, "close");
      const acknowledged = lines().length;
      const [kept = ""] = await readdir(folder);
      expect((await run(["test", "upload", join(folder, kept)])).code).toBe(0);
      expect(lines().length).toBeGreaterThanOrEqual(acknowledged);
      expect(lines()).toEqual(lines().map((_, index) => index + 1));
      expect([...server.runs.values()].at(-1)?.finish).toMatchObject({ reason: TestRunEndReason.CRASHED });
      expect(await readdir(folder)).toEqual([]);
    }
    expect(server.runs.size).toBe(20);
  });

  it("exits like a shell when the command cannot be started", async () => {
    const { code, stderr } = await run(["test", "report", "--", "no-such-command-here"]);
    expect(code).toBe(127);
    expect(stderr).toContain("no-such-command-here");
    expect(stderr).not.toContain("--junit");
  });
});

describe("test watch", () => {
  it.each([
    { id: "run-passed", code: 0, says: /✓ passed {2}2 tests {2}2 passed {2}in 1.5 s/ },
    { id: "run-failed", code: 1, says: /✗ failed {2}2 tests {2}1 failed, 1 passed/ },
    { id: "run-crashed", code: 9, says: /the runner ended before all its tests \(by SIGKILL\)/ },
  ])("prints failures as they come, and ends as $id did", async ({ id, code, says }) => {
    const result = await run(["test", "watch", id]);
    expect(result.code).toBe(code);
    expect(result.stdout).toMatch(says);
    expect(result.stdout).toContain("✗ failed  cart.test.ts > cart > adds  12 ms\n    expected 1 to be 2");
    expect(result.stdout).not.toContain("written");
  });

  it("names what was running when the runner crashed", async () => {
    const { stdout } = await run(["test", "watch", "run-crashed"]);
    expect(stdout).toContain("was running: cart.test.ts > hangs");
    expect(stdout).toContain("3 tests never ran");
  });

  it("shows what is written where it is asked for", async () => {
    const { stdout } = await run(["test", "watch", "run-passed", "--output"]);
    expect(stdout).toMatch(/^written$/m);
    expect(stdout).toMatch(/^to$/m);
  });

  it("writes every event as a line of JSON", async () => {
    const { stdout } = await run(["test", "watch", "run-failed", "--json"]);
    const events = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ sequence }) => sequence)).toEqual(["1", "2", "3", "4"]);
    expect(events.at(-1)).toMatchObject({ ended: { id: "run-failed" } });
  });

  it("says when there is no such run", async () => {
    const { code, stderr } = await run(["test", "watch", "none"]);
    expect(code).toBe(ExitCode.notFound);
    expect(stderr).toContain('"none" does not exist');
  });

  it("leaves the run to itself when it is interrupted", async () => {
    const child = cli.start(["test", "watch", "run-running"], { url: server.url });
    child.stdin.end();
    await once(child.stdout, "data");
    child.kill("SIGINT");
    expect(await once(child, "close")).toEqual([ExitCode.interrupted, null]);
    expect(cancelled).toEqual([]);
  });
});

describe("test run", () => {
  it("starts what the options select", async () => {
    const { code, stdout } = await run([
      ...["test", "run", "shop", "--env", "node", "--file", "a.test.ts", "--file", "b", "--name", "adds"],
      ...[
        "--tag",
        "slow",
        "--label",
        "who=ada",
        "--coverage",
        "--failed-in",
        "latest",
        "--timeout",
        "5m",
        "--detach",
      ],
    ]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: "run-running\n" });
    expect(started).toMatchObject([
      {
        project: "shop",
        environment: "node",
        selection: {
          files: ["a.test.ts", "b"],
          namePattern: "adds",
          tags: ["slow"],
          failedInRun: "run-passed",
        },
        labels: { who: "ada" },
        coverage: true,
        timeout: { seconds: 300n },
      },
    ]);
    expect(listed).toMatchObject([{ filter: { project: "shop" } }]);
  });

  it("cancels the run when it is interrupted, and sees it end", async () => {
    const child = cli.start(["test", "run", "shop"], { url: server.url });
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    child.stdin.end();
    await expect.poll(() => output).toContain("cart > adds");
    child.kill("SIGINT");
    expect(await once(child, "close")).toEqual([ExitCode.interrupted, null]);
    expect(cancelled).toEqual(["run-running"]);
    expect(output).toContain("■ cancelled");
  });

  it("runs again what failed", async () => {
    await run(["test", "rerun", "run-failed", "--failed", "--detach"]);
    expect(started).toMatchObject([
      { project: "shop", environment: "default", selection: { failedInRun: "run-failed" } },
    ]);
  });
});

describe("looking at runs", () => {
  it("lists them", async () => {
    const { stdout } = await run(["test", "list", "shop", "--state", "failed", "--branch", "main"]);
    expect(stdout).toMatch(/^run-failed +shop +default +✗ failed +2 +1 +1\.5 s +main +0123456789/m);
    expect(listed).toMatchObject([
      { filter: { project: "shop", branch: "main", states: [TestRunState.FAILED] } },
    ]);
  });

  it("refuses a state that there is not", async () => {
    const { code, stderr } = await run(["test", "list", "--state", "odd"]);
    expect(code).toBe(ExitCode.usage);
    expect(stderr).toContain('"odd" is not one of queued, running');
  });

  it("shows one with its failures, or all results", async () => {
    expect((await run(["test", "show", "run-failed"])).stdout).toMatch(
      /✗ failed {2}cart\.test\.ts > cart > adds/,
    );
    expect((await run(["test", "show", "run-failed", "--all"])).stdout).toMatch(
      /✓ passed +cart\.test\.ts > cart > adds +12 ms/,
    );
  });

  it("finds the latest of a branch, and the one before", async () => {
    expect((await run(["test", "show", "shop@main~1", "--json"])).stdout).toContain("run-failed");
    expect(listed).toMatchObject([{ filter: { project: "shop", branch: "main" }, pageSize: 2 }]);
    expect(await run(["test", "show", "latest", "--project", "empty"])).toMatchObject({
      code: ExitCode.notFound,
      stderr: expect.stringContaining("here is no test run of project empty"),
    });
  });

  it("finds one by the beginning of its id, and shows no more of ids than that takes", async () => {
    expect((await run(["test", "list"])).stdout).toMatch(/^5093e212 +shop/m);
    expect((await run(["test", "show", "5093e2"])).stdout).toContain(`run ${empty.id}`);
    expect((await run(["compare", "5093e212", "run-failed"])).code).toBe(ExitCode.failure);
    expect(compared).toMatchObject([{ base: { runIds: [empty.id] } }]);
  });

  it("says when the beginning of an id is that of no run, or of several", async () => {
    expect(await run(["test", "show", "0197b5"])).toMatchObject({
      code: ExitCode.notFound,
      stderr: expect.stringContaining("toolplane test list"),
    });
    expect(await run(["test", "show", "5093"])).toMatchObject({
      code: ExitCode.usage,
      stderr: expect.stringContaining(`${empty.id}, ${sibling.id}`),
    });
  });

  it("does not call a run without tests passed", async () => {
    expect((await run(["test", "list"])).stdout).toMatch(/^5093e212 .*▲ no tests ran/m);
    const { stdout } = await run(["test", "show", empty.id]);
    expect(stdout).toMatch(/^▲ no tests ran {2}0 tests/);
  });

  it("shows projects, coverage and history", async () => {
    expect((await run(["test", "projects"])).stdout).toMatch(/^shop +vitest +node, bun +0 +✗ failed/m);
    const coverage = (await run(["test", "coverage", "run-passed"])).stdout;
    expect(coverage).toMatch(/^src\/cart\.ts +25 % +1-3$/m);
    expect(coverage).toContain("25 % of 4 lines");
    expect((await run(["test", "history", "shop"])).stdout).toMatch(/quality +\? cannot be said/);
    expect((await run(["test", "history", "shop", "adds"])).stdout).toContain("▲ flaky, score 0.50");
  });

  it("exports to stdout or into a file", async () => {
    expect((await run(["test", "export", "run-passed"])).stdout).toBe("<testsuites></testsuites>");
    const file = join(folder, "junit.xml");
    await run(["test", "export", "run-passed", "--output", file]);
    expect(await readFile(file, "utf8")).toBe("<testsuites></testsuites>");
  });
});

describe("comparing", () => {
  it.each([{ words: ["test", "compare"] }, { words: ["compare"] }])(
    "says what became worse: $words",
    async ({ words }) => {
      const { code, stdout } = await run([...words, "shop@main", "run-failed"]);
      expect(code).toBe(ExitCode.failure);
      expect(stdout).toMatch(/^✗ regression {2}1 test broke\.$/m);
      expect(stdout).toMatch(/✗ newly failing +cart\.test\.ts > cart > adds +passed → failed/);
      expect(compared).toMatchObject([
        { base: { runIds: ["run-passed"] }, head: { runIds: ["run-failed"] } },
      ]);
    },
  );

  it("takes several runs a side", async () => {
    await run(["compare", "shop@main", "run-failed,run-crashed", "--runs", "6"]);
    expect(compared).toMatchObject([
      {
        base: { runIds: [], latest: { count: 6, filter: { project: "shop", branch: "main" } } },
        head: { runIds: ["run-failed", "run-crashed"] },
      },
    ]);
  });

  it("tells runs that cannot be compared from those that became worse", async () => {
    const { code, stdout } = await run(["compare", "run-passed", "run-crashed"]);
    expect(code).toBe(ExitCode.incomplete);
    expect(stdout).toContain("▲ not comparable");
  });

  it("writes Markdown", async () => {
    expect((await run(["compare", "shop@main", "--markdown"])).stdout).toBe("## Comparison\n");
  });
});

describe("test import", () => {
  it("sends a report in pieces, from a file or stdin", async () => {
    await mkdir(join(folder, "reports"));
    const file = join(folder, "reports", "junit.xml");
    const content = Buffer.alloc(2_500_000, "x");
    await writeFile(file, content);
    const { code, stdout } = await run(["test", "import", file, "--project", "shop", "--format", "junit"]);
    expect(code).toBe(0);
    expect(stdout).toContain("run run-failed");
    const [requests = []] = imported;
    expect(requests[0]?.header).toMatchObject({ fileName: "junit.xml", run: { project: "shop" } });
    expect(requests.map(({ data }) => data.length)).toEqual([0, 1_048_576, 1_048_576, 402_848]);

    await run(["test", "import", "-", "--run", "latest"], { input: "SF:a.ts" });
    expect(imported[1]?.[0]?.header).toMatchObject({ runId: "run-passed", fileName: "" });
    expect(Buffer.concat((imported[1] ?? []).map(({ data }) => data)).toString()).toBe("SF:a.ts");
  });

  it("names a file that is not there", async () => {
    const { code, stderr } = await run(["test", "import", join(folder, "none.xml"), "--project", "shop"]);
    expect(code).toBe(ExitCode.failure);
    expect(stderr).toMatch(/^✗ .*none\.xml'\n$/);
  });
});

it("completes runs and projects", async () => {
  expect((await run(["__complete", "test", "watch", "run-p"])).stdout).toBe("run-passed\tshop main\n");
  expect((await run(["__complete", "test", "watch", "5093e"])).stdout).toBe("5093e212\tshop main\n");
  expect((await run(["__complete", "test", "watch", "5093e212-2"])).stdout).toBe(`${empty.id}\tshop main\n`);
  expect((await run(["__complete", "test", "run", "s"])).stdout).toBe("shop\n");
});
