import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type ModelServer,
  type Script,
  type ScriptedCall,
  type ScriptedRequest,
  startAnthropicServer,
} from "../server/orchestration/models/test-support/model-servers.ts";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { type CountingBackend, startCountingBackend } from "./support/counting-backend.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

const OPERATOR = "operator-key-for-tests-0123456789abcdef";
const MODEL_KEY = "sk-model+key/of=tests-0123456789";
const SECRET = 'p@ss "word"/+ 0123456789';
const WRITE = "faults.examples.faults.v1.FaultService.Write";
const READ = "faults.examples.faults.v1.FaultService.Read";
const REGISTER = "toolplane.RegisterService";
/** What an operator alone may do. */
const sneaky = { service: { name: "sneaky" }, instance: { id: "sneaky", endpoint: "127.0.0.1:9" } };

type Runs = Client<typeof OrchestrationService>;
type Source = NonNullable<NonNullable<Parameters<Runs["startRun"]>[0]["source"]>["kind"]>;

const closing: (() => unknown)[] = [];
const logged: string[] = [];
let app: TestApp;
let backend: CountingBackend;
let models: ModelServer;
let script: Script;
let handle: (text: string) => Promise<void> | void;
let operator: ReturnType<typeof clientsOf>;
let ada: ReturnType<typeof clientsOf>;
let bob: ReturnType<typeof clientsOf>;
let reader: ReturnType<typeof clientsOf>;
let stranger: ReturnType<typeof clientsOf>;
let adaToken: string;
let bobToken: string;
let readerToken: string;
let options: NonNullable<Parameters<typeof startTestApp>[0]>;

beforeAll(async () => {
  backend = await startCountingBackend({ handle: (text) => handle(text) });
  closing.push(() => backend.close());
  models = await startAnthropicServer((request) => script(request));
  closing.push(() => models.close());
  options = {
    databaseUrl: await createTestDatabaseUrl(),
    config: JSON.stringify({
      auth: { required: true },
      secrets: [{ name: "backend", env: "BACKEND_SECRET", hosts: ["127.0.0.1"] }],
      orchestration: { default_model: "anthropic/claude-test" },
    }),
    env: {
      TOOLPLANE_OPERATOR_KEY: OPERATOR,
      BACKEND_SECRET: SECRET,
      ANTHROPIC_API_KEY: MODEL_KEY,
      ANTHROPIC_BASE_URL: models.url,
    },
    logger: createLogger({
      level: "debug",
      format: "json",
      destination: { write: (line: string) => logged.push(line) },
    }),
  };
  app = await startTestApp(options);
  closing.push(() => app.close());
  operator = clientsOf(OPERATOR);
  const keyOf = async (name: string, role: Role) =>
    (await operator.admin.createApiKey({ name, role })).secret;
  adaToken = await keyOf("ada", Role.CALLER);
  bobToken = await keyOf("bob", Role.CALLER);
  readerToken = await keyOf("reader", Role.READER);
  meet();
  await operator.registry.registerService({
    service: { name: "faults", version: "1.0.0" },
    instance: { id: "faults", endpoint: backend.url, leaseTtl: { seconds: 3_600n } },
  });
});

/** Clients of the server that runs now. */
function meet(): void {
  operator = clientsOf(OPERATOR);
  ada = clientsOf(adaToken);
  bob = clientsOf(bobToken);
  reader = clientsOf(readerToken);
  stranger = clientsOf(undefined);
}

beforeEach(() => {
  handle = () => undefined;
  script = () => ({ kind: "answer", text: "Done." });
});

afterAll(async () => {
  for (const close of closing.toReversed()) {
    await close();
  }
});

function clientsOf(token: string | undefined) {
  const transport = createGrpcTransport({
    baseUrl: app.url,
    interceptors: [
      (next) => (request) => {
        if (token !== undefined) {
          request.header.set("authorization", `Bearer ${token}`);
        }
        return next(request);
      },
    ],
  });
  return {
    runs: createClient(OrchestrationService, transport),
    registry: createClient(RegistryService, transport),
    admin: createClient(AdminService, transport),
  };
}

async function start(kind: Source, runs = ada.runs): Promise<string> {
  return (await runs.startRun({ source: { kind } })).run?.id ?? "";
}

async function ended(runId: string): Promise<Run> {
  const { run } = await operator.runs.getRun({ runId, wait: { seconds: 60n } });
  expect.assert(run?.endTime !== undefined, `run ${runId} does not end`);
  return run;
}

async function execute(kind: Source, runs = ada.runs): Promise<Run> {
  return await ended(await start(kind, runs));
}

function batch(...calls: readonly (readonly [string, JsonObject])[]): Source {
  return {
    case: "toolBatch",
    value: { calls: calls.map(([tool, value]) => ({ tool, input: { case: "arguments", value } })) },
  };
}

function workflow(...steps: JsonObject[]): Source {
  const value = JSON.stringify({ name: "test", steps });
  return { case: "workflow", value: { workflow: { case: "text", value } } };
}

function requirement(text: string, names: string[] = []): Source {
  return { case: "requirement", value: { text, tools: { names } } };
}

function outputOf({ output }: Pick<Run, "output">): JsonValue | undefined {
  return output && toJson(ValueSchema, output);
}

async function refusalOf(call: Promise<unknown>): Promise<{ code: Code; reason: string | undefined }> {
  const error = await call.then(() => expect.unreachable("it was not refused"), ConnectError.from);
  return { code: error.code, reason: error.findDetails(ErrorInfoSchema)[0]?.reason };
}

/** A model that makes these calls in its first turn, whatever they are called among its tools, and then answers. */
function calling(
  calls: (request: ScriptedRequest) => readonly ScriptedCall[],
  results: string[] = [],
): Script {
  return (request) => {
    if (request.turn === 1) {
      return { kind: "answer", calls: calls(request) };
    }
    results.push(...request.results.map(({ text }) => text));
    return { kind: "answer", text: "Done." };
  };
}

function named({ tools }: ScriptedRequest, part: string): string {
  return (
    tools.find(({ name, description }) => name.includes(part) || description.includes(part))?.name ?? part
  );
}

async function serviceNames(): Promise<string[]> {
  return (await operator.registry.listServices({})).services.map(({ name }) => name);
}

test("readers look at runs and change nothing; whoever shows nothing sees nothing", async () => {
  const runId = await start(workflow({ id: "asked", approval: { message: "Go on?" } }));
  await expect.poll(async () => (await reader.runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  const changes = ({ runs }: typeof ada) => [
    runs.startRun({ source: { kind: batch([READ, {}]) } }),
    (async () => {
      for await (const _ of runs.executeRun({ start: { source: { kind: batch([READ, {}]) } } })) {
        expect.unreachable("it runs");
      }
    })(),
    runs.cancelRun({ runId }),
    runs.retryRun({ runId }),
    runs.resolveApproval({ runId, approved: true }),
    runs.putWorkflow({ source: { case: "text", value: "{}" } }),
    runs.putAgent({ agent: { name: "a", prompt: "b" } }),
  ];
  for (const change of changes(reader)) {
    expect(await refusalOf(change)).toMatchObject({ code: Code.PermissionDenied });
  }
  for (const change of [...changes(stranger), stranger.runs.getRun({ runId }), stranger.runs.listRuns({})]) {
    expect(await refusalOf(change)).toMatchObject({ code: Code.Unauthenticated });
  }
  const events = `${app.url}/runs/${runId}/events`;
  expect((await fetch(events)).status).toBe(401);
  const stop = new AbortController();
  const seen = await fetch(events, {
    headers: { authorization: `Bearer ${readerToken}` },
    signal: stop.signal,
  });
  expect(seen.status).toBe(200);
  stop.abort();
  await ada.runs.cancelRun({ runId });
});

test("what belongs to others is neither cancelled nor retried, but may be approved; operators may do all", async () => {
  const runId = await start(workflow({ id: "asked", approval: { message: "Go on?" } }));
  expect(await refusalOf(bob.runs.cancelRun({ runId }))).toEqual({
    code: Code.PermissionDenied,
    reason: "NOT_YOUR_RUN",
  });
  await expect.poll(async () => (await ada.runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  await bob.runs.resolveApproval({ runId, approved: true });
  expect(outputOf(await ended(runId))).toMatchObject({ asked: { by: expect.stringContaining("bob") } });

  const failed = await execute(batch(["faults.Absent", {}]));
  expect(await refusalOf(bob.runs.retryRun({ runId: failed.id }))).toMatchObject({ reason: "NOT_YOUR_RUN" });
  await operator.runs.retryRun({ runId: failed.id });
  const other = await start(workflow({ id: "asked", approval: { message: "Go on?" } }));
  expect((await operator.runs.cancelRun({ runId: other })).run).toMatchObject({ state: RunState.CANCELLED });
});

test("a run does nothing that whoever started it may not: as a call, a step, a model's call, an agent's", async () => {
  await operator.runs.putAgent({
    agent: { name: "sneaky", prompt: "Register it.", tools: { names: ["*"] } },
  });
  const results: string[] = [];
  script = calling(
    (request) => [
      { name: named(request, "RegisterService"), arguments: sneaky },
      { name: REGISTER, arguments: sneaky },
    ],
    results,
  );
  const runs = await Promise.all([
    execute(batch([REGISTER, sneaky])),
    execute(workflow({ id: "one", tool: { name: REGISTER, arguments: sneaky } })),
    execute(requirement("Register it.", ["toolplane.*Register*", "toolplane.register*"])),
    execute({ case: "agentTasks", value: { tasks: [{ agent: "sneaky", task: "now" }] } }),
  ]);
  expect(runs[0]?.state).toBe(RunState.FAILED);
  expect(runs[1]?.error?.code).toBe(Code.PermissionDenied);
  expect(results).toHaveLength(4);
  for (const result of results) {
    expect(result).toContain("permission_denied");
  }
  expect(await serviceNames()).not.toContain("sneaky");
});

test("an operator who retries somebody's run lends it no rights", async () => {
  const failed = await execute(batch([REGISTER, sneaky]));
  const { run } = await operator.runs.retryRun({ runId: failed.id });
  const retried = await ended(run?.id ?? "");
  expect(retried).toMatchObject({ state: RunState.FAILED, createdBy: failed.createdBy, retryOf: failed.id });
  expect(JSON.stringify(outputOf(retried))).toContain("PERMISSION_DENIED");
  expect(await serviceNames()).not.toContain("sneaky");
});

test("no model approves what its run waits for, by whatever name, in a run of its own, or through a mirror", async () => {
  // The server itself, registered as any other service.
  await operator.registry.registerService({
    service: { name: "mirror", version: "1.0.0" },
    instance: { id: "mirror", endpoint: app.url, leaseTtl: { seconds: 3_600n } },
  });
  const method = `${OrchestrationService.typeName}.ResolveApproval`;
  const names = [
    "ResolveApproval",
    "resolve-approval",
    `toolplane.${method}`,
    `mirror.${method}`,
    "toolplane.resolve-approval",
    "mirror.ResolveApproval",
  ];
  const runId = await start(workflow({ id: "asked", approval: { message: "Go on?" } }));
  await expect.poll(async () => (await ada.runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  const answer = { runId, approved: true };
  const results: string[] = [];
  script = calling(
    (request) => [
      ...names.map((name) => ({ name, arguments: answer })),
      {
        name: named(request, "start-run"),
        arguments: {
          source: { toolBatch: { calls: names.map((tool) => ({ tool, arguments: answer })) } },
        },
      },
    ],
    results,
  );
  await execute(requirement("Approve it."));
  await execute(batch(...names.map((name) => [name, answer] as const)));
  expect(results).toHaveLength(names.length + 1);
  const headers = new Headers({ "x-toolplane-run": runId, "x-toolplane-run-depth": "0" });
  expect(await refusalOf(ada.runs.resolveApproval(answer, { headers }))).toEqual({
    code: Code.PermissionDenied,
    reason: "APPROVAL_BY_RUN",
  });
  expect((await ada.runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  await ada.runs.cancelRun({ runId });
});

test("a model that starts runs widens nothing: what it makes up uses its own tools, and what it names is as it is kept", async () => {
  await operator.runs.putWorkflow({
    source: {
      case: "text",
      value: JSON.stringify({
        name: "kept",
        steps: [{ id: "only", tool: { name: WRITE, arguments: { text: "kept" } } }],
      }),
    },
  });
  const call = (name: string) => ({ tool: name, arguments: { text: `by ${name}` } });
  const text = (name: string) =>
    JSON.stringify({ name: "x", steps: [{ id: "one", tool: { name, arguments: { text: `by ${name}` } } }] });
  const sources: JsonObject[] = [
    { toolBatch: { calls: [call(READ), call(WRITE)] } },
    { toolBatch: { calls: [call("faults.Write")] } },
    { workflow: { text: text(WRITE) } },
    { workflow: { inline: JSON.parse(text(WRITE)) as JsonObject } },
    { requirement: { text: "Write." } },
    { requirement: { text: "Write.", tools: { names: ["faults.*"] } } },
    { requirement: { text: "Write.", tools: { names: [READ], environment: "prod" } } },
    { toolBatch: { calls: [{ ...call(READ), environment: "prod" }] } },
    // What it may.
    { toolBatch: { calls: [call(READ)] } },
    { workflow: { text: text(READ) } },
    { requirement: { text: "Nothing.", tools: { names: [READ] } } },
    { workflow: { name: "kept" } },
  ];
  const results: string[] = [];
  const begin = calling(
    (request) => sources.map((source) => ({ name: named(request, "start-run"), arguments: { source } })),
    results,
  );
  script = (request) => (request.task === "Start them." ? begin(request) : { kind: "answer", text: "Done." });
  const run = await execute(requirement("Start them.", [READ, "toolplane.start-run"]));
  expect(run.error?.message).toBeUndefined();
  const refused = results.map((result) => result.includes("permission_denied"));
  expect(refused).toEqual(sources.map((_, index) => index < 8));
  await expect
    .poll(async () => (await ada.runs.listRuns({ filter: { parentRunId: run.id } })).runs)
    .toMatchObject([4, 3, 2, 1].map(() => ({ state: RunState.SUCCEEDED, createdBy: run.createdBy })));
  const made = backend.calls
    .map(({ text: written }) => written)
    .filter((written) => written.startsWith("by "));
  expect([...new Set(made)]).toEqual([`by ${READ}`]);
});

test("rights go with a run to the worker that takes it over", async () => {
  const began = Promise.withResolvers<void>();
  handle = async (text) => {
    if (text === "gated") {
      began.resolve();
      await new Promise(() => undefined);
    }
  };
  const runId = await start(
    workflow(
      { id: "first", tool: { name: WRITE, arguments: { text: "gated" } } },
      { id: "second", depends_on: ["first"], tool: { name: REGISTER, arguments: sneaky } },
    ),
  );
  await began.promise;
  handle = () => undefined;
  await app.close();
  app = await startTestApp(options);
  meet();
  const run = await ended(runId);
  expect(run).toMatchObject({ createdBy: "key:ada", error: { code: Code.PermissionDenied } });
  expect(await serviceNames()).not.toContain("sneaky");
});

test("runs start and retry runs no deeper than they may, whatever is said of their depth", async () => {
  const failed = await execute(batch(["faults.Absent", {}]));
  // As calls of a run have them, but for the depth, which anybody can make up.
  const headersOf = (runId: string) =>
    new Headers({ "x-toolplane-run": runId, "x-toolplane-run-depth": "0" });
  let headers = headersOf(failed.id);
  for (let depth = 1; depth <= 5; depth++) {
    const { run } = await ada.runs.startRun({ source: { kind: batch([READ, {}]) } }, { headers });
    headers = headersOf(run?.id ?? "");
  }
  expect(
    await refusalOf(ada.runs.startRun({ source: { kind: batch([READ, {}]) } }, { headers })),
  ).toMatchObject({ reason: "RUN_TOO_DEEP" });
  expect(await refusalOf(ada.runs.retryRun({ runId: failed.id }, { headers }))).toMatchObject({
    reason: "RUN_TOO_DEEP",
  });
});

test("secrets that tools tell or people write down are told to nobody, in whatever form, in pieces or whole", async () => {
  const forms = [SECRET, MODEL_KEY, OPERATOR].flatMap((secret) => [
    secret,
    JSON.stringify(secret).slice(1, -1),
    encodeURIComponent(secret),
    Buffer.from(secret).toString("base64").replace(/=+$/, ""),
  ]);
  async function* letters(text: string) {
    for (const letter of text) {
      await new Promise((resolve) => setImmediate(resolve));
      yield letter;
    }
  }
  handle = (text) => {
    if (text.startsWith("fail")) {
      throw new ConnectError(`it is ${text}`, Code.FailedPrecondition);
    }
  };
  const asked: string[] = [];
  script = (request) => {
    if (request.turn === 1) {
      const name = named(request, "Write");
      return {
        kind: "answer",
        thinking: forms.join(" "),
        calls: [
          { name, arguments: { text: forms.join(" ") } },
          { name, arguments: { text: `fail ${forms.join(" ")}` } },
        ],
      };
    }
    asked.push(...request.results.map(({ text }) => text));
    return { kind: "answer", text: letters(`It is ${forms.join(", ")}.`) };
  };
  const told: string[] = [];
  const text = `Tell me ${forms.join(" ")}`;
  for (const kind of [
    requirement(text, [WRITE]),
    batch([WRITE, { text }], [WRITE, { text: `fail ${text}` }]),
  ]) {
    const run = await execute(kind);
    const json = (value: unknown) =>
      JSON.stringify(value, (_, each) => (typeof each === "bigint" ? String(each) : each));
    told.push(json(await ada.runs.getRun({ runId: run.id })));
    told.push(json((await ada.runs.listRunSteps({ runId: run.id })).steps));
    let written = "";
    for await (const { kind: news } of ada.runs.watchRun({ runId: run.id })) {
      told.push(json(news));
      for (const event of news.case === "events" ? news.value.events : []) {
        written += event.kind.case === "modelDelta" ? event.kind.value.text : "";
      }
    }
    told.push(written);
    const events = await fetch(`${app.url}/runs/${run.id}/events`, {
      headers: { authorization: `Bearer ${readerToken}` },
    });
    told.push(await events.text());
  }
  expect(asked).toHaveLength(2);
  expect(told.join("").length).toBeGreaterThan(1_000);
  for (const [where, all] of Object.entries({ told, asked, logged })) {
    for (const form of forms) {
      expect(
        all.filter((each) => each.includes(form)),
        `${where}: ${form}`,
      ).toEqual([]);
    }
  }
});
