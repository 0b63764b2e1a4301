import { create } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import {
  type RegistryService,
  type ServiceFilter,
  type WatchServicesResponse,
  WatchServicesResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { type ResumeOptions, resumingStream } from "./resuming-stream.ts";

/** What a watch reports. Heartbeats only keep the connection alive and are left out. */
export type ServiceEvent = WatchServicesResponse & {
  event: Exclude<WatchServicesResponse["event"], { case: "heartbeat" | undefined }>;
};

/** Which services to watch: the fields of `toolplane.registry.v1.ServiceFilter`. */
export type ServiceFilterInit = Partial<
  Pick<ServiceFilter, "name" | "environment" | "version" | "tags" | "health">
>;

/**
 * The matching services as they are, a `synced` event, then every change, for as long as wanted: a lost connection is
 * opened again and goes on after the last revision that was seen. After a `reset` event everything reported before no
 * longer counts and all services follow.
 */
export async function* watchServices(
  registry: Client<typeof RegistryService>,
  filter: ServiceFilterInit = {},
  options: ResumeOptions = {},
): AsyncGenerator<ServiceEvent, void, undefined> {
  let revision = 0n;
  let delivered = false;
  async function* open(signal: AbortSignal): AsyncGenerator<WatchServicesResponse> {
    if (revision === 0n && delivered) {
      // The connection was lost within the first listing: what was removed meanwhile will not be named.
      delivered = false;
      yield create(WatchServicesResponseSchema, { event: { case: "reset", value: {} } });
    }
    // A watch has no deadline; the transport's default is for calls.
    yield* registry.watchServices({ filter, resumeRevision: revision }, { signal, timeoutMs: 0 });
  }
  for await (const message of resumingStream(open, options)) {
    if (!isServiceEvent(message)) continue;
    switch (message.event.case) {
      case "synced":
        revision = message.event.value.revision;
        break;
      case "reset":
        revision = 0n;
        delivered = false;
        break;
      case "updated":
      case "removed":
        delivered = true;
        break;
    }
    yield message;
  }
}

function isServiceEvent(message: WatchServicesResponse): message is ServiceEvent {
  return message.event.case !== undefined && message.event.case !== "heartbeat";
}
