import { randomUUID } from "node:crypto";
import { create, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { InstanceSpecSchema, ServiceSpecSchema } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import { OWN_SERVICE } from "./refusals.ts";
import type { Registry } from "./registry.ts";

/** After a failure, when the registration is tried again. */
const RETRY_MS = 1_000;

/** The services of the process that the registry is part of. */
export interface LocalService {
  readonly version: string;
  /** Where the process is reached. */
  readonly endpoint: string;
  /** A serialized FileDescriptorSet. */
  readonly descriptors: Uint8Array;
}

/** Registers the process's own services, and keeps the lease until closed, which deregisters. */
export async function registerLocalService(
  registry: Pick<Registry, "register" | "renew" | "deregister">,
  { version, endpoint, descriptors }: LocalService,
  clock: Clock,
  logger: Logger,
): Promise<{ readonly instanceId: string; close(): Promise<void> }> {
  const service = create(ServiceSpecSchema, {
    name: OWN_SERVICE,
    version,
    title: "Toolplane",
    description: "What this server does itself, as tools: its registry, its test runs, its inner life.",
    source: {
      kind: {
        case: "descriptors",
        value: { fileDescriptorSet: fromBinary(FileDescriptorSetSchema, descriptors) },
      },
    },
    // Who could check this is the process itself: it works while it renews its lease.
    healthCheck: { kind: { case: "none", value: {} } },
  });
  // Every process is an instance of its own, also one that follows another at the same address.
  const instanceId = `${OWN_SERVICE}:${randomUUID()}`;
  const instance = create(InstanceSpecSchema, { id: instanceId, endpoint });
  let cancelTimer = () => {};
  let closed = false;
  let renewing = Promise.resolve();

  const registered = await registry.register(service, instance);
  const heartbeatMs = (registered.leaseTtlMs ?? 0) / 3;

  async function renew(): Promise<void> {
    let delay = heartbeatMs;
    try {
      await registry.renew(instanceId);
    } catch (error) {
      delay = RETRY_MS;
      await (isGone(error) ? registry.register(service, instance) : Promise.reject(error)).catch(
        (reason: unknown) =>
          logger.warn({ err: reason }, "the server's own registration could not be renewed"),
      );
    }
    schedule(delay);
  }

  function schedule(delayMs: number): void {
    if (!closed) {
      cancelTimer = clock.after(delayMs, () => {
        renewing = renew();
      });
    }
  }

  schedule(heartbeatMs);
  return {
    instanceId,
    async close() {
      closed = true;
      cancelTimer();
      await renewing;
      try {
        await registry.deregister({ instanceId: instanceId });
      } catch (error) {
        // The lease runs out by itself.
        logger.debug({ err: error }, "the server's own registration could not be removed");
      }
    },
  };
}

function isGone(error: unknown): boolean {
  return error instanceof DomainError && error.init.code === Code.NotFound;
}
