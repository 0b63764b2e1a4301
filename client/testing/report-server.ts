import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestRun,
  TestRunSchema,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type CreateTestRunRequest,
  type FinishTestRunRequest,
  TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";

/** What befalls a request. */
export type Fault =
  | "none"
  /** The connection is lost before the server knows of the request. */
  | "lost-before"
  /** The server has done it, and the connection is lost before the answer. */
  | "lost-after"
  | "unavailable"
  /** The server goes, with all connections, and comes back on the same port. */
  | "restart"
  /** The server has lost the last event that it had said was durable. */
  | "forgets-one";

/** A run as a reporter has filled it. */
export interface ReportedRun {
  readonly run: TestRun;
  readonly request: CreateTestRunRequest;
  readonly events: TestEvent[];
  /** Appends without events. */
  heartbeats: number;
  cancelled: boolean;
  finish: FinishTestRunRequest | undefined;
}

/** A server that takes reports of tests as the real one does, and at which things go wrong. */
export interface ReportServer extends AsyncDisposable {
  readonly url: string;
  /** By id, in the order of their creation. */
  readonly runs: ReadonlyMap<string, ReportedRun>;
  /** What befalls the next requests, the first one first. */
  readonly faults: Fault[];
  /** Refuses every append with this error while it is set. */
  refusal: ConnectError | undefined;
  /** The server does not take events for which this is true. */
  isInvalid: (event: TestEvent) => boolean;
  stop(): Promise<void>;
  /** Listens again, on the port that it had. */
  start(): Promise<void>;
}

export async function startReportServer(
  options: {
    readonly silenceTimeoutMs?: number;
    readonly others?: Partial<ServiceImpl<typeof TestRunService>>;
  } = {},
): Promise<ReportServer> {
  const runs = new Map<string, ReportedRun>();
  const faults: Fault[] = [];
  const knobs: Pick<ReportServer, "refusal" | "isInvalid"> = { refusal: undefined, isInvalid: () => false };
  const find = (id: string): ReportedRun => {
    const run = runs.get(id);
    if (run === undefined) throw new ConnectError(`test run "${id}" does not exist`, Code.NotFound);
    return run;
  };
  const service: Partial<ServiceImpl<typeof TestRunService>> = {
    ...options.others,
    createTestRun(request) {
      const known = [...runs.values()].find((each) => each.request.requestId === request.requestId);
      const run = known?.run ?? aTestRun({ id: `run-${runs.size + 1}`, project: request.project });
      if (known === undefined) {
        runs.set(run.id, {
          run,
          request,
          events: [],
          heartbeats: 0,
          cancelled: false,
          finish: undefined,
        });
      }
      return { run, silenceTimeout: durationFromMs(options.silenceTimeoutMs ?? 60_000) };
    },
    appendTestEvents({ runId, firstPosition, events }) {
      if (knobs.refusal !== undefined) throw knobs.refusal;
      const run = find(runId);
      if (events.some(knobs.isInvalid)) throw new ConnectError("events[0]: invalid", Code.InvalidArgument);
      if (run.cancelled) return { acknowledgedPosition: BigInt(run.events.length), cancelled: true };
      if (events.length === 0) run.heartbeats += 1;
      else {
        const first = Number(firstPosition);
        if (first > run.events.length + 1) throw positionGap(run.events.length);
        run.events.push(...events.slice(run.events.length + 1 - first));
      }
      return { acknowledgedPosition: BigInt(run.events.length) };
    },
    finishTestRun(request) {
      const run = find(request.runId);
      if (Number(request.lastPosition) > run.events.length) throw positionGap(run.events.length);
      run.finish ??= request;
      return { run: run.run };
    },
  };
  const handle = connectNodeAdapter({
    routes: (router) => router.service(TestRunService, service),
    readMaxBytes: 4 * 1024 * 1024,
  });
  let server: Server;
  let port = 0;

  function receive(request: IncomingMessage, response: ServerResponse): void {
    const fault = faults.shift() ?? "none";
    switch (fault) {
      case "none":
        handle(request, response);
        break;
      case "lost-before":
        request.socket.destroy();
        break;
      case "lost-after":
        response.writeHead = () => {
          request.socket.destroy();
          return response;
        };
        handle(request, response);
        break;
      case "unavailable":
        response.statusCode = 503;
        response.end();
        break;
      case "restart":
        void stop().then(start);
        break;
      case "forgets-one":
        for (const run of runs.values()) run.events.pop();
        handle(request, response);
        break;
    }
  }

  async function start(): Promise<void> {
    server = createServer(receive);
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    port = (server.address() as AddressInfo).port; // A TCP server has no other kind of address.
  }

  async function stop(): Promise<void> {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }

  await start();
  return Object.assign(knobs, {
    url: `http://127.0.0.1:${port}`,
    runs,
    faults,
    start,
    stop,
    [Symbol.asyncDispose]: stop,
  });
}

/** A run as a server shows it. */
export function aTestRun(init: MessageInitShape<typeof TestRunSchema> = {}): TestRun {
  return create(TestRunSchema, {
    id: "run-1",
    project: "shop",
    environment: "default",
    framework: "vitest",
    state: TestRunState.RUNNING,
    ...init,
  });
}

function positionGap(acknowledged: number): ConnectError {
  return new ConnectError("events are missing", Code.OutOfRange, undefined, [
    {
      desc: ErrorInfoSchema,
      value: create(ErrorInfoSchema, {
        reason: "POSITION_GAP",
        domain: "toolplane",
        metadata: { acknowledged_position: String(acknowledged) },
      }),
    },
  ]);
}
