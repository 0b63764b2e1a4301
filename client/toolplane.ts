import type { JsonValue } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { Stats } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { ResumeOptions } from "./streams/resuming-stream.ts";
import { type RunNews, type WatchRunOptions, watchRun } from "./streams/watch-run.ts";
import { type ServiceEvent, type ServiceFilterInit, watchServices } from "./streams/watch-services.ts";
import { type WatchStatsOptions, watchStats } from "./streams/watch-stats.ts";
import { type TestRunNews, type WatchTestRunOptions, watchTestRun } from "./streams/watch-test-run.ts";
import { callTool, callToolStream, type ToolArguments, type ToolCallOptions } from "./tool-calls.ts";

/** A typed client of one Toolplane server. */
export interface Toolplane {
  /** Services and the tools they offer: registered, found and checked. */
  readonly registry: Client<typeof RegistryService>;
  /** Calls of tools, with everything that the contract offers. */
  readonly tools: Client<typeof ToolService>;
  /** What goes on inside the server, and who may call it. */
  readonly admin: Client<typeof AdminService>;
  /** Test runs: started or reported, streamed, kept and compared. */
  readonly tests: Client<typeof TestRunService>;
  /** Runs of tools, workflows, models and agents; the workflows and agents that are kept. */
  readonly orchestration: Client<typeof OrchestrationService>;
  /** The matching services and every change to them; goes on by itself after a lost connection. */
  watchServices(filter?: ServiceFilterInit, options?: ResumeOptions): AsyncIterable<ServiceEvent>;
  /** What goes on in the server, interval by interval; goes on by itself after a lost connection. */
  watchStats(options?: WatchStatsOptions): AsyncIterable<Stats>;
  /** A test run from its beginning to its end, live; goes on by itself after a lost connection. */
  watchTestRun(runId: string, options?: WatchTestRunOptions): AsyncIterable<TestRunNews>;
  /** A run from its beginning to its end, live; goes on by itself after a lost connection. */
  watchRun(runId: string, options?: WatchRunOptions): AsyncIterable<RunNews>;
  /** Calls a tool and returns its result as JSON; of a tool that streams, the list of its results. */
  callTool(name: string, args?: ToolArguments, options?: ToolCallOptions): Promise<JsonValue>;
  /** Calls a tool and yields its results as JSON, as they come. Leaving the iteration cancels the call. */
  callToolStream(name: string, args?: ToolArguments, options?: ToolCallOptions): AsyncIterable<JsonValue>;
}

/** A bearer token, or where to get the one that is valid now. */
export type TokenSource = string | (() => string | Promise<string>);

export interface ToolplaneOptions {
  /** How requests reach the server: any transport of connect-node or connect-web. */
  readonly transport: Transport;
  /** Sent as `authorization: Bearer …` with every request. Default: none. */
  readonly token?: TokenSource | undefined;
}

/** A client over a transport. `@toolplane/client/node` and `@toolplane/client/web` make the transport from a URL. */
export function createToolplane(options: ToolplaneOptions): Toolplane {
  const transport =
    options.token === undefined ? options.transport : withToken(options.transport, options.token);
  const admin = createClient(AdminService, transport);
  const orchestration = createClient(OrchestrationService, transport);
  const registry = createClient(RegistryService, transport);
  const tests = createClient(TestRunService, transport);
  const tools = createClient(ToolService, transport);
  return {
    registry,
    tools,
    admin,
    tests,
    orchestration,
    watchServices: (filter, resume) => watchServices(registry, filter, resume),
    watchStats: (watch) => watchStats(admin, watch),
    watchTestRun: (runId, watch) => watchTestRun(tests, runId, watch),
    watchRun: (runId, watch) => watchRun(orchestration, runId, watch),
    callTool: (name, args, call) => callTool(tools, name, args, call),
    callToolStream: (name, args, call) => callToolStream(tools, name, args, call),
  };
}

/** Adds the token to every request, so that it works with a transport that the caller has made as well. */
function withToken(transport: Transport, token: TokenSource): Transport {
  async function authorized(header: ConstructorParameters<typeof Headers>[0]): Promise<Headers> {
    const headers = new Headers(header);
    if (!headers.has("authorization")) {
      headers.set("authorization", `Bearer ${typeof token === "string" ? token : await token()}`);
    }
    return headers;
  }
  return {
    unary: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.unary(method, signal, timeoutMs, await authorized(header), input, contextValues),
    stream: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.stream(method, signal, timeoutMs, await authorized(header), input, contextValues),
  };
}
