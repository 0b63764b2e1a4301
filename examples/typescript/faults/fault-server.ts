import { createServer, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createContextKey, createContextValues } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createHealth, reflectionRoutes } from "@toolplane/framework";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { FaultService, type Faults, FaultsSchema } from "../gen/examples/faults/v1/fault_service_pb.js";

export interface FaultServerOptions {
  /** `host:port`; port 0 chooses a free one. */
  readonly listen: string;
  /** How it calls itself in its answers. */
  readonly instance: string;
  /** The faults to begin with. Default: none. */
  readonly faults?: Faults;
  readonly random?: () => number;
}

export interface FaultServer {
  readonly url: string;
  setFaults(faults: Faults): void;
  close(): Promise<void>;
}

/** What is to become of one call. */
type Fate = "answer" | "error" | "hang" | "reset" | "disconnect" | "bad-frame";

/** What a handler needs to know of its call's fate. */
interface Verdict {
  readonly fate: Fate;
  readonly faults: Faults;
}

const verdictKey = createContextKey<Verdict>({ fate: "answer", faults: create(FaultsSchema) });
const RESET_INTERNAL_ERROR = 0x2;
/** A gRPC frame that promises nine bytes and brings three. */
const BAD_FRAME = Buffer.from([0, 0, 0, 0, 9, 1, 2, 3]);

/**
 * A plain Connect server whose calls fail as they are told to, down to the frames. It uses the framework's health and
 * reflection, as any Connect server may, and no more of it: its faults must not be repaired on the way out.
 */
export async function startFaultServer(options: FaultServerOptions): Promise<FaultServer> {
  const { instance, random = Math.random } = options;
  let faults = options.faults ?? create(FaultsSchema);
  const counts = { reads: 0n, writeCalls: 0n, writes: 0n };
  const health = createHealth([FaultService.typeName]);
  health.set("", "SERVING");
  health.set(FaultService.typeName, "SERVING");
  const ended = new AbortController();

  const verdicts = new WeakMap<object, Verdict>();

  const adapter = connectNodeAdapter({
    contextValues(request) {
      const verdict = verdicts.get(request);
      return verdict ? createContextValues().set(verdictKey, verdict) : createContextValues();
    },
    routes(router) {
      health.routes(router);
      reflectionRoutes([FaultService, Health])(router);
      router.service(FaultService, {
        read({ text }, { values }) {
          failIfTold(values.get(verdictKey));
          return { text, instance };
        },
        write(_request, { values }) {
          const verdict = values.get(verdictKey);
          if (!verdict.faults.afterWork) {
            failIfTold(verdict);
          }
          counts.writes++;
          failIfTold(verdict);
          return { writes: counts.writes, instance };
        },
        setFaults(request) {
          faults = request.faults ?? create(FaultsSchema);
          return {};
        },
        getCounts: () => ({ ...counts }),
      });
    },
  });
  async function handle(request: Http2ServerRequest, response: Http2ServerResponse): Promise<void> {
    const reads = request.url === `/${FaultService.typeName}/Read`;
    const writes = request.url === `/${FaultService.typeName}/Write`;
    if (reads || writes) {
      counts[reads ? "reads" : "writeCalls"]++;
      const verdict: Verdict = { fate: chooseFate(faults, random()), faults };
      verdicts.set(request, verdict);
      await delay(faults.latency ? durationMs(faults.latency) : 0);
      const { fate } = verdict;
      if (fate !== "answer" && fate !== "error") {
        if (writes && faults.afterWork) {
          counts.writes++;
        }
        misbehave(fate, response);
        return;
      }
    }
    adapter(request, response);
  }

  async function delay(ms: number): Promise<void> {
    if (ms > 0) {
      await wait(ms, undefined, { signal: ended.signal }).catch(() => undefined);
    }
  }

  const server = createServer((request, response) => void handle(request, response));
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session)).on("error", () => undefined);
  });
  const colon = options.listen.lastIndexOf(":");
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(Number(options.listen.slice(colon + 1)), options.listen.slice(0, colon), resolve);
  });
  const { address, port } = server.address() as AddressInfo;

  return {
    url: `http://${address}:${port}`,
    setFaults(next) {
      faults = next;
    },
    async close() {
      ended.abort();
      for (const session of sessions) {
        session.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function chooseFate(faults: Faults, drawn: number): Fate {
  let left = drawn;
  const shares: [Fate, number][] = [
    ["error", faults.errorRate],
    ["hang", faults.hangRate],
    ["reset", faults.resetRate],
    ["disconnect", faults.disconnectRate],
    ["bad-frame", faults.badFrameRate],
  ];
  for (const [fate, share] of shares) {
    if (left < share) {
      return fate;
    }
    left -= share;
  }
  return "answer";
}

function failIfTold({ fate, faults }: Verdict): void {
  if (fate === "error") {
    // google.rpc.Code has the numbers of Connect's codes, and OK besides, which counts as unset.
    throw new ConnectError("a fault was injected", Number(faults.errorCode || Code.Unavailable));
  }
}

function misbehave(fate: Exclude<Fate, "answer" | "error">, { stream }: Http2ServerResponse): void {
  stream.on("error", () => undefined);
  switch (fate) {
    case "hang":
      return;
    case "reset":
      stream.close(RESET_INTERNAL_ERROR);
      return;
    case "disconnect":
      stream.session?.destroy();
      return;
    case "bad-frame":
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
      stream.end(BAD_FRAME);
  }
}
