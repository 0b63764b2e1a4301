import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { create, fromJson } from "@bufbuild/protobuf";
import { timestampFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { PutAgentRequest } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  ListRunStepsRequestSchema,
  ListRunsRequestSchema,
  type ResolveApprovalRequest,
  type RetryRunRequest,
  type StartRunRequest,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type Run, RunKind, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import {
  type Workflow,
  WorkflowGraphSchema,
  WorkflowProblemSeverity,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type InProcessOptions, startInProcess } from "../../../testing/in-process-cli.ts";
import { aRun, aStep, finished, numbered, RUN_ID, started, tellRun } from "../../../testing/scripted-run.ts";
import { type StubServer, startStubServer } from "../../../testing/stub-server.ts";
import { ExitCode } from "../../exit-code.ts";

const output = fromJson(ValueSchema, { report: "fine", days: 3 });
const succeeded = aRun({ state: RunState.SUCCEEDED, output, steps: { total: 2, succeeded: 2 } });
const failed = aRun({
  id: "run-failed",
  state: RunState.FAILED,
  error: { code: Code.Unavailable, message: "notify does not answer" },
  steps: { total: 2, succeeded: 1, failed: 1 },
});
const cancelled = aRun({ id: "run-cancelled", state: RunState.CANCELLED });
const large = aRun({ id: "run-large", state: RunState.SUCCEEDED });
const waiting = aRun({
  id: "run-waiting",
  state: RunState.WAITING,
  pendingApprovals: [{ path: "gate", message: "Deploy?" }],
});
const answer = aRun({
  id: "run-answer",
  kind: RunKind.REQUIREMENT,
  title: "Compare",
  workflowVersion: 0,
  state: RunState.SUCCEEDED,
  output: fromJson(ValueSchema, { text: "Rome is\u001b[2J warmer." }),
});
const sibling = aRun({ id: "5093ffff-2767-4b17-91dd-f96b6caae8e8", state: RunState.SUCCEEDED });
const runs = [succeeded, failed, cancelled, large, waiting, answer, sibling];

const workflow = create(WorkflowSchema, {
  name: "nightly",
  version: 3,
  description: "Reports the weather. Every night.",
  inputSchema: { type: "object", properties: { days: { type: "integer" } } },
  steps: [{ id: "fetch" }, { id: "gate" }],
  schedules: [
    { cron: "30 6 * * *", timeZone: "Europe/Berlin", nextTime: timestampFromMs(Date.UTC(2100, 0)) },
  ],
});
const graph = create(WorkflowGraphSchema, {
  nodes: [
    { stepId: "fetch", kind: "tool", target: "weather.GetForecast", level: 0 },
    { stepId: "gate", kind: "approval", level: 1, conditional: true },
  ],
  edges: [{ from: "fetch", to: "gate", data: true }],
  depth: 2,
});
const problem = {
  severity: WorkflowProblemSeverity.ERROR,
  reason: "UNKNOWN_STEP",
  field: "steps[1].condition",
  stepId: "gate",
  line: 7,
  column: 15,
  message: 'there is no step "fech": did you mean fetch?',
};
const warning = {
  severity: WorkflowProblemSeverity.WARNING,
  reason: "UNKNOWN_TOOL",
  field: "steps[0].tool.name",
  line: 4,
  column: 3,
  message: "weather.GetForecast is not registered",
};

const eventsOf = (run: Run) =>
  numbered([
    ["", { case: "created", value: { ...run, state: RunState.QUEUED } }],
    ["", { case: "started", value: { worker: "w1" } }],
    started("fetch", { target: "weather.GetForecast" }),
    finished(aStep("fetch", { target: "weather.GetForecast" })),
    started("notify", { target: "mail.Send" }),
    finished(
      aStep("notify", {
        state: run.state === RunState.FAILED ? StepState.FAILED : StepState.SUCCEEDED,
        target: "mail.Send",
        ...(run.error && { error: run.error }),
      }),
    ),
    ["", { case: "finished", value: run }],
  ]);

let server: StubServer;
let folder: string;
let valid: string;
let invalid: string;
let losses: number[] = [];
let opened: bigint[] = [];
let asked: StartRunRequest[] = [];
let retried: RetryRunRequest[] = [];
let resolved: ResolveApprovalRequest[] = [];
let agents: PutAgentRequest[] = [];
let listed: unknown[] = [];
let cancelledIds: string[] = [];
/** The run that is started next. */
let next = succeeded;
/** Opened for the run that waits to go on: by an answer, or when it is cancelled. */
let release: () => void = () => {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-cli-test-"));
  valid = join(folder, "nightly.yaml");
  invalid = join(folder, "invalid.yaml");
  await writeFile(valid, "name: nightly\nsteps: []\n");
  await writeFile(invalid, "name: invalid\n");
  const find = (id: string) => {
    const run = runs.find((each) => each.id === id);
    if (run === undefined) throw new ConnectError(`run "${id}" does not exist`, Code.NotFound);
    return run;
  };
  const isInvalid = (source: { case?: string | undefined; value?: unknown }) =>
    String(source.value).includes("invalid");
  server = await startStubServer(
    {},
    {},
    {},
    {
      startRun(request) {
        asked.push(request);
        return { run: next };
      },
      watchRun(request, context) {
        const run = find(request.runId);
        if (run !== waiting) return tellRun(eventsOf(run), { losses, opened })(request, context);
        const end = aRun({ id: run.id, state: RunState.SUCCEEDED });
        const events = numbered([
          ["", { case: "created", value: { ...run, state: RunState.QUEUED } }],
          started("gate", { kind: "approval" }),
          ["gate", { case: "approvalRequested", value: { path: "gate", message: "Deploy?" } }],
          ["", { case: "waiting", value: {} }],
          ["gate", { case: "approvalResolved", value: { approved: true, by: "ada" } }],
          ["", { case: "finished", value: end }],
        ]);
        const before = new Map([
          [
            5,
            (signal: AbortSignal) =>
              new Promise<void>((resolve) => {
                release = resolve;
                signal.addEventListener("abort", () => resolve());
              }),
          ],
        ]);
        return tellRun(events, { before })(request, context);
      },
      getRun: ({ runId }) => ({ run: runId === large.id ? { ...large, output } : find(runId) }),
      listRuns(request) {
        listed.push(request);
        const { filter, pageSize } = request;
        return { runs: filter?.name === "none" ? [] : runs.slice(0, pageSize) };
      },
      listRunSteps(request) {
        listed.push(request);
        const all = [
          aStep("fetch", { target: "weather.GetForecast", output: fromJson(ValueSchema, { high: 21 }) }),
          aStep("notify", { state: StepState.FAILED, error: failed.error ?? { message: "" } }),
        ];
        return {
          steps: all.filter(({ path }) => request.paths.length === 0 || request.paths.includes(path)),
        };
      },
      cancelRun({ runId }) {
        cancelledIds.push(runId);
        release();
        return { run: cancelled };
      },
      retryRun(request) {
        retried.push(request);
        return { run: succeeded };
      },
      resolveApproval(request) {
        resolved.push(request);
        release();
        return { run: succeeded };
      },
      validateWorkflow: ({ source }) =>
        isInvalid(source)
          ? { valid: false, problems: [problem, warning] }
          : { valid: true, problems: [warning], workflow, graph },
      putWorkflow({ source }) {
        if (isInvalid(source))
          throw new ConnectError("steps[1].condition: unknown step", Code.InvalidArgument);
        return { workflow, warnings: [warning], changed: true };
      },
      getWorkflow({ name }) {
        if (name !== workflow.name)
          throw new ConnectError(`workflow "${name}" does not exist`, Code.NotFound);
        return { workflow, graph, yaml: "name: nightly\n" };
      },
      listWorkflows: ({ name }) => ({
        workflows: name === "" ? [workflow] : [workflow, { ...workflow, version: 2 } satisfies Workflow],
      }),
      deleteWorkflow: () => ({}),
      putAgent(request) {
        agents.push(request);
        return { agent: { ...request.agent, version: 2 } as never, changed: true };
      },
      getAgent: ({ name }) => ({
        agent: { name, version: 2, prompt: "You review.", tools: { names: ["git.*"] } },
      }),
      listAgents: () => ({ agents: [{ name: "reviewer", version: 2, description: "Reviews. Kindly." }] }),
      deleteAgent: () => ({}),
    },
  );
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => {
  losses = [];
  opened = [];
  asked = [];
  retried = [];
  resolved = [];
  agents = [];
  listed = [];
  cancelledIds = [];
  next = succeeded;
});

const start = (args: readonly string[], options: InProcessOptions = {}) =>
  startInProcess(args, { url: server.url, ...options });
const run = async (args: readonly string[], options: InProcessOptions = {}) =>
  await start(args, options).ended;
const terminal = { columns: 100, rows: 30 };
/** One JSON document a line. */
const documents = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe("workflow", () => {
  it("validate tells problems as editors read them, in the order of the file", async () => {
    const { code, stdout, stderr } = await run(["workflow", "validate", invalid]);
    expect(code).toBe(ExitCode.invalidArguments);
    expect(stdout).toBe(
      `${invalid}:4:3: warning UNKNOWN_TOOL: weather.GetForecast is not registered\n` +
        `${invalid}:7:15: error UNKNOWN_STEP: there is no step "fech": did you mean fetch?\n`,
    );
    expect(stderr).toContain("cannot be run: 1 error, 1 warning");
  });

  it("validate of one that can be run says so, also from stdin and as JSON", async () => {
    const { code, stderr } = await run(["workflow", "validate", valid]);
    expect(code).toBe(ExitCode.ok);
    expect(stderr).toBe("✓ nightly can be run: 2 steps, the longest chain 2; 1 warning\n");
    const json = await run(["workflow", "validate", "-", "--json"], { input: "name: nightly" });
    expect(documents(json.stdout)).toEqual([expect.objectContaining({ valid: true })]);
    expect((await run(["workflow", "check", "-"], { input: "invalid" })).stdout).toContain(
      "stdin:7:15: error",
    );
  });

  it("put says which version was made, what is suspicious, and when it starts by itself", async () => {
    const { code, stdout, stderr } = await run(["workflow", "apply", valid]);
    expect(code).toBe(ExitCode.ok);
    expect(stdout).toMatch(/^✓ Kept nightly v3\n {2}30 6 \* \* \* in Europe\/Berlin: next 2\d\d\d-/);
    expect(stderr).toContain(`${valid}:4:3: warning UNKNOWN_TOOL`);
  });

  it("put of one that is not valid keeps nothing, and names lines", async () => {
    const { code, stdout, stderr } = await run(["workflow", "put", invalid]);
    expect({ code, stdout }).toEqual({ code: ExitCode.invalidArguments, stdout: "" });
    expect(stderr).toContain(`${invalid}:7:15: error UNKNOWN_STEP`);
    expect(stderr).toContain("Nothing was kept");
    const json = await run(["workflow", "put", invalid, "--json"]);
    expect(json.code).toBe(ExitCode.invalidArguments);
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: "invalid_argument" } });
  });

  it("list, show, versions and delete", async () => {
    expect((await run(["workflow"])).stdout).toMatch(/nightly +v3 .*Reports the weather/);
    expect((await run(["workflow", "versions", "nightly"])).stdout).toMatch(/nightly +v3[\s\S]*nightly +v2/);
    const shown = await run(["workflow", "show", "nightly"]);
    expect(shown.stdout).toMatch(
      /nightly v3[\s\S]*Schedules[\s\S]*fetch +tool weather\.GetForecast[\s\S]*gate +approval +if +fetch/,
    );
    expect((await run(["workflow", "show", "nightly", "--yaml"])).stdout).toBe("name: nightly\n");
    expect((await run(["workflow", "show", "nightly", "--version", "x"])).code).toBe(ExitCode.usage);
    expect((await run(["workflow", "show", "daily"])).code).toBe(ExitCode.notFound);
    expect(await run(["workflow", "delete", "nightly"])).toMatchObject({
      code: 0,
      stdout: "✓ Forgot nightly\n",
    });
    const json = await run(["workflow", "list", "--json"]);
    expect(documents(json.stdout)).toEqual([
      { workflows: [expect.objectContaining({ name: "nightly" })], nextPageToken: "" },
    ]);
  });

  it("graph draws text, Mermaid and pictures, of kept workflows and of files", async () => {
    expect((await run(["workflow", "graph", "nightly"])).stdout).toBe(
      "fetch  tool weather.GetForecast\n  gate  approval  if  after fetch\n",
    );
    expect((await run(["workflow", "graph", valid, "--format", "mermaid"])).stdout).toMatch(
      /^flowchart LR\n/,
    );
    const file = join(folder, "nightly.svg");
    expect((await run(["workflow", "graph", "nightly", "-o", file])).stderr).toContain("Wrote");
    expect(await readFile(file, "utf8")).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect((await run(["workflow", "graph", invalid])).code).toBe(ExitCode.invalidArguments);
    const narrow = await run(["workflow", "graph", "nightly"], { terminal: { columns: 24, rows: 10 } });
    for (const line of stripVTControlCharacters(narrow.stdout).split("\n"))
      expect(line.length).toBeLessThanOrEqual(24);
  });

  it("run starts it with pairs as its schema says, and shows each event on a line", async () => {
    const { code, stdout } = await run([
      "workflow",
      "run",
      "nightly",
      "city=Berlin",
      "--input",
      "days=3",
      "--label",
      "a=b",
    ]);
    expect(code).toBe(ExitCode.ok);
    expect(asked).toMatchObject([
      {
        labels: { a: "b" },
        source: { kind: { case: "workflow", value: { input: { city: "Berlin", days: 3 } } } },
      },
    ]);
    const lines = stdout.split("\n").map((line) => line.replace(/^\d\d:\d\d:\d\d {2}/, ""));
    expect(lines).toContain("● running    fetch  tool weather.GetForecast");
    expect(lines).toContain("✓ succeeded  fetch  1.5 s");
    expect(lines).toContain("✓ succeeded  workflow nightly v3  2 steps");
    expect(stdout).toContain('"report": "fine"');
    expect(stdout).not.toContain("\u001b");
  });

  it("run of a file sends its text, after a check that names lines", async () => {
    expect((await run(["workflow", "run", valid, '{"days": 3}', "--timeout", "1h"])).code).toBe(ExitCode.ok);
    expect(asked).toMatchObject([
      {
        timeout: { seconds: 3600n },
        source: { kind: { value: { workflow: { case: "text", value: "name: nightly\nsteps: []\n" } } } },
      },
    ]);
    const refused = await run(["workflow", "run", invalid]);
    expect(refused.code).toBe(ExitCode.invalidArguments);
    expect(refused.stderr).toContain(":7:15: error");
    expect(asked).toHaveLength(1);
  });

  it("run ends with the code of its outcome, and says how to go on", async () => {
    next = failed;
    const { code, stdout } = await run(["workflow", "run", "nightly"]);
    expect(code).toBe(ExitCode.failure);
    expect(stdout).toContain("UNAVAILABLE: notify does not answer");
    expect(stdout).toContain("toolplane run retry run-failed");
    next = cancelled;
    expect((await run(["workflow", "run", "nightly"])).code).toBe(ExitCode.incomplete);
  });

  it("run with --json writes every event, with --output json only the output, with --detach only the id", async () => {
    const events = documents((await run(["workflow", "run", "nightly", "--json"])).stdout);
    expect(events.map(({ sequence }) => sequence)).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
    expect(events.at(-1)).toMatchObject({ finished: { output: { report: "fine", days: 3 } } });
    const quiet = await run(["workflow", "run", "nightly", "--output", "json"]);
    expect(documents(quiet.stdout)).toEqual([{ report: "fine", days: 3 }]);
    expect(quiet.stderr).toContain("✓ succeeded  fetch");
    const detached = await run(["workflow", "run", "nightly", "--detach"]);
    expect(detached).toMatchObject({ code: 0, stdout: `${RUN_ID}\n` });
    expect(detached.stderr).toContain("toolplane run watch 5093e212");
    // What is too large for an event is read once more.
    next = large;
    expect(documents((await run(["workflow", "run", "nightly", "--output", "json"])).stdout)).toEqual([
      { report: "fine", days: 3 },
    ]);
  });

  it.each([
    ["a file that is not there", ["./none.yaml"], "there is no such file"],
    ["input that is no JSON", ["nightly", "{"], "is not JSON"],
    ["input that is no pair", ["nightly", "Berlin"], "neither JSON nor a pair"],
    ["stdin for two things", ["-", "-"], "Stdin cannot hold the workflow and its input"],
  ])("run refuses %s", async (_, args, message) => {
    const { code, stderr } = await run(["workflow", "run", ...args]);
    expect(code).toBe(ExitCode.usage);
    expect(stderr).toContain(message);
    expect(asked).toEqual([]);
  });
});

describe("run", () => {
  it("list filters, and says what to do when nothing matches", async () => {
    const { stdout } = await run([
      ...["run", "list", "--state", "failed", "--kind", "workflow", "--name", "nightly", "--label", "a=b"],
    ]);
    expect(listed).toMatchObject([
      {
        filter: { states: [RunState.FAILED], kinds: [RunKind.WORKFLOW], name: "nightly", labels: { a: "b" } },
      },
    ]);
    expect(stdout).toMatch(/5093e212 +workflow +nightly v3 +✓ succeeded/);
    expect(stdout).toMatch(/run-waiting .*\? approval/);
    expect((await run(["run", "list", "--name", "none"])).stderr).toContain("No run matches");
    expect((await run(["run", "list", "--state", "odd"])).code).toBe(ExitCode.usage);
    const json = documents((await run(["runs", "--json"])).stdout);
    expect(json).toMatchObject([{ runs: runs.map(({ id }) => ({ id })) }]);
  });

  it("show tells the outcome, the steps, what failed and the output", async () => {
    const { stdout } = await run(["run", "show", "run-failed"]);
    expect(stdout).toMatch(/^✗ failed {2}workflow nightly v3 {2}2 steps {2}1 failed\n/);
    expect(stdout).toContain("UNAVAILABLE: notify does not answer");
    expect(stdout).toMatch(/✓ succeeded {2}fetch +1\.5 s {2}tool weather\.GetForecast/);
    const [json] = documents((await run(["run", "show", "latest", "--json"])).stdout);
    expect(json).toMatchObject({ run: { id: RUN_ID }, steps: [{ path: "fetch" }, { path: "notify" }] });
    expect((await run(["run", "show", "run-waiting"])).stdout).toContain(
      "toolplane run approve run-waiting gate",
    );
  });

  it("runs are named by their id, the beginning of it, or as the latest", async () => {
    for (const name of [RUN_ID, "5093e2", "latest"]) {
      expect((await run(["run", "show", name])).stdout).toContain(RUN_ID);
    }
    expect((await run(["run", "show", "latest~1"])).stdout).toContain("run-failed");
    expect((await run(["run", "show", "latest~9"])).code).toBe(ExitCode.notFound);
    expect((await run(["run", "show", "5093"])).stderr).toContain("is the beginning of several runs");
    expect((await run(["run", "show", "abcdef"])).code).toBe(ExitCode.notFound);
    expect((await run(["run", "show", "nothing"])).code).toBe(ExitCode.notFound);
  });

  it("steps and output show what each step gave back", async () => {
    expect((await run(["run", "steps", "latest"])).stdout).toMatch(/notify +✗ failed .*UNAVAILABLE/);
    const filtered = await run(["run", "steps", "latest", "fetch", "--state", "succeeded", "--json"]);
    expect(listed.at(-1)).toMatchObject({ $typeName: ListRunStepsRequestSchema.typeName, paths: ["fetch"] });
    expect(listed[0]).toMatchObject({ $typeName: ListRunsRequestSchema.typeName });
    expect(documents(filtered.stdout)).toMatchObject([{ steps: [{ path: "fetch", output: { high: 21 } }] }]);
    expect((await run(["run", "output", "latest"])).stdout).toBe('{"report":"fine","days":3}\n');
    expect((await run(["run", "output", "latest", "fetch"])).stdout).toBe('{"high":21}\n');
    expect((await run(["run", "output", "latest", "none"])).code).toBe(ExitCode.notFound);
  });

  it("watch tells every event once, however often the connection is lost", async () => {
    losses = [1, 0, 2, 3];
    const { code, stdout } = await run(["run", "watch", RUN_ID, "--json"]);
    expect(code).toBe(ExitCode.ok);
    expect(documents(stdout).map(({ sequence }) => Number(sequence))).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(opened.length).toBeGreaterThan(3);
    losses = [2];
    const text = await run(["run", "watch", RUN_ID]);
    expect(text.stdout.match(/✓ succeeded {2}fetch/g)).toHaveLength(1);
    expect(text.stderr.match(/Connection lost/g)).toHaveLength(1);
    const after = await run(["run", "watch", RUN_ID, "--after", "5", "--json"]);
    expect(documents(after.stdout).map(({ sequence }) => sequence)).toEqual(["6", "7"]);
  });

  it("retry, approve, reject and cancel steer a run", async () => {
    expect((await run(["run", "retry", "run-failed", "--from", "fetch"])).code).toBe(ExitCode.ok);
    expect(retried).toMatchObject([{ runId: "run-failed", fromSteps: ["fetch"] }]);
    expect((await run(["run", "approve", "run-waiting", "gate", "--comment", "yes"])).stdout).toContain(
      "✓ approved",
    );
    expect((await run(["run", "reject", "run-waiting"])).stdout).toContain("✗ refused");
    expect(resolved).toMatchObject([
      { runId: "run-waiting", path: "gate", approved: true, comment: "yes" },
      { runId: "run-waiting", path: "", approved: false },
    ]);
    expect((await run(["run", "cancel", "run-waiting"])).stdout).toContain("■ cancelled");
    expect(cancelledIds).toEqual(["run-waiting"]);
  });

  it("an interruption leaves the run to itself, and says how to see and stop it", async () => {
    const command = start(["run", "watch", "run-waiting"]);
    await expect.poll(() => command.stdout()).toContain("toolplane run approve run-waiting gate");
    command.interrupt();
    const { code, stderr } = await command.ended;
    expect(code).toBe(ExitCode.interrupted);
    expect(stderr).toContain("toolplane run watch run-waiting");
    expect(stderr).toContain("toolplane run cancel run-waiting");
    expect(cancelledIds).toEqual([]);
  });

  it("an interruption cancels the run where that was asked for, and stays to its end", async () => {
    const command = start(["run", "watch", "run-waiting", "--cancel-on-interrupt"]);
    await expect.poll(() => command.stdout()).toContain("Deploy?");
    command.interrupt();
    const { code, stdout, stderr } = await command.ended;
    expect({ code, cancelledIds }).toEqual({ code: ExitCode.interrupted, cancelledIds: ["run-waiting"] });
    expect(stderr).toContain("Cancelling the run");
    expect(stdout).toContain("✓ succeeded  workflow nightly v3");
  });

  it("batch reads a list or one call a line, and says which one is wrong", async () => {
    const list = '[{"tool": "a.B", "arguments": {"x": 1}}, {"tool": "a.C"}]';
    expect(
      (await run(["run", "batch", "-", "--concurrency", "3", "--attempts", "2"], { input: list })).code,
    ).toBe(0);
    const lines = '{"tool": "a.B", "arguments": {"x": 1}}\n\n{"tool": "a.C"}\n';
    expect((await run(["run", "batch", "-", "--call-timeout", "2s"], { input: lines })).code).toBe(0);
    const calls = [{ tool: "a.B", input: { case: "arguments", value: { x: 1 } } }, { tool: "a.C" }];
    expect(asked.map(({ source }) => source?.kind)).toMatchObject([
      { case: "toolBatch", value: { calls, maxConcurrency: 3, retry: { attempts: 2 } } },
      { case: "toolBatch", value: { calls, timeout: { seconds: 2n } } },
    ]);
    const wrong = await run(["run", "batch", "-"], { input: '{"tool": "a.B"}\n{"tol": "a.C"}' });
    expect(wrong).toMatchObject({
      code: ExitCode.usage,
      stderr: expect.stringContaining("Line 2 of stdin is no call"),
    });
    expect((await run(["run", "batch", "-"], { input: "[]" })).stderr).toContain("holds no calls");
  });
});

describe("on a terminal", () => {
  it("a run is drawn in place, and ends as text that stays", async () => {
    const { code, stdout } = await run(["run", "watch", "run-failed"], { terminal, env: { NO_COLOR: "1" } });
    expect(code).toBe(ExitCode.failure);
    const text = stripVTControlCharacters(stdout);
    expect(text).toContain("✗ failed     notify");
    expect(text).toContain("✗ failed  workflow nightly v3  2 steps  1 failed");
    // Moves the cursor, but does not colour.
    expect(stdout).not.toContain("\u001b[31m");
  });

  it("what a run asks is answered with a key, once", async () => {
    const command = start(["run", "watch", "run-waiting"], { terminal });
    await expect.poll(() => stripVTControlCharacters(command.stdout())).toContain("y approves, n refuses");
    command.press("x");
    command.press("y");
    command.press("y");
    expect((await command.ended).code).toBe(ExitCode.ok);
    expect(resolved).toMatchObject([{ runId: "run-waiting", path: "gate", approved: true }]);
  });

  it("Ctrl-C, which the terminal hands over as a key, leaves the run", async () => {
    const command = start(["run", "watch", "run-waiting"], { terminal });
    await expect.poll(() => stripVTControlCharacters(command.stdout())).toContain("Deploy?");
    command.press("\u0003");
    const { code, stderr } = await command.ended;
    expect(code).toBe(ExitCode.interrupted);
    expect(stderr).toContain("The run goes on");
  });

  it("the tables fit, however narrow it is", async () => {
    for (const args of [["run"], ["workflow"], ["agent"], ["run", "steps", "latest"]]) {
      const { stdout } = await run(args, { terminal: { columns: 72, rows: 20 } });
      for (const line of stripVTControlCharacters(stdout).split("\n"))
        expect(line.length).toBeLessThanOrEqual(72);
    }
  });
});

describe("orchestrate", () => {
  it("sends words, tools and limits, and prints the answer as text", async () => {
    next = answer;
    const { code, stdout } = await run([
      ...[
        "orchestrate",
        "Compare",
        "Berlin",
        "and Rome",
        "--model",
        "anthropic/claude",
        "--tool",
        "weather.*",
      ],
      ...["--tool", "geo.*", "--tag", "demo", "--max-turns", "5", "--max-cost", "0.50", "--max-time", "5m"],
    ]);
    expect(code).toBe(ExitCode.ok);
    expect(asked[0]?.source?.kind).toMatchObject({
      case: "requirement",
      value: {
        text: "Compare Berlin and Rome",
        model: "anthropic/claude",
        tools: { names: ["weather.*", "geo.*"], tags: ["demo"], none: false },
        budget: { maxTurns: 5, maxCostUsd: 0.5, maxTime: { seconds: 300n } },
      },
    });
    expect(stdout).toMatch(/\nRome is warmer\.\n$/);
    expect(stdout).not.toContain("\u001b");
  });

  it.each([
    [["  "], "Nothing is said"],
    [["x", "--max-cost", "cheap"], "is not a sum in dollars"],
    [["x", "--max-turns", "0"], "is not a whole number from 1"],
    [["x", "--no-tools", "--tag", "a"], "--no-tools leaves no tool"],
  ])("refuses %j", async (args, message) => {
    const { code, stderr } = await run(["orchestrate", ...args]);
    expect(code).toBe(ExitCode.usage);
    expect(stderr).toContain(message);
  });
});

describe("agent", () => {
  it("put reads YAML and JSON, with the names of the contract or of JSON", async () => {
    const file = join(folder, "reviewer.yaml");
    await writeFile(
      file,
      "name: reviewer\nprompt: |\n  You review.\ncache_excluded: true\ntools:\n  names: [git.*]\n",
    );
    expect((await run(["agent", "put", file])).stdout).toBe("✓ Kept reviewer v2\n");
    const json = '{"name": "reviewer", "prompt": "x", "timeout": "30s"}';
    expect((await run(["agent", "put", "-"], { input: json })).code).toBe(ExitCode.ok);
    expect(agents.map(({ agent }) => agent)).toMatchObject([
      { name: "reviewer", prompt: "You review.\n", cacheExcluded: true, tools: { names: ["git.*"] } },
      { prompt: "x", timeout: { seconds: 30n } },
    ]);
  });

  it.each([
    ["no YAML", "name: [", /Stdin:1:\d+: /],
    ["an unknown field", "nmae: x", /Stdin is no agent: .*nmae/],
    ["a list", "- x", /an agent is an object/],
    [
      "a document that grows",
      `a: &a [x,x,x,x]\n${"bcdefgh"
        .split("")
        .map((n, i) => `${n}: &${n} [${`*${"abcdefg"[i]},`.repeat(9)}]`)
        .join("\n")}`,
      /no agent/,
    ],
  ])("put refuses %s", async (_, input, message) => {
    const { code, stderr } = await run(["agent", "put", "-"], { input });
    expect(code).toBe(ExitCode.usage);
    expect(stderr).toMatch(message);
    expect(agents).toEqual([]);
  });

  it("list, show and delete", async () => {
    expect((await run(["agent"])).stdout).toMatch(/reviewer +v2 +default +none .*Reviews/);
    expect((await run(["agent", "show", "reviewer"])).stdout).toMatch(/Tools +git\.\*[\s\S]*You review\./);
    expect((await run(["agent", "delete", "reviewer"])).stdout).toBe("✓ Forgot reviewer\n");
  });

  it("run gives tasks from words and from a file", async () => {
    const file = join(folder, "tasks.txt");
    await writeFile(file, "two\r\n\n three \n");
    expect(
      (await run(["agent", "run", "reviewer", "one", "--tasks", `@${file}`, "--concurrency", "2"])).code,
    ).toBe(0);
    expect(asked[0]?.source?.kind).toMatchObject({
      case: "agentTasks",
      value: {
        tasks: ["one", "two", "three"].map((task) => ({ agent: "reviewer", task })),
        maxConcurrency: 2,
      },
    });
    expect((await run(["agent", "run", "reviewer"])).stderr).toContain("There is no task");
  });
});

describe("completion", () => {
  it("offers runs, workflows, agents and verbs", async () => {
    const completed = async (...words: string[]) =>
      (await run(["__complete", "--", ...words])).stdout.split("\n").map((line) => line.split("\t")[0]);
    expect(await completed("run", "watch", "")).toEqual(expect.arrayContaining(["latest", "5093e212"]));
    expect(await completed("workflow", "run", "n")).toContain("nightly");
    expect(await completed("agent", "show", "")).toContain("reviewer");
    expect(await completed("run", "a")).toContain("approve");
    expect(await completed("run", "watch", "latest", "--output", "j")).toContain("json");
    expect(await completed("test", "watch", "")).not.toContain("5093e212");
  });
});

describe("help", () => {
  it.each([
    ...["list", "show", "watch", "steps", "output", "cancel", "retry", "approve", "reject", "batch"].map(
      (verb) => ["run", verb],
    ),
    ...["list", "validate", "put", "show", "versions", "delete", "graph", "run"].map((verb) => [
      "workflow",
      verb,
    ]),
    ...["list", "show", "put", "delete", "run"].map((verb) => ["agent", verb]),
    ["orchestrate"],
  ])("of %s %s has examples", async (...words) => {
    const { code, stdout } = await run([...words.filter((word) => word !== undefined), "--help"]);
    expect(code).toBe(ExitCode.ok);
    expect(stdout).toContain(`Examples:\n  $ `);
  });
});
