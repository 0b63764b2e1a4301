import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import {
  HealthStatus,
  Lifetime,
  Protocol,
  type Service,
  ServiceSchema,
  ServiceState,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import {
  Idempotency,
  Streaming,
  type Tool,
  ToolKind,
  ToolSchema,
} from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";

/** A server on a port of its own that answers with what a test says. */
export interface StubServer extends AsyncDisposable {
  readonly url: string;
  /** The headers of the requests so far. */
  readonly requests: readonly Headers[];
  /** Drops every connection, as a server does that is killed. */
  dropConnections(): void;
}

export async function startStubServer(
  registry: Partial<ServiceImpl<typeof RegistryService>>,
  tools: Partial<ServiceImpl<typeof ToolService>> = {},
  admin: Partial<ServiceImpl<typeof AdminService>> = {},
  orchestration: Partial<ServiceImpl<typeof OrchestrationService>> = {},
): Promise<StubServer> {
  const requests: Headers[] = [];
  const server = createServer(
    connectNodeAdapter({
      routes: (router) =>
        router
          .service(RegistryService, registry)
          .service(ToolService, tools)
          .service(AdminService, admin)
          .service(OrchestrationService, orchestration),
      interceptors: [
        (next) => (request) => {
          requests.push(request.header);
          return next(request);
        },
      ],
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // A TCP server has no other kind of address.
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    dropConnections: () => server.closeAllConnections(),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A service as a registry shows it, ready to be called. */
export function aService(init: MessageInitShape<typeof ServiceSchema> = {}): Service {
  return create(ServiceSchema, {
    name: "weather",
    environment: "default",
    version: "1.2.0",
    state: ServiceState.READY,
    toolCount: 2,
    tags: ["demo"],
    updateTime: timestampFromMs(Date.now()),
    instances: [
      {
        id: "weather-1",
        endpoint: "http://127.0.0.1:50051",
        protocol: Protocol.GRPC,
        lifetime: Lifetime.PERMANENT,
        health: HealthStatus.HEALTHY,
      },
    ],
    ...init,
  });
}

/** A tool as a registry shows it. */
export function aTool(init: MessageInitShape<typeof ToolSchema> = {}): Tool {
  return create(ToolSchema, {
    name: "weather.acme.weather.v1.WeatherService.GetForecast",
    alias: "weather.GetForecast",
    service: "weather",
    environment: "default",
    version: "1.2.0",
    title: "Weather forecast",
    description: "Forecasts the weather of a city. Days beyond the first week are less certain.",
    tags: ["demo"],
    kind: ToolKind.RPC,
    streaming: Streaming.UNARY,
    idempotency: Idempotency.NO_SIDE_EFFECTS,
    sourceName: "acme.weather.v1.WeatherService/GetForecast",
    inputSchema: {
      type: "object",
      properties: {
        city: { type: "string", description: "The name of the city.", minLength: 1 },
        days: { type: "integer", format: "int32", minimum: 1, maximum: 14, description: "How many days." },
        place: { $ref: "#/$defs/Place" },
        tags: { type: "array", items: { type: "string" } },
        metric: { type: "boolean" },
      },
      required: ["city"],
      $defs: {
        Place: { type: "object", properties: { lat: { type: "number" }, lon: { type: "number" } } },
      },
    },
    outputSchema: {
      type: "object",
      properties: {
        days: { type: "array", items: { type: "object", properties: { high: { type: "number" } } } },
      },
    },
    ...init,
  });
}

/** The error of a server that does not know a thing. */
export function unknown(name: string): ConnectError {
  return new ConnectError(`tool "${name}" does not exist: did you mean weather.GetForecast?`, Code.NotFound);
}
