import { create } from "@bufbuild/protobuf";
import { TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  ListProjectsResponseSchema,
  ListTestRunsResponseSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { RUN_STATES, type TestListOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { parseLimit } from "../../input/limit.ts";
import { parsePair } from "../../input/pairs.ts";
import { renderProjects, renderRuns } from "../../test-view/tables.ts";
import { UsageError } from "../../usage-error.ts";
import { readPages } from "../pages.ts";

export async function listRuns(
  context: Context,
  project: string | undefined,
  options: TestListOptions,
): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const filter = {
    project: project ?? "",
    environment: options.env ?? "",
    branch: options.branch ?? "",
    commit: options.commit ?? "",
    states: (options.state ?? []).map(parseState),
    labels: Object.fromEntries((options.label ?? []).map((label) => parsePair(label, "--label"))),
  };
  const { tests } = await context.connect();
  // One more than is shown tells whether there are more.
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await tests.listTestRuns({ filter, pageSize, pageToken }, { signal: context.io.signal });
    return { items: page.runs, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const runs = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListTestRunsResponseSchema, { runs });
    return void (await context.printMessage(ListTestRunsResponseSchema, response));
  }
  if (runs.length === 0) {
    return void (await context.note(
      "No run matches. Make one: toolplane test report -- <test command>, or toolplane test run <project>",
    ));
  }
  await context.print(renderRuns(context, runs));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function listProjects(
  context: Context,
  options: { readonly limit: string },
): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const { tests } = await context.connect();
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await tests.listProjects({ pageSize, pageToken }, { signal: context.io.signal });
    return { items: page.projects, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const projects = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListProjectsResponseSchema, { projects });
    return void (await context.printMessage(ListProjectsResponseSchema, response));
  }
  if (projects.length === 0) {
    return void (await context.note(
      "There are no projects. Report one: toolplane test report -- <test command>",
    ));
  }
  await context.print(renderProjects(context, projects));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

function parseState(text: string): TestRunState {
  switch (text) {
    case "queued":
      return TestRunState.QUEUED;
    case "running":
      return TestRunState.RUNNING;
    case "passed":
      return TestRunState.PASSED;
    case "failed":
      return TestRunState.FAILED;
    case "cancelled":
      return TestRunState.CANCELLED;
    case "error":
      return TestRunState.ERROR;
    default:
      throw new UsageError(`--state: "${text}" is not one of ${RUN_STATES.join(", ")}`);
  }
}
