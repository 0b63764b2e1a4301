import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { type TestRun, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { isRunIdPrefix } from "../../reporting/run-id.ts";
import { UsageError } from "../usage-error.ts";
import { findByPrefix } from "./find-by-prefix.ts";

/** How people name a run: by its id, or as one of the latest of a project or branch. */
export type RunName =
  | { readonly kind: "id"; readonly id: string }
  | {
      readonly kind: "latest";
      /** Undefined: any project. */
      readonly project: string | undefined;
      /** Undefined: any branch. */
      readonly branch: string | undefined;
      /** 0: the latest; 1: the one before, and so on. */
      readonly back: number;
    };

/** Reads an id or its beginning, `latest`, `latest~1`, `project@branch` or `project@branch~1`. */
export function parseRunName(text: string, project: string | undefined): RunName {
  const [, name = text, back = "0"] = /^(.+?)~(\d{1,3})$/.exec(text) ?? [];
  if (name === "latest") return { kind: "latest", project, branch: undefined, back: Number(back) };
  // The first character may be the @ of a scope.
  const at = name.indexOf("@", 1);
  if (at > 0) {
    const branch = name.slice(at + 1);
    if (branch === "") throw new UsageError(`"${text}" names no branch`, "Write it as project@branch.");
    return { kind: "latest", project: name.slice(0, at), branch, back: Number(back) };
  }
  if (name !== text) throw new UsageError(`"${text}": ~ goes behind latest or project@branch`);
  return { kind: "id", id: text };
}

/** The states of runs that ended. */
export const ENDED_STATES = [
  TestRunState.PASSED,
  TestRunState.FAILED,
  TestRunState.CANCELLED,
  TestRunState.ERROR,
];

export interface FindRunOptions {
  /** The project that `latest` is taken from. */
  readonly project?: string | undefined;
  /** Default: any state. */
  readonly states?: readonly TestRunState[] | undefined;
  readonly signal: AbortSignal;
}

/** The id of the run that a name means. */
export async function findRun(
  tests: Client<typeof TestRunService>,
  text: string,
  { project, states = [], signal }: FindRunOptions,
): Promise<string> {
  const name = parseRunName(text, project);
  if (name.kind === "id") {
    if (!isRunIdPrefix(name.id)) return name.id;
    return await findByPrefix(
      name.id,
      (pageSize, pageToken) => tests.listTestRuns({ pageSize, pageToken }, { signal }),
      { noun: "test run", listCommand: "toolplane test list" },
    );
  }
  const filter = { project: name.project ?? "", branch: name.branch ?? "", states: [...states] };
  const { runs } = await tests.listTestRuns({ filter, pageSize: name.back + 1 }, { signal });
  const run: TestRun | undefined = runs[name.back];
  if (run !== undefined) return run.id;
  const which = [
    ...(name.project === undefined ? [] : [`of project ${name.project}`]),
    ...(name.branch === undefined ? [] : [`on branch ${name.branch}`]),
  ].join(" ");
  throw new ConnectError(
    runs.length === 0
      ? `there is no test run ${which}`.trim()
      : `there are only ${runs.length} test runs ${which}`.trim(),
    Code.NotFound,
  );
}
