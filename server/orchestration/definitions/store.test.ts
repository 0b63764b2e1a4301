import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { Principal } from "@toolplane/framework";
import { type Agent, AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { type Workflow, WorkflowSchema } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { agentKind, workflowKind } from "./kinds.ts";
import { createDefinitions, type DefinitionsOptions } from "./store.ts";

const ada: Principal = { id: "user:ada", role: "operator" };
const ben: Principal = { id: "user:ben", role: "operator" };
const clock = createFakeClock();
let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await database.kysely.deleteFrom("orchestration_definitions").execute();
});

function openWorkflows(options: Partial<DefinitionsOptions<Workflow>> = {}) {
  return createDefinitions({ database, clock, kind: workflowKind, ...options });
}

function openAgents(options: Partial<DefinitionsOptions<Agent>> = {}) {
  return createDefinitions({ database, clock, kind: agentKind, ...options });
}

function workflow(name: string, init: MessageInitShape<typeof WorkflowSchema> = {}): Workflow {
  return create(WorkflowSchema, {
    name,
    steps: [
      { id: "one", action: { case: "tool", value: { name: "sample.Do", arguments: { a: 1, b: [2] } } } },
    ],
    ...init,
  });
}

function agent(name: string, prompt = "Be brief."): Agent {
  return create(AgentSchema, { name, prompt });
}

const firstPage = { pageSize: 0, pageToken: "" };

test("a definition is kept as it was given, with what the server adds", async () => {
  const workflows = openWorkflows();
  const given = workflow("nightly", {
    inputSchema: { type: "object" },
    labels: { team: "a" },
    schedules: [{ cron: "0 6 * * *", nextTime: { seconds: 5n } }],
    version: 77,
    createdBy: "somebody else",
    etag: "made up",
  });
  const { definition, changed } = await workflows.put(given, ada, "");
  expect(changed).toBe(true);
  expect(definition).toMatchObject({ name: "nightly", version: 1, createdBy: "user:ada" });
  expect(definition.schedules).toEqual([expect.not.objectContaining({ nextTime: expect.anything() })]);
  expect(await workflows.get("nightly", 0)).toEqual(definition);
  expect(await workflows.get("nightly", 1)).toEqual(definition);
  expect(workflowKind.isSame(workflowKind.bare(definition), workflowKind.bare(given))).toBe(true);
});

test("what is put again as it was makes no version, whoever puts it and in whichever order its fields come", async () => {
  const workflows = openWorkflows();
  const { definition } = await workflows.put(workflow("w", { labels: { a: "1", b: "2" } }), ada, "");
  const again = await workflows.put(workflow("w", { labels: { b: "2", a: "1" } }), ben, "");
  expect(again).toEqual({ definition, changed: false });
  expect((await workflows.put(definition, ben, definition.etag)).changed).toBe(false);
});

test("the same put by many at once makes one version, and different ones make one each", async () => {
  const agents = openAgents();
  const same = await Promise.all(Array.from({ length: 8 }, () => agents.put(agent("a"), ada, "")));
  expect(same.filter(({ changed }) => changed)).toHaveLength(1);
  expect(same.map(({ definition }) => definition.version)).toEqual(Array(8).fill(1));
  const different = await Promise.all(
    Array.from({ length: 8 }, (_, index) => agents.put(agent("a", `Prompt ${index}`), ada, "")),
  );
  expect(different.map(({ definition }) => definition.version).sort()).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
  expect((await agents.get("a", 0)).version).toBe(9);
});

test("of two changes of the same version one is refused", async () => {
  const agents = openAgents();
  const { definition } = await agents.put(agent("a"), ada, "");
  const changes = await Promise.allSettled([
    agents.put(agent("a", "One"), ada, definition.etag),
    agents.put(agent("a", "Two"), ben, definition.etag),
  ]);
  const refused = changes.filter(({ status }) => status === "rejected");
  expect(refused).toEqual([
    expect.objectContaining({
      reason: expect.objectContaining({
        message: expect.stringContaining("it is at version 2"),
        init: expect.objectContaining({ code: Code.Aborted, reason: "ETAG_MISMATCH" }),
      }),
    }),
  ]);
  await expect(agents.put(agent("new"), ada, "some etag")).rejects.toMatchObject({
    init: { reason: "ETAG_MISMATCH" },
  });
});

test("what is not there is not found, with what there is", async () => {
  const agents = openAgents();
  await expect(agents.get("reviewer", 0)).rejects.toMatchObject({
    message: 'agent "reviewer" does not exist: there are none',
    init: { code: Code.NotFound, reason: "AGENT_NOT_FOUND" },
  });
  await agents.put(agent("reviewer"), ada, "");
  await agents.put(agent("writer"), ada, "");
  await expect(agents.get("reviewr", 0)).rejects.toThrow('did you mean "reviewer"?');
  await expect(agents.get("reviewer", 7)).rejects.toThrow(
    'agent "reviewer@7" does not exist: version 1 is kept',
  );
  await expect(agents.get("reviewer", 2 ** 32 - 1)).rejects.toMatchObject({ init: { code: Code.NotFound } });
  await expect(agents.get("no\0name", 0)).rejects.toMatchObject({ init: { code: Code.NotFound } });
});

test("workflows and agents of the same name have nothing to do with each other", async () => {
  await openWorkflows().put(workflow("both"), ada, "");
  await openAgents().put(agent("both"), ada, "");
  await openAgents().delete("both");
  await expect(openAgents().get("both", 0)).rejects.toMatchObject({ init: { code: Code.NotFound } });
  expect((await openWorkflows().get("both", 0)).version).toBe(1);
});

test("the oldest versions go when there are too many", async () => {
  const agents = openAgents({ maxVersions: 3 });
  for (let index = 1; index <= 5; index++) {
    await agents.put(agent("a", `Prompt ${index}`), ada, "");
  }
  const { items } = await agents.list("a", firstPage);
  expect(items.map(({ version, prompt }) => [version, prompt])).toEqual([
    [5, "Prompt 5"],
    [4, "Prompt 4"],
    [3, "Prompt 3"],
  ]);
  await expect(agents.get("a", 2)).rejects.toThrow("versions 3 to 5 are kept");
});

test("there are not too many names", async () => {
  const agents = openAgents({ maxNames: 2 });
  await agents.put(agent("a"), ada, "");
  await agents.put(agent("b"), ada, "");
  await expect(agents.put(agent("c"), ada, "")).rejects.toMatchObject({
    init: { code: Code.ResourceExhausted, reason: "TOO_MANY_DEFINITIONS" },
  });
  expect((await agents.put(agent("b", "New"), ada, "")).changed).toBe(true);
});

async function allPages(
  list: ReturnType<typeof openAgents>["list"],
  name: string,
  pageSize: number,
): Promise<string[][]> {
  const pages: string[][] = [];
  let pageToken = "";
  do {
    const page = await list(name, { pageSize, pageToken });
    pages.push(page.items.map((each) => `${each.name}@${each.version}`));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return pages;
}

test("lists come in pages: the newest of each name, or the versions of one", async () => {
  const agents = openAgents();
  for (const name of ["c", "a", "b", "B"]) {
    await agents.put(agent(name, "One"), ada, "");
    await agents.put(agent(name, "Two"), ada, "");
  }
  expect(await allPages(agents.list, "", 3)).toEqual([["B@2", "a@2", "b@2"], ["c@2"]]);
  expect(await allPages(agents.list, "", 4)).toEqual([["B@2", "a@2", "b@2", "c@2"]]);
  expect(await allPages(agents.list, "a", 1)).toEqual([["a@2"], ["a@1"]]);
  expect(await agents.list("none", firstPage)).toEqual({ items: [], nextPageToken: "" });
  expect(await agents.list("no\0name", firstPage)).toEqual({ items: [], nextPageToken: "" });
  const { nextPageToken } = await agents.list("", { pageSize: 1, pageToken: "" });
  for (const [name, pageToken] of [
    ["a", nextPageToken],
    ["", "what is this"],
  ] as const) {
    await expect(agents.list(name, { pageSize: 1, pageToken })).rejects.toMatchObject({
      init: { fields: [{ field: "page_token" }] },
    });
  }
});

test("a page of large definitions is shorter, and nothing is left out", async () => {
  const agents = openAgents();
  const names = Array.from({ length: 60 }, (_, index) => `agent-${String(index).padStart(2, "0")}`);
  for (const name of names) {
    await agents.put(agent(name, "x".repeat(90_000)), ada, "");
  }
  const pages = await allPages(agents.list, "", 0);
  expect(pages.flat()).toEqual(names.map((name) => `${name}@1`));
  expect(pages.map(({ length }) => length)).toEqual([24, 24, 12]);
});

test("what belongs to a version is written with it or not at all", async () => {
  const told: string[] = [];
  let fails = false;
  const workflows = openWorkflows({
    async onPut(_transaction, { name, version }, by) {
      told.push(`${name}@${version} by ${by.id}`);
      if (fails) {
        throw new Error("no room");
      }
    },
    async onDelete(_transaction, name) {
      told.push(`${name} deleted`);
    },
  });
  await workflows.put(workflow("w"), ada, "");
  await workflows.put(workflow("w"), ben, "");
  fails = true;
  await expect(workflows.put(workflow("w", { description: "new" }), ben, "")).rejects.toThrow("no room");
  expect((await workflows.get("w", 0)).version).toBe(1);
  await workflows.delete("w");
  await workflows.delete("w");
  expect(told).toEqual(["w@1 by user:ada", "w@2 by user:ben", "w deleted", "w deleted"]);
  fails = false;
  expect((await workflows.put(workflow("w"), ada, "")).definition.version).toBe(1);
});
