import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import type { RunnerSelection } from "@toolplane/client/runners";
import { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** What the replica that runs a run has to know besides the run itself. */
export interface ExecutionPlan {
  readonly selection: RunnerSelection;
  readonly coverage: boolean;
  /** How long the run may take. */
  readonly timeoutMs: number;
}

export function encodePlan({ selection, coverage, timeoutMs }: ExecutionPlan): Uint8Array {
  const tests = selection.tests.map((test) => toJson(TestIdentitySchema, test));
  return Buffer.from(JSON.stringify({ ...selection, tests, coverage, timeoutMs }));
}

/** Reads what `encodePlan` has written. */
export function decodePlan(bytes: Uint8Array): ExecutionPlan {
  const { tests, files, namePattern, tags, coverage, timeoutMs } = JSON.parse(
    Buffer.from(bytes).toString("utf8"),
  ) as Omit<RunnerSelection, "tests"> & Omit<ExecutionPlan, "selection"> & { readonly tests: JsonValue[] };
  return {
    selection: { files, namePattern, tags, tests: tests.map((test) => fromJson(TestIdentitySchema, test)) },
    coverage,
    timeoutMs,
  };
}
