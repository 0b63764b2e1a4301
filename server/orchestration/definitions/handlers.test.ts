import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { BadRequestSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import { SampleService } from "../../../framework/test-support/sample-service.ts";
import { emptyRegistry, startServer } from "../../registry/test-support/open-registry.ts";
import { instance, service } from "../../registry/test-support/specs.ts";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { checkSchedule } from "../worker/cron.ts";
import { deleteSchedules, nextTimes, putSchedules } from "../worker/schedules.ts";
import { createWorkflowValidator } from "../workflows/validation.ts";
import { definitionHandlers } from "./handlers.ts";
import { agentKind, workflowKind } from "./kinds.ts";
import { createDefinitions } from "./store.ts";

const clock = createFakeClock(Date.UTC(2026, 0, 1));
let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await database.kysely.deleteFrom("orchestration_definitions").execute();
  await database.kysely.deleteFrom("workflow_schedules").execute();
});

/** A server with the methods for workflows and agents, and one tool, `s.Echo`. */
async function openClient(): Promise<Client<typeof OrchestrationService>> {
  const registry = await emptyRegistry(database);
  const tools = await startServer({
    routes: (router) => router.service(SampleService, { echo: (request) => request }),
  });
  await registry.register(service({ name: "s" }), instance({ id: "one", endpoint: tools.url }));
  const agents = createDefinitions({ database, clock, kind: agentKind });
  const workflows = createDefinitions({
    database,
    clock,
    kind: workflowKind,
    onPut: (transaction, workflow, by) => putSchedules(transaction, workflow, by, clock.now()),
    onDelete: deleteSchedules,
  });
  const handlers = definitionHandlers({
    workflows,
    agents,
    validator: createWorkflowValidator({ registry, workflows, agents, checkSchedule }),
    nextTimes: (workflow) => nextTimes(database.kysely, workflow),
  });
  const server = await startServer({ routes: (router) => router.service(OrchestrationService, handlers) });
  return createClient(
    OrchestrationService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "2" }),
  );
}

const nightly = `
name: nightly
description: Says hello, twice.
steps:
  - id: hello
    tool: { name: s.Echo, arguments: { value: "hello" } }
  - id: again
    tool: { name: s.Echo, arguments: { value: "\${steps.hello.output}" } }
schedules:
  - cron: 30 6 * * *
`;

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  return ConnectError.from(
    await call.then(
      () => expect.unreachable(),
      (error: unknown) => error,
    ),
  );
}

function fieldsOf(error: ConnectError): string[] {
  return error
    .findDetails(BadRequestSchema)
    .flatMap(({ fieldViolations }) =>
      fieldViolations.map(({ field, description }) => `${field}: ${description}`),
    );
}

test("a workflow is put as text, and comes back as a message, as a graph and as text that can be put again", async () => {
  const client = await openClient();
  const put = await client.putWorkflow({ source: { case: "text", value: nightly } });
  expect(put).toMatchObject({ changed: true, workflow: { name: "nightly", version: 1 } });
  const { workflow, graph, yaml } = await client.getWorkflow({ name: "nightly" });
  expect(workflow).toEqual(put.workflow);
  expect(graph).toMatchObject({ depth: 2, edges: [{ from: "hello", to: "again", data: true }] });
  const again = await client.putWorkflow({ source: { case: "text", value: yaml } });
  expect(again).toMatchObject({ changed: false, workflow: { version: 1 } });
  const asMessage = await client.putWorkflow({
    source: { case: "workflow", value: workflow ?? {} },
    etag: workflow?.etag ?? "",
  });
  expect(asMessage.changed).toBe(false);
});

test("schedules say when they start the next run: those of the newest version, and of no other", async () => {
  const client = await openClient();
  const timesOf = (workflow: { schedules: { nextTime?: unknown }[] } | undefined) =>
    workflow?.schedules.map(({ nextTime }) => nextTime !== undefined);
  const { workflow } = await client.putWorkflow({ source: { case: "text", value: nightly } });
  const next = workflow?.schedules[0]?.nextTime;
  expect(next && timestampMs(next)).toBe(Date.UTC(2026, 0, 1, 6, 30));
  await client.putWorkflow({ source: { case: "text", value: nightly.replace("twice", "two times") } });
  expect(timesOf((await client.getWorkflow({ name: "nightly" })).workflow)).toEqual([true]);
  expect(timesOf((await client.getWorkflow({ name: "nightly", version: 2 })).workflow)).toEqual([true]);
  expect(timesOf((await client.getWorkflow({ name: "nightly", version: 1 })).workflow)).toEqual([false]);
  const all = await client.listWorkflows({});
  expect(all.workflows.map((each) => [each.version, each.steps.length, timesOf(each)])).toEqual([
    [2, 0, [true]],
  ]);
  const versions = await client.listWorkflows({ name: "nightly" });
  expect(versions.workflows.map((each) => [each.version, timesOf(each)])).toEqual([
    [2, [true]],
    [1, [false]],
  ]);
  await client.deleteWorkflow({ name: "nightly" });
  await client.deleteWorkflow({ name: "nightly" });
  expect(await nextTimes(database.kysely, "nightly")).toEqual(new Map());
  expect((await failure(client.getWorkflow({ name: "nightly" }))).code).toBe(Code.NotFound);
});

test("a workflow that cannot be run is refused, field by field and line by line", async () => {
  const client = await openClient();
  const broken = nightly.replace("steps.hello", "steps.helo");
  const error = await failure(client.putWorkflow({ source: { case: "text", value: broken } }));
  expect(error.code).toBe(Code.InvalidArgument);
  expect(fieldsOf(error)).toEqual([
    expect.stringMatching(/^text\.steps\[1\]\.tool\.arguments\.value: line 8, column \d+: .*helo/),
  ]);
  const { valid, problems } = await client.validateWorkflow({ source: { case: "text", value: broken } });
  expect(valid).toBe(false);
  expect(problems).toMatchObject([{ reason: "UNKNOWN_STEP", stepId: "again", line: 8 }]);
  expect((await failure(client.putWorkflow({}))).code).toBe(Code.InvalidArgument);
  const unreadable = await failure(client.putWorkflow({ source: { case: "text", value: "- [" } }));
  expect(fieldsOf(unreadable)[0]).toMatch(/^text: line 1/);
});

test("a workflow may be kept before its tools are there, where that is asked for", async () => {
  const client = await openClient();
  const early = { case: "text", value: nightly.replaceAll("s.Echo", "later.Echo") } as const;
  const error = await failure(client.putWorkflow({ source: early }));
  expect(fieldsOf(error)).toEqual([
    expect.stringMatching(/^text\.steps\[0\]\.tool\.name: .*later\.Echo/),
    expect.stringMatching(/^text\.steps\[1\]\.tool\.name: .*later\.Echo/),
  ]);
  const put = await client.putWorkflow({ source: early, allowUnknownTools: true });
  expect(put).toMatchObject({
    changed: true,
    warnings: [{ reason: "UNKNOWN_TOOL" }, { reason: "UNKNOWN_TOOL" }],
  });
});

test("agents are put, listed, and deleted", async () => {
  const client = await openClient();
  const put = await client.putAgent({ agent: { name: "reviewer", prompt: "Be brief." } });
  expect(put).toMatchObject({
    changed: true,
    agent: { name: "reviewer", version: 1, createdBy: "anonymous" },
  });
  await client.putAgent({ agent: { name: "reviewer", prompt: "Be kind." }, etag: put.agent?.etag ?? "" });
  const late = await failure(
    client.putAgent({ agent: { name: "reviewer", prompt: "Be quick." }, etag: put.agent?.etag ?? "" }),
  );
  expect(late.code).toBe(Code.Aborted);
  expect((await client.getAgent({ name: "reviewer", version: 1 })).agent).toEqual(put.agent);
  const { agents } = await client.listAgents({});
  expect(agents.map(({ name, version, prompt }) => [name, version, prompt])).toEqual([
    ["reviewer", 2, "Be kind."],
  ]);
  await client.deleteAgent({ name: "reviewer" });
  expect((await client.listAgents({})).agents).toEqual([]);
  expect((await failure(client.putAgent({ agent: { name: "not a name", prompt: "x" } }))).code).toBe(
    Code.InvalidArgument,
  );
});
