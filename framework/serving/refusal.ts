import { constants } from "node:http2";
import { create, toBinary, toJson } from "@bufbuild/protobuf";
import { DurationSchema, durationMs } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectError, encodeBinaryHeader } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { fitIntoTrailers } from "../errors/fit-error.ts";
import { toAny } from "../errors/status.ts";
import { isGone, type NodeRequest, type NodeResponse } from "./node-http.ts";
import { rpcProtocol } from "./rpc-protocol.ts";

/**
 * Answers a request with an error without reading its body, in the terms of its own protocol: gRPC and gRPC-Web get a
 * response of headers only, Connect its JSON or its end-of-stream message, everything else JSON.
 *
 * @param httpStatus the status where the protocol leaves it open. Default: what Connect assigns to the code.
 */
export function refuse(
  request: NodeRequest,
  response: NodeResponse,
  error: ConnectError,
  httpStatus: number = httpStatusOf(error.code),
): void {
  if (isGone(response)) {
    return;
  }
  if (response.headersSent) {
    response.destroy();
    return;
  }
  fitIntoTrailers(error);
  const protocol = rpcProtocol(request.method, request.headers);
  const retryAfter = retryAfterSeconds(error);
  if (retryAfter !== undefined) {
    response.setHeader("retry-after", String(retryAfter));
  }
  switch (protocol) {
    case "grpc":
    case "grpc-web": {
      response.statusCode = 200;
      response.setHeader("content-type", request.headers["content-type"] ?? "application/grpc");
      response.setHeader("grpc-status", String(error.code));
      response.setHeader("grpc-message", encodeURIComponent(error.rawMessage));
      response.setHeader("grpc-status-details-bin", statusHeader(error));
      endWithoutBody(response);
      break;
    }
    case "connect-stream": {
      response.statusCode = 200;
      response.setHeader("content-type", request.headers["content-type"] ?? "application/connect+proto");
      response.end(endOfStream({ error: errorJson(error) }));
      break;
    }
    case "connect-unary":
    case "http": {
      response.statusCode = httpStatus;
      sendJson(response, errorJson(error));
    }
  }
}

/** Sends a value as JSON and ends the response. */
export function sendJson(response: NodeResponse, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  response.setHeader("content-type", "application/json");
  response.setHeader("content-length", body.byteLength);
  response.setHeader("cache-control", "no-store");
  response.end(body);
}

/** With HTTP/2 the status must come in the very frame that ends the stream, else it is no trailers-only response. */
function endWithoutBody(response: NodeResponse): void {
  if ("stream" in response) {
    response.stream.respond(
      { [constants.HTTP2_HEADER_STATUS]: response.statusCode, ...response.getHeaders() },
      { endStream: true },
    );
  } else {
    response.end();
  }
}

function statusHeader(error: ConnectError): string {
  const status = create(StatusSchema, {
    code: error.code,
    message: error.rawMessage,
    details: error.details.map(toAny),
  });
  return encodeBinaryHeader(status, StatusSchema);
}

/** https://connectrpc.com/docs/protocol#error-end-stream */
function errorJson(error: ConnectError) {
  return {
    code: codeToString(error.code),
    message: error.rawMessage,
    details: error.details.map((detail) => {
      if (!("desc" in detail)) {
        return { type: detail.type, value: base64(detail.value) };
      }
      const message = create(detail.desc, detail.value);
      return {
        type: detail.desc.typeName,
        value: base64(toBinary(detail.desc, message)),
        debug: toJson(detail.desc, message),
      };
    }),
  };
}

/** Connect's base64 has no padding. */
function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64").replaceAll("=", "");
}

/** An envelope with the flag for the end of a Connect stream. */
function endOfStream(value: unknown): Buffer {
  const data = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(5);
  head.writeUInt8(0b10, 0);
  head.writeUInt32BE(data.byteLength, 1);
  return Buffer.concat([head, data]);
}

function retryAfterSeconds(error: ConnectError): number | undefined {
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay === undefined ? undefined : Math.ceil(durationMs(create(DurationSchema, delay)) / 1000);
}

/** https://connectrpc.com/docs/protocol#error-codes */
function httpStatusOf(code: Code): number {
  switch (code) {
    case Code.Canceled:
      return 499;
    case Code.InvalidArgument:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
      return 400;
    case Code.DeadlineExceeded:
      return 504;
    case Code.NotFound:
      return 404;
    case Code.AlreadyExists:
    case Code.Aborted:
      return 409;
    case Code.PermissionDenied:
      return 403;
    case Code.ResourceExhausted:
      return 429;
    case Code.Unimplemented:
      return 501;
    case Code.Unavailable:
      return 503;
    case Code.Unauthenticated:
      return 401;
    case Code.Unknown:
    case Code.Internal:
    case Code.DataLoss:
      return 500;
  }
}
