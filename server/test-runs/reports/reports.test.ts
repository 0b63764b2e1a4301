import { randomBytes, randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { serve } from "@toolplane/framework";
import { BadRequestSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import {
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type ImportHeaderSchema,
  ImportTestResultsRequestSchema,
  ReportFormat,
  TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openReplica } from "../test-support/open-replica.ts";
import { createExporter } from "./export.ts";
import { createImporter } from "./import.ts";

type TestRunClient = Client<typeof TestRunService>;

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const missing = () => {
  throw new ConnectError("not part of this test", Code.Unimplemented);
};

/** A real server, and a client of it. */
async function open(maxImportBytes = 32 * 1024 * 1024): Promise<TestRunClient> {
  const replica = await openReplica(database);
  const { runs, queries } = replica;
  const server = await serve({
    name: "test",
    logger: silentLogger,
    register: false,
    drainTimeoutMs: 0,
    routes: replica.routes(
      {
        startTestRun: missing,
        compareTestRuns: missing,
        getTestHistory: missing,
        importTestResults: createImporter({ runs, maxImportBytes }),
        exportTestResults: createExporter({ runs, queries }),
      },
      [],
    ),
  });
  onTestFinished(() => server.close());
  return createClient(TestRunService, createGrpcTransport({ baseUrl: server.url }));
}

function importReport(
  client: TestRunClient,
  header: MessageInitShape<typeof ImportHeaderSchema>,
  report: string | Uint8Array,
) {
  const bytes = Buffer.from(report);
  return client.importTestResults(
    (async function* () {
      yield create(ImportTestResultsRequestSchema, { header });
      for (let from = 0; from < bytes.length; from += 100_000) {
        yield create(ImportTestResultsRequestSchema, { data: bytes.subarray(from, from + 100_000) });
      }
    })(),
  );
}

async function refusal(call: Promise<unknown>): Promise<ConnectError> {
  return await call.then(
    () => expect.fail("was not refused"),
    (error) => ConnectError.from(error),
  );
}

async function exported(client: TestRunClient, runId: string, format: ReportFormat) {
  const chunks = [];
  for await (const chunk of client.exportTestResults({ runId, format })) {
    chunks.push(chunk);
  }
  return {
    first: chunks[0],
    text: Buffer.concat(chunks.map(({ data }) => data)).toString(),
    largest: Math.max(...chunks.map(({ data }) => data.length)),
  };
}

function newProject(): string {
  return `shop-${randomUUID()}`;
}

async function runsOf(client: TestRunClient, project: string) {
  return (await client.listTestRuns({ filter: { project } })).runs;
}

const junit = `<testsuite name="s">${Array.from(
  { length: 1200 },
  (_, i) =>
    `<testcase name="t${i}" classname="c" time="0.00${i % 9}">${i === 7 ? "<failure message='b'/>" : ""}</testcase>\n`,
).join("")}</testsuite>`;

test("a report becomes a run, is exported and imported again with the same results", async () => {
  const client = await open();
  const [project, again] = [newProject(), newProject()];
  const { run, problems } = await importReport(client, { run: { project } }, junit);
  expect(problems).toEqual([]);
  expect(run).toMatchObject({
    project,
    framework: "junit",
    environment: "default",
    origin: TestRunOrigin.IMPORT,
    state: TestRunState.FAILED,
    counts: { total: 1200, passed: 1199, failed: 1 },
  });
  for (const format of [ReportFormat.JUNIT_XML, ReportFormat.CTRF]) {
    const report = await exported(client, run?.id ?? "", format);
    expect(report.first?.fileName).not.toBe("");
    expect(report.largest).toBeLessThanOrEqual(64 * 1024);
    const { run: copy, problems: none } = await importReport(
      client,
      { run: { project: again } },
      gzipSync(report.text),
    );
    expect(none).toEqual([]);
    expect(copy).toMatchObject({ state: TestRunState.FAILED, counts: run?.counts, testTime: run?.testTime });
  }
});

test("a report that breaks off makes a run that is not complete, and problems that name the place", async () => {
  const client = await open();
  const header = { run: { project: newProject() }, fileName: "junit.xml" };
  const { run, problems } = await importReport(client, header, junit.slice(0, 40_000));
  expect(run).toMatchObject({
    state: TestRunState.ERROR,
    end: {
      reason: TestRunEndReason.INCOMPLETE,
      message: expect.stringMatching(/junit\.xml, line \d+, column \d+/),
    },
  });
  expect(run?.counts?.total).toBeGreaterThan(100);
  expect(problems).toMatchObject([{ place: expect.stringMatching(/^line \d+/) }]);

  const cut = gzipSync(junit);
  const half = await importReport(client, header, cut.subarray(0, cut.length / 2));
  expect(half.run?.end?.message).toContain("gzip data is damaged or breaks off");
  expect(half.run?.counts?.total).toBeGreaterThan(0);
});

test("a report of which nothing can be read leaves no run", async () => {
  const client = await open();
  const project = newProject();
  for (const report of ["<html/>", "", randomBytes(2000), junit.slice(0, 25), '{"reportFormat":"CTRF"}']) {
    const error = await refusal(importReport(client, { run: { project } }, report));
    expect(error.code).toBe(Code.InvalidArgument);
    const [details] = error.findDetails(BadRequestSchema);
    expect(details?.fieldViolations).toMatchObject([
      { field: "data", description: expect.stringMatching(/\((line|byte)/) },
    ]);
  }
  expect(await runsOf(client, project)).toEqual([]);
});

test("a report that is too large is refused with the name of the setting, compressed or not", async () => {
  const client = await open(50_000);
  const project = newProject();
  for (const report of [junit, gzipSync(junit), gzipSync(Buffer.alloc(40_000_000))]) {
    const error = await refusal(importReport(client, { run: { project } }, report));
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(error.message).toContain("testing.max_import_bytes");
  }
  // What was read until then is kept, and ends.
  for (const run of await runsOf(client, project)) {
    expect(run.end?.reason).toBe(TestRunEndReason.INCOMPLETE);
  }
});

test("coverage is added to a run that has ended, results are not", async () => {
  const client = await open();
  const { run } = await importReport(client, { run: { project: newProject() } }, junit);
  const lcov = "SF:/repo/a.ts\nDA:1,1\nDA:2,0\nend_of_record\n";
  const added = await importReport(client, { runId: run?.id ?? "", root: "/repo" }, lcov);
  expect(added.run).toMatchObject({ id: run?.id, coverage: { linesTotal: 2n, linesCovered: 1n, files: 1 } });
  expect((await exported(client, run?.id ?? "", ReportFormat.LCOV)).text).toContain(
    "SF:a.ts\nDA:1,1\nDA:2,0\n",
  );

  const error = await refusal(importReport(client, { runId: run?.id ?? "" }, junit));
  expect(error.message).toContain("only coverage can be added");
});

test("coverage alone makes a run of its own", async () => {
  const client = await open();
  const { run } = await importReport(
    client,
    { run: { project: newProject() } },
    "SF:a\nDA:1,1\nend_of_record\n",
  );
  expect(run).toMatchObject({ state: TestRunState.PASSED, coverage: { files: 1 } });
});

test("a repeated request returns the run that it made", async () => {
  const client = await open();
  const project = newProject();
  const header = { run: { project, requestId: randomUUID() } };
  const { run } = await importReport(client, header, junit);
  const repeated = await importReport(client, header, junit);
  expect(repeated.run).toEqual(run);
  expect(await runsOf(client, project)).toHaveLength(1);
});

test("what is wrong with a request is named by its field", async () => {
  const client = await open();
  expect((await refusal(importReport(client, {}, junit))).message).toContain("header.run: is needed");
  const nameless = await refusal(importReport(client, { run: { project: "" } }, junit));
  expect(nameless.message).toContain("header.run.project");
  const unknown = await refusal(importReport(client, { runId: "nobody" }, junit));
  expect(unknown.code).toBe(Code.NotFound);
  const { run } = await importReport(client, { run: { project: newProject() } }, junit);
  const format = await refusal(exported(client, run?.id ?? "", ReportFormat.GO_COVER));
  expect(format.code).toBe(Code.InvalidArgument);
  expect(format.message).toContain("format: ");
});
