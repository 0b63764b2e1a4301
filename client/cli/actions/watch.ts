import { toJson } from "@bufbuild/protobuf";
import { WatchServicesResponseSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Interruption } from "../../index.ts";
import type { ServiceFilterOptions } from "../commands/services.ts";
import type { Context } from "../context.ts";
import { toServiceFilter } from "../input/filter.ts";
import { formatMs } from "../output/format.ts";
import { formatJson } from "../output/json.ts";
import { renderServiceEvent } from "../output/service-event.ts";

/** Prints every event of a watch on its own line until the command is interrupted. */
export async function watchServices(
  context: Context,
  name: string | undefined,
  options: ServiceFilterOptions,
): Promise<undefined> {
  const toolplane = await context.connect();
  const events = toolplane.watchServices(toServiceFilter(name, options), {
    signal: context.io.signal,
    onInterruption: (interruption) =>
      void context.note(context.paintErr.yellow(interruptionText(interruption))),
  });
  for await (const event of events) {
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
export function interruptionText({ error, delayMs }: Interruption): string {
  const why = error === undefined ? "the server ended the stream" : error.rawMessage;
  return `Connection lost (${why}); trying again in ${formatMs(delayMs)}`;
}
