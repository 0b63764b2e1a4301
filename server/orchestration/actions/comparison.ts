import { fromJson } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { ComparisonSummarySchema } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { Work } from "./action.ts";
import { type OwnTools, objectOf } from "./own-tools.ts";

/** Compares test runs. The output is the comparison. */
export function createComparisonWork(ownTools: OwnTools): Work<"comparison"> {
  return async ({ failOnRegression }, input, context) => {
    const { comparison } = await ownTools.call(
      "compare-test-runs",
      objectOf(input["arguments"]),
      { ...context, idempotencyKey: "" },
      context.timeoutMs,
    );
    const output = objectOf(comparison);
    const summary = fromJson(ComparisonSummarySchema, objectOf(output["summary"]), {
      ignoreUnknownFields: true,
    });
    if (failOnRegression && summary.regression) {
      const { headline, newlyFailing, slower, removed } = summary;
      throw new DomainError({
        code: Code.FailedPrecondition,
        reason: "REGRESSION",
        message: headline || "tests that passed fail now, or became slower",
        metadata: {
          newly_failing: String(newlyFailing),
          slower: String(slower),
          removed: String(removed),
        },
      });
    }
    return { output };
  };
}
