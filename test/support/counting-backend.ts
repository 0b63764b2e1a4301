import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout } from "node:timers/promises";
import type { HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createHealth, reflectionRoutes } from "@toolplane/framework";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { FaultService } from "../../examples/typescript/gen/examples/faults/v1/fault_service_pb.js";

/** A call as it came to the backend. */
export interface CountedCall {
  readonly text: string;
  /** The idempotency key that it carried. */
  readonly key: string;
  /** The run that made it. */
  readonly runId: string;
  /** In milliseconds since 1970. */
  readonly arrived: number;
  /** Aborted when whoever called has left. */
  readonly signal: AbortSignal;
  /** How many calls of the same run it found at work, itself included. */
  readonly beside: number;
}

/** A backend that remembers every call of `Write`, whose text says what becomes of it: see `startCountingBackend`. */
export interface CountingBackend {
  readonly url: string;
  readonly calls: readonly CountedCall[];
  of(runId: string): readonly CountedCall[];
  /** Ends it with all its connections. */
  close(): void;
}

export interface CountingBackendOptions {
  /** How long a call takes, in milliseconds. Default: no time. */
  readonly latencyMs?: (text: string) => number;
  /** Called before a call is answered; what it throws is the answer. */
  readonly handle?: (text: string, context: HandlerContext) => Promise<void> | void;
}

/** Starts it. `Read` answers as `Write` does. */
export async function startCountingBackend(options: CountingBackendOptions = {}): Promise<CountingBackend> {
  const { latencyMs, handle } = options;
  const calls: CountedCall[] = [];
  const busy = new Map<string, number>();

  async function answer({ text }: { text: string }, context: HandlerContext) {
    const runId = context.requestHeader.get("x-toolplane-run") ?? "";
    const beside = (busy.get(runId) ?? 0) + 1;
    busy.set(runId, beside);
    calls.push({
      text,
      key: context.requestHeader.get("x-request-id") ?? "",
      runId,
      arrived: Date.now(),
      signal: context.signal,
      beside,
    });
    try {
      const ms = latencyMs?.(text) ?? 0;
      if (ms > 0) {
        await setTimeout(ms, undefined, { signal: context.signal });
      }
      await handle?.(text, context);
    } finally {
      busy.set(runId, (busy.get(runId) ?? 1) - 1);
    }
    return { text, instance: text, writes: BigInt(calls.length) };
  }

  const health = createHealth([FaultService.typeName]);
  health.set("", "SERVING");
  health.set(FaultService.typeName, "SERVING");
  const server = createServer(
    connectNodeAdapter({
      routes(router) {
        health.routes(router);
        router.service(FaultService, { read: answer, write: answer });
        reflectionRoutes([FaultService, Health])(router);
      },
    }),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session)).on("error", () => undefined);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    of: (runId) => calls.filter((call) => call.runId === runId),
    close() {
      for (const session of sessions) {
        session.destroy();
      }
      server.close();
    },
  };
}
