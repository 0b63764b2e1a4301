import { BreakerState } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import {
  HealthStatus,
  Protocol,
  type Service,
  ServiceState,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Cell } from "./columns.ts";

// Every state is a word first; the colour only helps the eye.

export function serviceState(state: ServiceState, paint: Colors): Exclude<Cell, string> {
  switch (state) {
    case ServiceState.READY:
      return { text: "● ready", style: paint.green };
    case ServiceState.DEGRADED:
      return { text: "▲ degraded", style: paint.yellow };
    case ServiceState.DOWN:
      return { text: "✗ down", style: paint.red };
    case ServiceState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

export function healthStatus(status: HealthStatus, paint: Colors): Exclude<Cell, string> {
  switch (status) {
    case HealthStatus.HEALTHY:
      return { text: "● healthy", style: paint.green };
    case HealthStatus.UNHEALTHY:
      return { text: "✗ unhealthy", style: paint.red };
    case HealthStatus.UNKNOWN:
    case HealthStatus.UNSPECIFIED:
      return { text: "? not checked", style: paint.dim };
  }
}

export function breakerState(state: BreakerState, paint: Colors): Exclude<Cell, string> {
  switch (state) {
    case BreakerState.CLOSED:
      return { text: "● closed", style: paint.green };
    case BreakerState.OPEN:
      return { text: "✗ open", style: paint.red };
    case BreakerState.HALF_OPEN:
      return { text: "▲ half-open", style: paint.yellow };
    case BreakerState.ISOLATED:
      return { text: "■ isolated", style: paint.magenta };
    case BreakerState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

/** How many instances are healthy: `2/3 healthy`. */
export function instanceHealth(service: Service, paint: Colors): Cell {
  const total = service.instances.length;
  const healthy = service.instances.filter(({ health }) => health === HealthStatus.HEALTHY).length;
  const unhealthy = service.instances.filter(({ health }) => health === HealthStatus.UNHEALTHY).length;
  const style = unhealthy === 0 ? String : healthy === 0 ? paint.red : paint.yellow;
  return { text: `${healthy}/${total} healthy`, style };
}

export function protocolName(protocol: Protocol): string {
  switch (protocol) {
    case Protocol.UNSPECIFIED:
    case Protocol.GRPC:
      return "gRPC";
    case Protocol.GRPC_WEB:
      return "gRPC-Web";
    case Protocol.CONNECT:
      return "Connect";
    case Protocol.HTTP:
      return "HTTP";
  }
}

/** How messages flow, in a word for a table. */
export function streamingName(streaming: Streaming): string {
  switch (streaming) {
    case Streaming.UNSPECIFIED:
    case Streaming.UNARY:
      return "unary";
    case Streaming.SERVER:
      return "server stream";
    case Streaming.CLIENT:
      return "client stream";
    case Streaming.BIDI:
      return "bidi stream";
  }
}

export function toolKindName(kind: ToolKind): string {
  switch (kind) {
    case ToolKind.UNSPECIFIED:
      return "tool";
    case ToolKind.RPC:
      return "Protobuf method";
    case ToolKind.HTTP:
      return "HTTP endpoint";
  }
}

/** Whether the tool takes a stream of messages instead of one. */
export function takesStream(streaming: Streaming): boolean {
  return streaming === Streaming.CLIENT || streaming === Streaming.BIDI;
}

/** Whether the tool may answer with more than one message. */
export function answersWithStream(streaming: Streaming): boolean {
  return streaming === Streaming.SERVER || streaming === Streaming.BIDI;
}
