import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import {
  CompareTestRunsResponseSchema,
  type TestRunSetSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import type { TestCompareOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { parseLimit } from "../../input/limit.ts";
import { ENDED_STATES, findRun, parseRunName } from "../../input/run-name.ts";
import { renderComparison } from "../../test-view/comparison.ts";
import { UsageError } from "../../usage-error.ts";

type RunSet = MessageInitShape<typeof TestRunSetSchema>;

/** The most runs of a side, and the most changes that the server names. */
const MAX_RUNS = 50;
const MAX_CHANGES = 10_000;

export async function compareRuns(
  context: Context,
  base: string,
  head: string,
  options: TestCompareOptions,
): Promise<number> {
  const count = parseRuns(options.runs);
  const maxChanges = Math.min(parseLimit(options.limit), MAX_CHANGES);
  const toolplane = await context.connect();
  const { signal } = context.io;
  const project = options.project ?? (await projectOf(toolplane, [base, head], signal));
  const side = (text: string) => toSide(toolplane, text, { project, count, signal });
  const response = await toolplane.tests.compareTestRuns(
    { base: await side(base), head: await side(head), maxChanges, markdown: options.markdown === true },
    { signal },
  );
  const { comparison, markdown } = response;
  if (comparison === undefined) throw new ConnectError("the server did not describe the comparison");
  if (context.json) await context.printMessage(CompareTestRunsResponseSchema, response);
  else await context.print(options.markdown === true ? markdown : renderComparison(context, comparison));
  if (comparison.comparability?.comparable === false) return ExitCode.incomplete;
  return comparison.summary?.regression === true ? ExitCode.failure : ExitCode.ok;
}

/** The project that one of the sides names; `latest` on the other side then means the same. */
async function projectOf(
  { tests }: NodeToolplane,
  sides: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  const names = sides.flatMap((side) => side.split(",")).map((text) => parseRunName(text, undefined));
  if (names.every((name) => name.kind === "id")) return undefined;
  for (const name of names) if (name.kind === "latest" && name.project !== undefined) return name.project;
  const id = names.find((name) => name.kind === "id")?.id;
  if (id === undefined) return undefined;
  const runId = await findRun(tests, id, { signal });
  const { run } = await tests.getTestRun({ runId }, { signal });
  return run?.project;
}

interface SideOptions {
  readonly project: string | undefined;
  readonly count: number;
  readonly signal: AbortSignal;
}

async function toSide({ tests }: NodeToolplane, text: string, options: SideOptions): Promise<RunSet> {
  const { project, count, signal } = options;
  const name = parseRunName(text, project);
  if (count > 1 && name.kind === "latest" && name.project !== undefined && name.back === 0) {
    return { latest: { filter: { project: name.project, branch: name.branch ?? "" }, count } };
  }
  const runIds: string[] = [];
  for (const each of text.split(",")) {
    runIds.push(await findRun(tests, each, { project, states: ENDED_STATES, signal }));
  }
  return { runIds };
}

function parseRuns(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1 || runs > MAX_RUNS) {
    throw new UsageError(`--runs: "${text}" is not a number from 1 to ${MAX_RUNS}`);
  }
  return runs;
}
