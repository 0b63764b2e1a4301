import { once } from "node:events";
import type { AddressInfo } from "node:net";
import tls from "node:tls";
import { serverCertificate, serverKey } from "../../../framework/test-support/certificates.ts";
import {
  endHeaders,
  endStream,
  frame,
  frameType,
  preface,
  settings,
} from "../../../framework/test-support/http2-frames.ts";

/** What a server answers with, frame by frame. */
export interface RawConnection {
  /** Counted from 1. */
  readonly number: number;
  send(...frames: Uint8Array[]): void;
  /** Cuts the connection. */
  cut(): void;
}

export interface RawHttp2Server {
  readonly url: string;
  close(): void;
}

/** A server over TLS that tells nothing of HTTP/2 but its settings, and answers each request as it is told. */
export async function startRawHttp2Server(
  onRequest: (stream: number, connection: RawConnection) => void,
): Promise<RawHttp2Server> {
  const sockets = new Set<tls.TLSSocket>();
  let connections = 0;
  const server = tls.createServer(
    { cert: serverCertificate, key: serverKey, ALPNProtocols: ["h2"] },
    (socket) => {
      const number = ++connections;
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.write(settings);
      let pending = Buffer.alloc(0);
      let begun = false;
      socket.on("data", (chunk: Buffer) => {
        pending = Buffer.concat([pending, chunk]);
        if (!begun && pending.byteLength >= preface.byteLength) {
          begun = true;
          pending = pending.subarray(preface.byteLength);
        }
        while (begun && pending.byteLength >= 9 && pending.byteLength >= 9 + pending.readUIntBE(0, 3)) {
          const type = pending.readUInt8(3);
          const stream = pending.readUInt32BE(5);
          pending = pending.subarray(9 + pending.readUIntBE(0, 3));
          if (type === frameType.headers) {
            onRequest(stream, {
              number,
              send: (...frames) => socket.write(Buffer.concat(frames)),
              cut: () => socket.destroy(),
            });
          }
        }
      });
    },
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // what a TCP server that listens has
  return {
    url: `https://127.0.0.1:${port}`,
    close() {
      server.close();
      for (const socket of sockets) {
        socket.destroy();
      }
    },
  };
}

/** Status 200; HPACK has it in its static table. */
export function okHeaders(stream: number): Buffer {
  return frame(frameType.headers, endHeaders, stream, Buffer.from([0x88]));
}

export function data(stream: number, text: string, last: boolean): Buffer {
  return frame(frameType.data, last ? endStream : 0, stream, Buffer.from(text));
}

export function reset(stream: number, code: number): Buffer {
  return frame(frameType.rstStream, 0, stream, uint32(code));
}

/** Streams above `lastStream` have not been looked at. */
export function goaway(lastStream: number, code: number): Buffer {
  return frame(frameType.goaway, 0, 0, uint32(lastStream, code));
}

function uint32(...values: number[]): Buffer {
  const buffer = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) {
    buffer.writeUInt32BE(value, 4 * index);
  }
  return buffer;
}
