/** HTTP/2 frames byte by byte (RFC 9113), for clients that do not keep to the rules. */

export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const endStream = 0x1;
export const endHeaders = 0x4;

export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = new Uint8Array(),
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.byteLength, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export const settings = frame(frameType.settings, 0, 0);

export function rstStream(stream: number): Buffer {
  return frame(frameType.rstStream, 0, stream, Buffer.from([0, 0, 0, 8]));
}

/** A header block that posts to a path as gRPC; HPACK (RFC 7541) without compression. */
export function grpcHeaderBlock(path: string): Buffer {
  return Buffer.concat([
    Buffer.from([0x83, 0x86]), // :method POST, :scheme http
    literal(4, path),
    literal(1, "localhost"),
    Buffer.from([0x0f, 31 - 15]), // content-type
    text("application/grpc"),
  ]);
}

/** A header whose name is in HPACK's static table, at an index below 15. */
function literal(nameIndex: number, value: string): Buffer {
  return Buffer.concat([Buffer.from([nameIndex]), text(value)]);
}

function text(value: string): Buffer {
  return Buffer.concat([hpackInteger(0, 7, value.length), Buffer.from(value)]);
}

/** A header with a name of one's own that is added to the dynamic table, where it is entry 62. */
export function indexedHeader(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x40]), text(name), text(value)]);
}

/** RFC 7541, section 5.1. */
function hpackInteger(high: number, prefixBits: number, value: number): Buffer {
  const most = 2 ** prefixBits - 1;
  if (value < most) {
    return Buffer.from([high | value]);
  }
  const bytes = [high | most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) {
    bytes.push((rest % 128) | 128);
  }
  return Buffer.from([...bytes, rest]);
}
