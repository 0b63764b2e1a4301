import type { IncomingHttpHeaders } from "node:http";

/** How a request expects its answer; `http` is everything that is no RPC. */
export type RpcProtocol = "grpc" | "grpc-web" | "connect-unary" | "connect-stream" | "http";

/** Tells the protocol from what can be seen before a body is read. */
export function rpcProtocol(method: string | undefined, headers: IncomingHttpHeaders): RpcProtocol {
  const type = headers["content-type"] ?? "";
  if (type.startsWith("application/grpc-web")) {
    return "grpc-web";
  }
  if (type.startsWith("application/grpc")) {
    return "grpc";
  }
  if (type.startsWith("application/connect+")) {
    return "connect-stream";
  }
  const unary =
    type.startsWith("application/json") || type.startsWith("application/proto") || method === "GET";
  return unary ? "connect-unary" : "http";
}

/**
 * Sets the timeout that a request asks for to at most `maxMs`, also where it asks for none. One that cannot be read is
 * left alone: Connect refuses it in the terms of the protocol.
 */
export function clampTimeout(header: Headers, protocol: RpcProtocol, maxMs: number): void {
  if (protocol === "grpc" || protocol === "grpc-web") {
    const given = header.get("grpc-timeout");
    const match = /^(\d{1,8})([HMSmun])$/.exec(given ?? "");
    if (given === null || (match !== null && Number(match[1]) * (unitMs[match[2] ?? ""] ?? 0) > maxMs)) {
      header.set("grpc-timeout", grpcTimeout(maxMs));
    }
  } else {
    const given = header.get("connect-timeout-ms");
    if (given === null || (/^\d{1,10}$/.test(given) && Number(given) > maxMs)) {
      header.set("connect-timeout-ms", String(Math.floor(maxMs)));
    }
  }
}

/** gRPC allows eight digits. */
function grpcTimeout(ms: number): string {
  return ms < 1e8 ? `${Math.floor(ms)}m` : `${Math.floor(ms / 1000)}S`;
}

const unitMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};
