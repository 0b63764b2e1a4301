import { once } from "node:events";
import { connect as connectHttp2, type IncomingHttpHeaders } from "node:http2";
import { connect, type Socket } from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { decodeBinaryHeader } from "@connectrpc/connect";
import { type ErrorInfo, ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { onTestFinished } from "vitest";

/** What came back over HTTP/2, before anyone has made sense of it. */
export interface RawAnswer {
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The reason of the stream's end, see `http2.constants`. */
  readonly rstCode: number;
}

/** Sends bytes as a request over an HTTP/2 connection of its own. */
export async function rawRequest(
  url: string,
  headers: Record<string, string>,
  body: Uint8Array | Iterable<Uint8Array> = [],
): Promise<RawAnswer> {
  const session = connectHttp2(url);
  session.on("error", () => {}); // the stream fails as well, and is awaited
  try {
    const stream = session.request({ ":method": "POST", ...headers });
    const answered: { headers: IncomingHttpHeaders; trailers: IncomingHttpHeaders } = {
      headers: {},
      trailers: {},
    };
    stream.on("response", (received) => {
      answered.headers = received;
    });
    stream.on("trailers", (received) => {
      answered.trailers = received;
    });
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", () => {}); // told by its code
    for (const chunk of body instanceof Uint8Array ? [body] : body) {
      stream.write(chunk);
    }
    stream.end();
    await once(stream, "close");
    return { ...answered, body: Buffer.concat(chunks), rstCode: stream.rstCode };
  } finally {
    session.destroy();
  }
}

/** Sends bytes as the body of a gRPC request and reads the status. */
export async function rawGrpc(
  url: string,
  path: string,
  body: Uint8Array | Iterable<Uint8Array>,
  headers: Record<string, string> = {},
) {
  const answer = await rawRequest(
    url,
    { ":path": path, "content-type": "application/grpc", te: "trailers", ...headers },
    body,
  );
  const status = { ...answer.headers, ...answer.trailers };
  const details = status["grpc-status-details-bin"];
  return {
    ...answer,
    code: Number(status["grpc-status"]),
    message: decodeURIComponent(String(status["grpc-message"] ?? "")),
    info: typeof details === "string" ? errorInfo(details) : undefined,
  };
}

function errorInfo(header: string): ErrorInfo | undefined {
  const status = fromBinary(StatusSchema, decodeBinaryHeader(header));
  return status.details
    .map((detail) => anyUnpack(detail, ErrorInfoSchema))
    .find((info) => info !== undefined);
}

/** Puts a message into the envelope that gRPC and Connect streams use. */
export function envelope(message: Uint8Array, flags = 0, declaredLength = message.byteLength): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(declaredLength, 1);
  return Buffer.concat([head, message]);
}

/** A TCP connection that is closed with the test. */
export interface RawConnection {
  readonly socket: Socket;
  /** Everything that was received. */
  received(): Buffer;
  readonly closed: Promise<void>;
}

export async function rawConnect(port: number): Promise<RawConnection> {
  const socket = connect(port, "127.0.0.1");
  onTestFinished(() => {
    socket.destroy();
  });
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => {}); // being cut off is what is tested
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await once(socket, "connect");
  return { socket, received: () => Buffer.concat(chunks), closed };
}
