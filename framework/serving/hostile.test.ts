import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { toBinary } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Measurement } from "../test-support/hostile-target.ts";
import {
  endHeaders,
  endStream,
  frame,
  frameType,
  grpcHeaderBlock,
  indexedHeader,
  preface,
  rstStream,
  settings,
} from "../test-support/http2-frames.ts";
import { envelope, rawGrpc } from "../test-support/raw-client.ts";
import { SampleService } from "../test-support/sample-service.ts";

const echo = "/sample.v1.SampleService/Echo";
const reflect = "/sample.v1.SampleService/Reflect";
const flood = "/sample.v1.SampleService/Flood";

/** How much a server's memory may differ after an attack: caches and compiled code, not what the attack sent. */
const tolerance = 24 * 1024 * 1024;

let target: ChildProcess;
let url: string;
let port: number;
let output = "";
let baseline: Measurement;
const sockets = new Set<Socket>();

beforeAll(async () => {
  target = fork(new URL("../test-support/hostile-target.ts", import.meta.url), {
    execArgv: ["--conditions=toolplane-source", "--expose-gc"],
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  for (const stream of [target.stdout, target.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      output += chunk;
    });
  }
  target.once("exit", (code, signal) => {
    output += `the server ended with ${signal ?? code}`;
  });
  const [message] = await once(target, "message");
  url = (message as { url: string }).url;
  port = Number(new URL(url).port);
  await answersHealthyClients();
  baseline = await measure();
});

afterEach(async () => {
  for (const socket of sockets) {
    socket.destroy();
  }
  sockets.clear();
  expect(output).toBe("");
  await answersHealthyClients();
  // Everything that the attack held is given back, and nothing of any attack is left over.
  await expect.poll(measure, { interval: 100 }).toMatchObject({
    streaming: 0,
    memory: expect.toSatisfy((memory) => memory - baseline.memory < tolerance),
  });
  expect(output).toBe("");
});

afterAll(async () => {
  if (target.connected) {
    const exited = once(target, "exit");
    target.disconnect();
    await exited;
  }
});

async function measure(): Promise<Measurement> {
  const answer = once(target, "message");
  target.send("measure");
  return (await answer)[0];
}

async function answersHealthyClients(): Promise<void> {
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: url }));
  expect((await client.echo({ value: "still there?" })).value).toBe("still there?");
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
}

/** A connection whose failures are of no interest. */
async function attacker(): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  sockets.add(socket);
  await once(socket, "connect");
  socket.resume();
  return socket;
}

/** Sends bytes and waits until the server has closed the connection. */
async function attack(...bytes: Uint8Array[]): Promise<void> {
  const socket = await attacker();
  const closed = once(socket, "close");
  socket.write(Buffer.concat(bytes));
  await closed;
}

/** A small generator with a seed, so that a failure can be repeated: https://en.wikipedia.org/wiki/Xorshift. */
function randomBytes(seed: number) {
  let state = seed;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return { next, bytes: (length: number) => Buffer.from(Array.from({ length }, () => next() & 0xff)) };
}

test("random bytes", async () => {
  const random = randomBytes(42);
  for (let round = 0; round < 200; round++) {
    const socket = await attacker();
    const start =
      round % 3 === 0 ? preface : round % 3 === 1 ? Buffer.from("POST / HTTP/1.1\r\n") : Buffer.alloc(0);
    socket.end(Buffer.concat([start, random.bytes(1 + (random.next() % 500))]));
  }
});

test("HTTP/2 frames with bytes changed at random", async () => {
  const valid = Buffer.concat([
    preface,
    settings,
    frame(frameType.headers, endHeaders, 1, grpcHeaderBlock(echo)),
    frame(frameType.data, endStream, 1, envelope(Buffer.from([0x0a, 1, 0x61]))),
    frame(frameType.headers, endHeaders, 3, grpcHeaderBlock(flood)),
    frame(frameType.data, endStream, 3, envelope(new Uint8Array())),
    frame(frameType.windowUpdate, 0, 0, Buffer.from([0, 1, 0, 0])),
    frame(frameType.ping, 0, 0, Buffer.alloc(8)),
  ]);
  const random = randomBytes(7);
  for (let round = 0; round < 300; round++) {
    const bytes = Buffer.from(valid);
    for (let changes = 1 + (random.next() % 4); changes > 0; changes--) {
      bytes[preface.byteLength + (random.next() % (bytes.byteLength - preface.byteLength))] =
        random.next() & 0xff;
    }
    const socket = await attacker();
    socket.end(bytes);
  }
});

test("messages that are declared to be larger than is allowed", async () => {
  for (const declared of [2 ** 30, 2 ** 32 - 1]) {
    const answer = await rawGrpc(url, echo, envelope(new Uint8Array(10), 0, declared));
    expect(answer.code).toBe(Code.ResourceExhausted);
  }
});

test("many messages that are declared as large as is allowed, of which little comes", async () => {
  const session = connectHttp2(url);
  session.on("error", () => {});
  const streams = Array.from({ length: 100 }, () => {
    const stream = session.request({ ":method": "POST", ":path": echo, "content-type": "application/grpc" });
    stream.on("error", () => {});
    stream.resume();
    stream.write(envelope(new Uint8Array(1), 0, 4 * 1024 * 1024));
    return stream;
  });
  // None of them is complete within the time for a message.
  await Promise.all(
    streams.map((stream) => stream.closed || new Promise((resolve) => stream.once("close", resolve))),
  );
  session.destroy();
});

test.each([
  ["objects", `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`],
  ["arrays", `{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`],
  ["a million brackets that are never closed", "[".repeat(1_000_000)],
])("JSON nested too deeply: %s", async (_, body) => {
  const response = await fetch(url + reflect, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  expect([response.status, await response.json()]).toMatchObject([400, { code: "invalid_argument" }]);
});

test("Protobuf nested too deeply", async () => {
  let bytes = Buffer.alloc(0);
  for (let depth = 0; depth < 9_999; depth++) {
    // Struct.fields { key: "", value: Value { struct_value } }, by turns of length-delimited fields 1, 2 and 5.
    const field = [0x2a, 0x12, 0x0a][depth % 3] ?? 0x0a;
    bytes = Buffer.concat([Buffer.from([field]), varint(bytes.byteLength), bytes]);
  }
  const answer = await rawGrpc(url, reflect, envelope(bytes));
  expect(answer.code).toBe(Code.InvalidArgument);
});

function varint(value: number): Buffer {
  const bytes = [];
  let rest = value;
  for (; rest >= 128; rest >>>= 7) {
    bytes.push((rest & 127) | 128);
  }
  return Buffer.from([...bytes, rest]);
}

test.each([
  ["gzip", gzipSync(Buffer.alloc(200 * 1024 * 1024))],
  ["br", brotliCompressSync(Buffer.alloc(200 * 1024 * 1024))],
])("decompression bombs (%s)", async (encoding, bomb) => {
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => rawGrpc(url, echo, envelope(bomb, 1), { "grpc-encoding": encoding })),
  );
  expect(answers.map(({ code }) => code)).toEqual(Array(10).fill(Code.ResourceExhausted));
});

test("readers of streams that read nothing", async () => {
  const session = connectHttp2(url);
  session.on("error", () => {});
  for (let stream = 0; stream < 10; stream++) {
    const request = session.request({
      ":method": "POST",
      ":path": flood,
      "content-type": "application/grpc",
    });
    request.on("error", () => {});
    request.end(envelope(toBinary(EmptySchema, { $typeName: "google.protobuf.Empty" })));
  }
  for (let connection = 0; connection < 10; connection++) {
    const socket = await attacker();
    socket.pause();
    socket.write(
      `POST ${flood} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+proto\r\ncontent-length: 5\r\n\r\n`,
    );
    socket.write(envelope(new Uint8Array()));
  }
  await expect.poll(measure).toMatchObject({ streaming: 20 });
  // Handlers stand still once a little is on its way, and what is on its way is all that is kept.
  let last = -1;
  await expect
    .poll(
      async () => {
        const { produced } = await measure();
        const isStill = produced === last;
        last = produced;
        return isStill;
      },
      { interval: 100 },
    )
    .toBe(true);
  const stalled = await measure();
  expect(stalled.memory - baseline.memory).toBeLessThan(40 * 1024 * 1024);
  // In the end nobody waits for them any longer.
  await expect.poll(measure).toMatchObject({ streaming: 0 });
  session.destroy();
});

test("connections over which headers or bodies trickle", async () => {
  const starts = [
    "",
    "P",
    "PRI",
    "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow:",
    `POST ${echo} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"`,
    preface,
    Buffer.concat([preface, settings, frame(frameType.headers, 0, 1, Buffer.from([0x83]))]),
  ];
  const slow = await Promise.all(
    Array.from({ length: 140 }, async (_, index) => {
      const socket = await attacker();
      socket.write(starts[index % starts.length] ?? "");
      return socket;
    }),
  );
  const trickle = setInterval(() => {
    for (const [index, socket] of slow.entries()) {
      if (index % starts.length === 3 || index % starts.length === 4) {
        socket.write("x");
      }
    }
  }, 100);
  await Promise.all(
    slow.map((socket) => socket.closed || new Promise((resolve) => socket.once("close", resolve))),
  );
  clearInterval(trickle);
});

test("a flood of streams that are reset at once", async () => {
  const block = grpcHeaderBlock(flood);
  const socket = await attacker();
  const closed = once(socket, "close");
  socket.write(Buffer.concat([preface, settings]));
  for (let batch = 0; batch < 50 && !socket.destroyed; batch++) {
    const frames: Buffer[] = [];
    for (let index = 0; index < 500; index++) {
      const stream = 2 * (batch * 500 + index) + 1;
      frames.push(frame(frameType.headers, endHeaders, stream, block), rstStream(stream));
    }
    socket.write(Buffer.concat(frames));
  }
  await closed;
});

test.each([
  ["pings", Buffer.concat(Array(200_000).fill(frame(frameType.ping, 0, 0, Buffer.alloc(8))))],
  ["settings", Buffer.concat(Array(200_000).fill(settings))],
])("a flood of %s whose answers are not read", async (_, frames) => {
  const socket = await attacker();
  socket.pause();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(Buffer.concat([preface, settings, frames]));
  socket.resume();
  socket.end();
  await closed;
});

test("a flood of empty DATA frames", async () => {
  const socket = await attacker();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(
    Buffer.concat([
      preface,
      settings,
      frame(frameType.headers, endHeaders, 1, grpcHeaderBlock(echo)),
      ...Array(100_000).fill(frame(frameType.data, 0, 1)),
    ]),
  );
  socket.end();
  await closed;
});

test("a header block in endless continuations", async () => {
  await attack(
    preface,
    settings,
    frame(frameType.headers, 0, 1, grpcHeaderBlock(echo)),
    ...Array(10_000).fill(frame(frameType.continuation, 0, 1, Buffer.from("00".repeat(100), "hex"))),
  );
});

test("a header that expands by references to the compression table", async () => {
  const bomb = Buffer.concat([
    grpcHeaderBlock(echo),
    indexedHeader("x", "a".repeat(4_000)),
    Buffer.alloc(10_000, 0x80 | 62),
  ]);
  const socket = await attacker();
  const answered = once(socket, "data");
  socket.write(Buffer.concat([preface, settings, frame(frameType.headers, endHeaders | endStream, 1, bomb)]));
  await answered;
});

test("a megabyte of headers", async () => {
  const socket = await attacker();
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk;
  });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(`GET / HTTP/1.1\r\nhost: localhost\r\nx: ${"a".repeat(1_000_000)}\r\n\r\n`);
  await closed;
  expect(received === "" || received.startsWith("HTTP/1.1 431")).toBe(true);
});

test("window updates that overflow the window", async () => {
  const most = Buffer.from([0x7f, 0xff, 0xff, 0xff]);
  await attack(preface, settings, ...Array(3).fill(frame(frameType.windowUpdate, 0, 0, most)));
});

test.each([
  [
    "no Host",
    `POST ${echo} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n""`,
    "200",
  ],
  ["an unusable Host", `POST ${echo} HTTP/1.1\r\nhost: a b:c\r\ncontent-length: 0\r\n\r\n`, "403"],
  ["a path that is no path", "GET http://[::1 HTTP/1.1\r\nhost: localhost\r\n\r\n", "404"],
  [
    "two lengths",
    `POST ${echo} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n""`,
    "400",
  ],
  [
    "a length and chunks",
    `POST ${echo} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    "400",
  ],
  [
    "an upgrade",
    "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "200",
  ],
  ["CONNECT", "CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n", ""],
])("HTTP/1 with %s", async (_, request, status) => {
  const socket = await attacker();
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk;
  });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(request);
  if (status === "") {
    await closed;
    expect(received).toBe("");
  } else {
    await expect.poll(() => received).toContain(`HTTP/1.1 ${status}`);
  }
});

test("HTTP/2 without an authority", async () => {
  const block = Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04, echo.length]),
    Buffer.from(echo),
    Buffer.from([0x0f, 31 - 15, "application/grpc".length]),
    Buffer.from("application/grpc"),
  ]);
  const socket = await attacker();
  let received = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
  });
  socket.write(
    Buffer.concat([
      preface,
      settings,
      frame(frameType.headers, endHeaders, 1, block),
      frame(frameType.data, endStream, 1, envelope(new Uint8Array())),
    ]),
  );
  await expect.poll(() => frameTypes(received)).toContain(frameType.rstStream);
});

/** The types of the frames that came in so far. */
function frameTypes(bytes: Buffer): number[] {
  const types: number[] = [];
  for (let offset = 0; offset + 9 <= bytes.byteLength; offset += 9 + bytes.readUIntBE(offset, 3)) {
    types.push(bytes.readUInt8(offset + 3));
  }
  return types;
}
