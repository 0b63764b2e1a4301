import { toJson } from "@bufbuild/protobuf";
import { WatchServicesResponseSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Interruption } from "../../index.ts";
import type { ServiceFilterOptions } from "../commands/services.ts";
import type { Context } from "../context.ts";
import { toServiceFilter } from "../input/filter.ts";
import { formatJson } from "../output/json.ts";
import { renderServiceEvent } from "../output/service-event.ts";
import { oneLine } from "../output/text-width.ts";

/** Prints every event of a watch on its own line until the command is interrupted. */
export async function watchServices(
  context: Context,
  name: string | undefined,
  options: ServiceFilterOptions,
): Promise<undefined> {
  const toolplane = await context.connect();
  let isLost = false;
  const events = toolplane.watchServices(toServiceFilter(name, options), {
    signal: context.io.signal,
    onInterruption: (interruption) => {
      // Once is enough, however often it is tried again.
      if (!isLost) void context.note(context.paintErr.yellow(interruptionText(interruption)));
      isLost = true;
    },
  });
  for await (const event of events) {
    if (isLost) await context.note(context.paintErr.green("Connected again"));
    isLost = false;
    if (context.json) {
      await context.print(
        formatJson(toJson(WatchServicesResponseSchema, event, { alwaysEmitImplicit: true })),
      );
      continue;
    }
    const line = renderServiceEvent(context, event);
    if (line !== undefined) await context.print(line);
  }
}

/** A lost connection in words. */
function interruptionText({ error }: Interruption): string {
  const why = error === undefined ? "the server ended the stream" : error.rawMessage;
  return `Connection lost (${oneLine(why)}); trying again until it is back`;
}
