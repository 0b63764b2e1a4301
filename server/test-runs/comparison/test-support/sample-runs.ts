import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  FileCoverageSchema,
  TestFailureSchema,
  TestIdentitySchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunSchema, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { RunResults } from "../../run-results.ts";
import { testIdOf } from "../../test-id.ts";

export interface SampleResult {
  readonly name: string;
  readonly file?: string;
  readonly suitePath?: readonly string[];
  readonly parameters?: string;
  readonly status?: TestStatus;
  readonly ms?: number | undefined;
  readonly attempts?: number;
  readonly message?: string;
}

let runs = 0;

/** A run that ended, with these results. */
export function sampleRun(
  results: readonly SampleResult[],
  run: MessageInitShape<typeof TestRunSchema> = {},
  coverage?: Readonly<Record<string, readonly (readonly [line: number, hits: number])[]>>,
): RunResults {
  return {
    run: create(TestRunSchema, {
      id: `run-${++runs}`,
      project: "sample",
      environment: "ci",
      framework: "vitest",
      state: TestRunState.PASSED,
      ...run,
    }),
    results: results.map(toSummary),
    coverage:
      coverage &&
      new Map(
        Object.entries(coverage).map(([file, lines]) => [
          file,
          create(FileCoverageSchema, { file, lines: lines.map(([line, hits]) => ({ line, hits })) }),
        ]),
      ),
  };
}

function toSummary({
  name,
  status = TestStatus.PASSED,
  ...rest
}: SampleResult): RunResults["results"][number] {
  const test = create(TestIdentitySchema, {
    framework: "vitest",
    project: "sample",
    file: rest.file ?? "sample.test.ts",
    suitePath: [...(rest.suitePath ?? [])],
    name,
    parameters: rest.parameters ?? "",
  });
  return {
    testId: testIdOf(test),
    test,
    status,
    durationMs: "ms" in rest ? rest.ms : 1,
    attempts: rest.attempts ?? 1,
    failure: rest.message === undefined ? undefined : create(TestFailureSchema, { message: rest.message }),
  };
}
