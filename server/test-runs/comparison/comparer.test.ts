import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";

import { createLogger, toConnectError } from "@toolplane/framework";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  type CompareTestRunsRequestSchema,
  TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { describe, expect, it } from "vitest";
import type { RunResults } from "../run-results.ts";
import { createComparer } from "./comparer.ts";
import { sampleRun } from "./test-support/sample-runs.ts";

/** A client of the handler over these runs, the newest last. */
function clientOf(runs: readonly RunResults[], maxResults?: number): Client<typeof TestRunService> {
  const handler = createComparer({
    source: {
      load: async (id) => runs.find(({ run }) => run.id === id),
      latest: async ({ project, branch }, count, except) =>
        runs
          .map(({ run }) => run)
          .filter((run) => run.project === project && (branch === "" || run.context?.branch === branch))
          .filter(({ id }) => !except.includes(id))
          .map(({ id }) => id)
          .reverse()
          .slice(0, count),
    },
    ...(maxResults !== undefined && { maxResults }),
  });
  const logger = createLogger({ level: "silent" });
  return createClient(
    TestRunService,
    createRouterTransport((router) => router.service(TestRunService, handler), {
      router: {
        interceptors: [
          (next) => (request) =>
            next(request).catch((error: unknown) => {
              throw toConnectError(error, { correlationId: "test", logger });
            }),
        ],
      },
    }),
  );
}

const first = sampleRun([{ name: "a" }], { context: { branch: "main" } });
const second = sampleRun([{ name: "a" }], { context: { branch: "main" } });
const third = sampleRun([{ name: "a", status: TestStatus.FAILED, message: "no" }], {
  context: { branch: "topic" },
});

async function refusal(request: MessageInitShape<typeof CompareTestRunsRequestSchema>, maxResults?: number) {
  const error = await clientOf([first, second, third], maxResults)
    .compareTestRuns(request)
    .then(
      () => undefined,
      (reason: unknown) => ConnectError.from(reason),
    );
  return [error?.code, error?.rawMessage];
}

describe("CompareTestRuns", () => {
  it("compares runs by id, and writes Markdown where asked", async () => {
    const client = clientOf([first, third]);
    const request = { base: { runIds: [first.run.id] }, head: { runIds: [third.run.id, third.run.id] } };
    const plain = await client.compareTestRuns(request);
    expect(plain.comparison?.summary).toMatchObject({ regression: true, newlyFailing: 1 });
    expect(plain.comparison?.head).toHaveLength(1);
    expect(plain.markdown).toBe("");
    const { markdown } = await client.compareTestRuns({ ...request, markdown: true });
    expect(markdown).toContain("regression");
  });

  it("takes the latest runs of a side, without those that the other side names", async () => {
    const client = clientOf([first, second, third]);
    const latest = { filter: { project: "sample" }, count: 5 };
    const { comparison } = await client.compareTestRuns({
      base: { latest },
      head: { runIds: [third.run.id] },
    });
    expect(comparison?.base.map(({ id }) => id)).toEqual([second.run.id, first.run.id]);
    const onBranch = await client.compareTestRuns({
      base: { latest: { filter: { project: "sample", branch: "main" } } },
      head: { latest: { filter: { project: "sample", branch: "topic" } } },
    });
    expect(onBranch.comparison?.base.map(({ id }) => id)).toEqual([second.run.id]);
    expect(onBranch.comparison?.head.map(({ id }) => id)).toEqual([third.run.id]);
  });

  it("keeps as many changes as are asked for", async () => {
    const many = sampleRun(
      Array.from({ length: 30 }, (_, index) => ({ name: `new ${index}` })).concat({ name: "a" }),
    );
    const client = clientOf([first, many]);
    const { comparison } = await client.compareTestRuns({
      base: { runIds: [first.run.id] },
      head: { runIds: [many.run.id] },
      maxChanges: 7,
    });
    expect(comparison?.changes).toHaveLength(7);
    expect(comparison).toMatchObject({ changesTruncated: true, summary: { added: 30 } });
  });

  it("says which field is wrong", async () => {
    const runIds = [first.run.id];
    expect(await refusal({ base: { runIds: [first.run.id, "gone"] }, head: { runIds } })).toEqual([
      Code.NotFound,
      'test run "gone" does not exist: see base.run_ids[1]; list the runs that there are',
    ]);
    expect(await refusal({ base: {}, head: { latest: { filter: {} } } })).toEqual([
      Code.InvalidArgument,
      "base: name runs in run_ids, or set latest to a filter of runs; head.latest.filter.project: must name the project",
    ]);
    expect(await refusal({ base: { runIds }, head: { latest: { filter: { project: "none" } } } })).toEqual([
      Code.NotFound,
      'head.latest: project "none" has no run that ended and matches the filter; list its runs, or widen the filter',
    ]);
    expect(await refusal({ base: { runIds }, head: { runIds } }, 1)).toEqual([
      Code.ResourceExhausted,
      "The runs have more than 1 results together: compare fewer runs",
    ]);
  });
});
