import { create } from "@bufbuild/protobuf";
import {
  type CreateTestRunRequest,
  CreateTestRunRequestSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { gatherRunContext } from "../../../reporting/run-context.ts";
import { projectNameOf } from "../../../reporting/server-sink.ts";
import type { MadeRunOptions } from "../../commands/test-report.ts";
import type { Context } from "../../context.ts";
import { parsePair } from "../../input/pairs.ts";

/** The run that the options of a command describe, for tests in a folder. */
export async function toMadeRun(
  { io }: Pick<Context, "io">,
  options: MadeRunOptions,
  directory: string,
): Promise<CreateTestRunRequest> {
  const labels = Object.fromEntries((options.label ?? []).map((label) => parsePair(label, "--label")));
  const tested = await gatherRunContext(directory, io.env);
  return create(CreateTestRunRequestSchema, {
    project: options.project ?? (io.env["TOOLPLANE_PROJECT"] || projectNameOf(directory)),
    environment: options.env ?? io.env["TOOLPLANE_ENVIRONMENT"] ?? "",
    context: {
      ...tested,
      labels,
      ...(options.commit !== undefined && { commit: options.commit, dirty: false }),
      ...(options.branch !== undefined && { branch: options.branch }),
    },
  });
}
