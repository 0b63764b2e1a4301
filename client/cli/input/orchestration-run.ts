import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { isRunIdPrefix } from "../../reporting/run-id.ts";
import { findByPrefix } from "./find-by-prefix.ts";

/** The id of the run that people name: its id or the beginning of it, `latest`, or `latest~1` for the one before. */
export async function findOrchestrationRun(
  orchestration: Client<typeof OrchestrationService>,
  text: string,
  signal: AbortSignal,
): Promise<string> {
  const back = /^latest(?:~(\d{1,3}))?$/.exec(text);
  if (back !== null) {
    const steps = Number(back[1] ?? "0");
    const { runs } = await orchestration.listRuns({ pageSize: steps + 1 }, { signal });
    const run = runs[steps];
    if (run !== undefined) return run.id;
    throw new ConnectError(
      runs.length === 0 ? "there is no run yet" : `there are only ${runs.length} runs`,
      Code.NotFound,
    );
  }
  if (!isRunIdPrefix(text)) return text;
  return await findByPrefix(
    text,
    (pageSize, pageToken) => orchestration.listRuns({ pageSize, pageToken }, { signal }),
    {
      noun: "run",
      listCommand: "toolplane run list",
    },
  );
}
