import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type {
  InstanceSpecSchema,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import type { Clock } from "../clock.ts";
import { invalidArgument } from "../errors/domain-error.ts";

/**
 * Where a registration stands:
 *
 * - `registering`: the registry has not accepted it yet.
 * - `registered`: the registry lists the instance. It stays so while renewals fail, until the lease runs out.
 * - `lost`: the registry listed the instance and does so no longer; it is being registered again.
 * - `stopped`: nothing more is done.
 */
export type RegistrationState = "registering" | "registered" | "lost" | "stopped";

/** Keeps one instance of a service listed in a registry. */
export interface Registration {
  readonly state: RegistrationState;
  readonly instanceId: string;
  /** Calls back on every change from now on; the returned function ends that. */
  onStateChange(listener: (state: RegistrationState) => void): () => void;
  /** Deregisters the instance, taking at most 2 s, and ends. Never fails; further calls await the first. */
  stop(): Promise<void>;
}

export interface RegistrationOptions {
  /** Where the registry listens, such as `http://127.0.0.1:7400`. */
  readonly url: string;
  /** Sent as a bearer token with every request. */
  readonly token?: string | undefined;
  /** The service. Its tools are learnt through gRPC server reflection unless it names another source. */
  readonly service: MessageInitShape<typeof ServiceSpecSchema>;
  /** This copy of it. Without an id it gets one that no other copy has, see `createInstanceId`. */
  readonly instance: MessageInitShape<typeof InstanceSpecSchema>;
  readonly logger: Pick<Logger, "debug" | "info" | "warn">;
  readonly clock: Clock;
  /** How the registry is reached. Default: gRPC over a connection of its own. */
  readonly transport?: Transport | undefined;
  /** Draws from [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
}

/** Deadlines of requests in milliseconds. To register takes longest: the registry reads the service's tools. */
const REGISTER_TIMEOUT_MS = 15_000;
const RENEW_TIMEOUT_MS = 5_000;
const DEREGISTER_TIMEOUT_MS = 2_000;

/** The longest delay before the first and before any further attempt, in milliseconds. */
const FIRST_RETRY_MS = 200;
const MAX_RETRY_MS = 10_000;

/** What the registry granted. Times are monotonic, in milliseconds. */
interface Lease {
  readonly instanceId: string;
  readonly heartbeatMs: number;
  readonly ttlMs: number;
  readonly endsAt: number;
}

/**
 * Registers an instance at once and keeps it registered: renews its lease, registers it again when the registry has
 * forgotten it, and tries for ever while the registry cannot be reached. None of that disturbs the service.
 */
export function createRegistration(options: RegistrationOptions): Registration {
  const { service, clock, random = Math.random } = options;
  const instance = { ...options.instance, id: options.instance.id || createInstanceId() };
  const connection = options.transport
    ? { transport: options.transport, close() {} }
    : connect(registryUrl(options.url));
  const registry = createClient(RegistryService, connection.transport);
  const headers: Record<string, string> = options.token ? { authorization: `Bearer ${options.token}` } : {};
  const journal = createJournal(options.logger, {
    registry: options.url,
    service: service.name,
    instance: instance.id,
  });
  const listeners = new Set<(state: RegistrationState) => void>();
  const stopping = new AbortController();
  const signal = stopping.signal;
  let state: RegistrationState = "registering";
  let lease: Lease | undefined;

  function enter(next: RegistrationState): void {
    if (state !== next) {
      state = next;
      for (const listener of listeners) {
        try {
          listener(next);
        } catch (error) {
          options.logger.warn({ err: error }, "a listener for registration states failed");
        }
      }
    }
  }

  async function register(): Promise<Lease | undefined> {
    const sentAt = clock.monotonic();
    const request = { service, instance, requestId: crypto.randomUUID() };
    const response = await registry.registerService(request, {
      headers,
      signal,
      timeoutMs: REGISTER_TIMEOUT_MS,
    });
    const ttlMs = response.leaseTtl && durationMs(response.leaseTtl);
    if (ttlMs === undefined) {
      return undefined;
    }
    const heartbeatMs = response.heartbeatInterval ? durationMs(response.heartbeatInterval) : ttlMs / 3;
    return { instanceId: response.instanceId, heartbeatMs, ttlMs, endsAt: sentAt + ttlMs };
  }

  async function renew(held: Lease): Promise<Lease> {
    const sentAt = clock.monotonic();
    const timeoutMs = Math.min(RENEW_TIMEOUT_MS, held.ttlMs);
    const response = await registry.renewLease(
      { instanceId: held.instanceId },
      { headers, signal, timeoutMs },
    );
    const ttlMs = response.leaseTtl ? durationMs(response.leaseTtl) : held.ttlMs;
    return { ...held, ttlMs, endsAt: sentAt + ttlMs };
  }

  /** Ends when the registration is stopped, or needs no renewal because it is permanent. */
  async function keepRegistered(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      let delay: number;
      try {
        lease = lease ? await renew(lease) : await register();
        failures = 0;
        journal.succeeded(state);
        enter("registered");
        if (lease === undefined) {
          return;
        }
        // A little early and never in step with other instances.
        delay = lease.heartbeatMs * (0.8 + 0.2 * random());
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        const reason = ConnectError.from(error);
        const isForgotten = lease !== undefined && reason.code === Code.NotFound;
        if (lease !== undefined && (isForgotten || clock.monotonic() >= lease.endsAt)) {
          lease = undefined;
          journal.lost(reason);
          enter("lost");
        } else {
          journal.failed(reason);
        }
        // A registry that has forgotten the instance answers: there is nothing to wait for.
        failures = isForgotten ? 0 : failures + 1;
        delay = retryDelayMs(failures, random);
      }
      await sleep(delay, clock, signal);
    }
  }

  async function deregister(): Promise<void> {
    stopping.abort();
    await kept;
    try {
      await registry.deregisterService(
        { target: { case: "instanceId", value: lease?.instanceId ?? instance.id } },
        { headers, timeoutMs: DEREGISTER_TIMEOUT_MS },
      );
      journal.deregistered();
    } catch (error) {
      journal.notDeregistered(ConnectError.from(error), state);
    }
    connection.close();
    enter("stopped");
  }

  const kept = keepRegistered();
  let stopped: Promise<void> | undefined;
  return {
    get state() {
      return state;
    },
    instanceId: instance.id,
    onStateChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop() {
      stopped ??= deregister();
      return stopped;
    },
  };
}

/** An id for this copy of a service: `hostname-pid-random`, so that people know it and no other copy has it. */
function createInstanceId(): string {
  const host = hostname()
    .replaceAll(/[^a-zA-Z0-9._-]/g, "-")
    .slice(0, 80);
  return `${host}-${process.pid}-${randomBytes(4).toString("hex")}`;
}

/**
 * The delay before the attempt after a number of failures in a row, in milliseconds: full jitter, as in
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
 */
function retryDelayMs(failures: number, random: () => number): number {
  return random() * Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.max(0, failures - 1));
}

function sleep(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      cancel();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const cancel = clock.after(ms, end);
    signal.addEventListener("abort", end);
  });
}

function registryUrl(url: string): string {
  const withScheme = url.includes("://") ? url : `http://${url}`;
  const parsed = URL.parse(withScheme);
  if (parsed === null || !["http:", "https:"].includes(parsed.protocol)) {
    throw invalidArgument([
      { field: "register.url", description: `"${url}" is no address of a registry; write http://host:port` },
    ]);
  }
  return withScheme;
}

function connect(baseUrl: string): { transport: Transport; close(): void } {
  // Between heartbeats a connection can die unnoticed: it is probed when it was silent for 10 s.
  const sessionManager = new Http2SessionManager(baseUrl, { pingIntervalMs: 10_000, pingTimeoutMs: 3_000 });
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager }),
    close: () => sessionManager.abort(),
  };
}

/** Logs each change once: the many attempts of one outage are one line and its end another. */
function createJournal(logger: RegistrationOptions["logger"], subject: object) {
  /** The kind of failure that was logged last and still lasts. */
  let failing: Code | undefined;
  const facts = (reason: ConnectError) => ({
    ...subject,
    code: Code[reason.code],
    reason: reason.rawMessage,
  });
  return {
    succeeded(before: RegistrationState) {
      if (before !== "registered") {
        logger.info(subject, "registered");
      } else if (failing !== undefined) {
        logger.info(subject, "lease is renewed again");
      }
      failing = undefined;
    },
    failed(reason: ConnectError) {
      const level = failing === reason.code ? "debug" : "warn";
      failing = reason.code;
      logger[level](facts(reason), "registry does not accept the registration; trying on");
    },
    lost(reason: ConnectError) {
      failing = reason.code;
      logger.warn(facts(reason), "registration lost; registering again");
    },
    deregistered() {
      logger.info(subject, "deregistered");
    },
    notDeregistered(reason: ConnectError, before: RegistrationState) {
      const level = before === "registered" && reason.code !== Code.NotFound ? "warn" : "debug";
      logger[level](facts(reason), "could not deregister; the lease will run out");
    },
  };
}
