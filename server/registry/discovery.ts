import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  type InstanceSpec,
  InstanceSpecSchema,
  type ServiceSpec,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import { discoverFromDescriptors } from "../backends/rpc/descriptors.ts";
import { discoverByReflection } from "../backends/rpc/grpc-reflection.ts";
import type { Discovery, SourceProblem } from "../backends/source.ts";
import { discoverFromUtcpManual } from "../backends/utcp/manual.ts";
import type { SecretResolver } from "../config/secrets.ts";
import type { ConnectionPool } from "../pool/connection-pool.ts";
import { printable } from "./printable.ts";
import { describeKey, keyText, type ServiceKey } from "./service-key.ts";
import type { DiscoveryOutcome } from "./store.ts";
import type { StoredProblem } from "./tables.ts";
import { createTarget } from "./target.ts";
import { encodeToolSet } from "./tool-set.ts";

/** A service keeps at most so many problems, one place being left for the note that its tools are old. */
const MAX_PROBLEMS = 99;

/** How much of its time a discovery waits for one that goes on, through an instance that perhaps hangs. */
const SHARE_SPENT_WAITING = 0.5;

export interface DiscovererOptions {
  readonly pool: ConnectionPool;
  readonly secrets: SecretResolver;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long learning a service's tools may take, in milliseconds. */
  readonly timeoutMs: number;
  /** The most tools that one service may offer. */
  readonly maxTools: number;
}

/** Learns the tools of services. */
export interface Discoverer {
  /**
   * Asks the source, through one instance. Never throws: a source that cannot be read is an outcome with its reason.
   * Instances of one service that arrive together share one answer; where that fails or takes long, each is asked
   * itself in the time that is left.
   */
  discover(key: ServiceKey, spec: ServiceSpec, instance: InstanceSpec): Promise<DiscoveryOutcome>;
  /** Lets everything that goes on fail, and whatever is asked later. */
  close(): void;
}

export function createDiscoverer(options: DiscovererOptions): Discoverer {
  const { clock, logger, timeoutMs, maxTools } = options;
  const running = new Map<string, Promise<DiscoveryOutcome>>();
  const closing = new AbortController();

  async function read(
    key: ServiceKey,
    spec: ServiceSpec,
    instance: InstanceSpec,
    withinMs: number,
  ): Promise<DiscoveryOutcome> {
    const time = clock.now();
    const deadline = new AbortController();
    const cancel = clock.after(withinMs, () => deadline.abort(timedOut(instance.endpoint, withinMs)));
    const signal = AbortSignal.any([closing.signal, deadline.signal]);
    try {
      const discovery = await settleBefore(signal, readSource(spec, instance, options, signal));
      return await toOutcome(discovery, maxTools, time);
    } catch (error) {
      const cause: unknown = signal.aborted ? signal.reason : error;
      logger.info(
        { err: cause, service: describeKey(key), endpoint: instance.endpoint },
        "the service's tools cannot be learnt",
      );
      return { kind: "failed", problems: [toProblem(cause, time)] };
    } finally {
      cancel();
    }
  }

  return {
    async discover(key, spec, instance) {
      const shared = discoveryKey(key, spec, instance);
      const others = running.get(shared);
      let withinMs = timeoutMs;
      if (others) {
        const start = clock.monotonic();
        const outcome = await resultWithin(clock, timeoutMs * SHARE_SPENT_WAITING, others);
        if (outcome?.kind === "learnt") {
          return outcome;
        }
        withinMs -= clock.monotonic() - start;
      }
      const own = read(key, spec, instance, withinMs);
      running.set(shared, own);
      try {
        return await own;
      } finally {
        if (running.get(shared) === own) {
          running.delete(shared);
        }
      }
    },
    close: () => closing.abort(shuttingDown()),
  };
}

/** Registrations with the same key, source and headers learn the same tools, whichever instance is asked. */
function discoveryKey(key: ServiceKey, { source, headers }: ServiceSpec, { protocol }: InstanceSpec): string {
  const asked = toBinary(
    ServiceSpecSchema,
    create(ServiceSpecSchema, { ...(source ? { source } : {}), headers }),
  );
  const digest = createHash("sha256").update(asked);
  digest.update(toBinary(InstanceSpecSchema, create(InstanceSpecSchema, { protocol })));
  return `${keyText(key)} ${digest.digest("base64")}`;
}

async function readSource(
  spec: ServiceSpec,
  instance: InstanceSpec,
  { pool, secrets }: DiscovererOptions,
  signal: AbortSignal,
): Promise<Discovery> {
  const kind = spec.source?.kind ?? { case: undefined };
  switch (kind.case) {
    case "descriptors":
      return discoverFromDescriptors({
        source: { fileDescriptorSet: kind.value.fileDescriptorSet ?? create(FileDescriptorSetSchema) },
        services: kind.value.services,
      });
    case "utcpManual": {
      const { manual } = kind.value;
      return await discoverFromUtcpManual({
        service: spec.name,
        manual:
          manual.case === "url"
            ? { kind: "url", url: manual.value }
            : { kind: "inline", json: manual.value ?? {} },
        target: createTarget(spec, instance, secrets),
        dispatcher: pool.dispatcher,
        signal,
        secrets,
      });
    }
    case "grpcReflection":
    case undefined:
      return await discoverByReflection({
        services: kind.value?.services ?? [],
        target: createTarget(spec, instance, secrets),
        pool,
        signal,
      });
  }
}

async function toOutcome(
  { tools, problems, definition }: Discovery,
  maxTools: number,
  time: number,
): Promise<DiscoveryOutcome> {
  const stored = problems.slice(0, MAX_PROBLEMS - 1).map((problem) => toStored(problem, time));
  if (tools.length === 0 && !definition && stored.length > 0) {
    return { kind: "failed", problems: stored };
  }
  if (tools.length > maxTools) {
    const message = `The source offers ${tools.length} tools; only ${maxTools} are taken`;
    stored.unshift({ tool: "", reason: "TOO_MANY_TOOLS", message, time });
  }
  return {
    kind: "learnt",
    tools: await encodeToolSet(tools.slice(0, maxTools)),
    definition,
    problems: stored,
  };
}

function toStored({ tool = "", reason, message }: SourceProblem, time: number): StoredProblem {
  return { tool: printable(tool, 1024), reason, message: printable(message), time };
}

function toProblem(error: unknown, time: number): StoredProblem {
  if (error instanceof DomainError) {
    return toStored(error.init, time);
  }
  // What a backend says about itself is the exact reason; what went wrong in our own code is only for the log.
  const message =
    error instanceof ConnectError
      ? error.message
      : "The source could not be read; the server's log has the reason";
  return toStored({ reason: "DISCOVERY_FAILED", message }, time);
}

function shuttingDown(): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "The server is stopping",
  });
}

function timedOut(endpoint: string, timeoutMs: number): DomainError {
  return new DomainError({
    code: Code.DeadlineExceeded,
    reason: "DISCOVERY_TIMEOUT",
    message: `${endpoint} did not say within ${Math.round(timeoutMs / 100) / 10} s which tools it offers`,
  });
}

/** What the work leads to; undefined when that takes longer. */
async function resultWithin<T>(clock: Clock, ms: number, work: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const cancel = clock.after(ms, () => late.resolve(undefined));
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    cancel();
  }
}

/** A source that ignores its signal must not hold up a registration. */
async function settleBefore<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  if (signal.aborted) {
    abort();
  }
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
