import { gzipSync } from "node:zlib";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { expect, test } from "vitest";
import { DomainError, notFound } from "../index.ts";
import { envelope, rawGrpc } from "../test-support/raw-client.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";

const echo = "/sample.v1.SampleService/Echo";
const reflect = "/sample.v1.SampleService/Reflect";
const join = "/sample.v1.SampleService/Join";

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  return promise.then(
    () => expect.unreachable("the call succeeded"),
    (error: unknown) => ConnectError.from(error),
  );
}

async function postJson(
  url: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  // Connect's error: what it holds is what the tests look at.
  const error = (await response.json()) as {
    code: string;
    message: string;
    details: { debug: { fieldViolations?: unknown } }[];
  };
  return { status: response.status, error };
}

test("messages that are nested too deeply are said to be, with the limit", async () => {
  const server = await serveSample();
  let nested: JsonObject = {};
  for (let level = 0; level < 80; level++) {
    nested = { nested };
  }
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const error = await failure(client.reflect(fromJson(StructSchema, nested)));
  expect(error.code).toBe(Code.InvalidArgument);
  expect(error.rawMessage).toContain("nested deeper than 100 levels");
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "NESTED_TOO_DEEP" }]);
});

const truncatedString = Uint8Array.of(0x0a, 0x7f, 0x61);
const malformedUtf8 = Uint8Array.of(0x0a, 0x02, 0xc3, 0x28);

test.each([
  ["a field that ends early", truncatedString],
  ["malformed UTF-8", malformedUtf8],
  ["a wire type that does not exist", Uint8Array.of(0x0f, 0x01)],
])("malformed Protobuf (%s) is the caller's mistake in every protocol", async (_, bytes) => {
  const server = await serveSample();
  const grpc = await rawGrpc(server.url, echo, envelope(bytes));
  expect(grpc).toMatchObject({ code: Code.InvalidArgument, info: { reason: "MALFORMED_REQUEST" } });
  const stream = await rawGrpc(server.url, join, envelope(bytes));
  expect(stream).toMatchObject({ code: Code.InvalidArgument, info: { reason: "MALFORMED_REQUEST" } });
  const web = await fetch(server.url + echo, {
    method: "POST",
    headers: { "content-type": "application/grpc-web+proto" },
    body: new Uint8Array(envelope(bytes)),
  });
  expect(await web.text()).toMatch(/grpc-status: 3\r\n/);
  const connect = await fetch(server.url + echo, {
    method: "POST",
    headers: { "content-type": "application/proto" },
    body: new Uint8Array(bytes),
  });
  expect([connect.status, await connect.json()]).toMatchObject([
    400,
    {
      code: "invalid_argument",
      details: [{ type: "google.rpc.ErrorInfo" }],
    },
  ]);
});

test.each([
  ["no JSON", "{"],
  ["a value of another type", "17"],
  ["malformed UTF-8", Uint8Array.of(0x22, 0xc3, 0x28, 0x22)],
])("malformed JSON (%s) is the caller's mistake", async (_, body) => {
  const server = await serveSample();
  expect(await postJson(server.url + echo, body)).toMatchObject({
    status: 400,
    error: {
      code: "invalid_argument",
      details: expect.arrayContaining([
        expect.objectContaining({ debug: expect.objectContaining({ reason: "MALFORMED_REQUEST" }) }),
      ]),
    },
  });
});

test("malformed JSON names the field", async () => {
  const server = await serveSample({
    routes: (router) => {
      router.service(RegistryService, {});
    },
  });
  const url = `${server.url}/toolplane.registry.v1.RegistryService/ListServices`;
  const { error } = await postJson(url, JSON.stringify({ pageSize: "many" }));
  expect(error.details[1]?.debug.fieldViolations).toMatchObject([
    { field: "page_size", reason: "MALFORMED" },
  ]);
});

test.each(["grpc-timeout", "connect-timeout-ms"])(
  "%s that cannot be read is the caller's mistake",
  async (name) => {
    const server = await serveSample();
    for (const value of ["-1", "soon", "1e9", "123456789012m", "99999999999"]) {
      const error =
        name === "grpc-timeout"
          ? await rawGrpc(server.url, echo, envelope(new Uint8Array()), { [name]: value })
          : (await postJson(server.url + echo, '""', { [name]: value })).error;
      expect(["invalid_argument", Code.InvalidArgument]).toContain(error.code);
      expect(error.message).toMatch(`${name} must be up to`);
      expect(error.message).toContain(`but is "${value}"`);
    }
  },
);

test.each(["grpc-timeout", "connect-timeout-ms"])(
  "%s beyond what a timer can hold is shortened, not an immediate timeout",
  async (name) => {
    const deadlines: number[] = [];
    const server = await serveSample(
      { limits: { maxTimeoutMs: Number.MAX_SAFE_INTEGER } },
      {
        echo(request, context) {
          deadlines.push(context.timeoutMs() ?? Number.NaN);
          return request;
        },
      },
    );
    if (name === "grpc-timeout") {
      expect(
        (await rawGrpc(server.url, echo, envelope(new Uint8Array()), { [name]: "99999999H" })).code,
      ).toBe(0);
    } else {
      expect((await postJson(server.url + echo, '""', { [name]: "9999999999" })).status).toBe(200);
    }
    expect(deadlines[0]).toBeGreaterThan(2 ** 31 - 60_000);
    expect(deadlines[0]).toBeLessThan(2 ** 31);
  },
);

test("a call without a deadline gets the longest one", async () => {
  let deadline: number | undefined;
  const server = await serveSample(
    { limits: { maxTimeoutMs: 60_000 } },
    {
      echo(request, context) {
        deadline = context.timeoutMs();
        return request;
      },
    },
  );
  await createClient(SampleService, createGrpcTransport({ baseUrl: server.url })).echo({});
  expect(deadline).toBeLessThanOrEqual(60_000);
});

test("a message that is too large is refused, also when it is large only after decompression", async () => {
  const server = await serveSample({ limits: { maxMessageBytes: 1_000 } });
  const large = new Uint8Array(100_000);
  for (const transport of [
    createGrpcTransport({ baseUrl: server.url }),
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", useBinaryFormat: true }),
  ]) {
    const error = await failure(createClient(SampleService, transport).measure({ value: large }));
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("MESSAGE_TOO_LARGE");
    expect(error.rawMessage).toMatch(
      // Over HTTP/1.1 this client does not announce the size.
      /^the message has (100\d{3} bytes; this server takes at most 1000|more than the 1000 bytes that this server takes)$/,
    );
  }
  const bomb = gzipSync(Buffer.from(`"${"a".repeat(100_000)}"`));
  expect(bomb.byteLength).toBeLessThan(1_000);
  expect(await postJson(server.url + echo, bomb, { "content-encoding": "gzip" })).toMatchObject({
    status: 429,
    error: {
      code: "resource_exhausted",
      message: "the message has, decompressed, more than the 1000 bytes that this server takes",
      details: [{ debug: { reason: "MESSAGE_TOO_LARGE" } }],
    },
  });
});

test("compressed rubbish is the caller's mistake", async () => {
  const server = await serveSample();
  const rubbish = new Uint8Array(Buffer.from("not gzip at all"));
  expect(await postJson(server.url + echo, rubbish, { "content-encoding": "gzip" })).toMatchObject({
    status: 400,
    error: { code: "invalid_argument" },
  });
  const unnamed = await rawGrpc(server.url, echo, envelope(new Uint8Array(3), 1));
  expect(unnamed).toMatchObject({ code: Code.InvalidArgument, info: { reason: "MALFORMED_REQUEST" } });
});

test("an encoding that is not known is named together with those that are", async () => {
  const server = await serveSample();
  expect(await postJson(server.url + echo, '""', { "content-encoding": "zip" })).toMatchObject({
    error: {
      code: "unimplemented",
      message: 'the compression "zip" is not supported; use gzip or br, or none',
      details: [{ debug: { reason: "UNSUPPORTED_COMPRESSION" } }],
    },
  });
  expect(
    await rawGrpc(server.url, echo, envelope(new Uint8Array()), { "grpc-encoding": "zip" }),
  ).toMatchObject({ code: Code.Unimplemented, info: { reason: "UNSUPPORTED_COMPRESSION" } });
});

test.each([
  [
    "a message that ends early",
    envelope(new Uint8Array(3), 0, 9),
    "the request ends in the middle of a message",
  ],
  ["no message", new Uint8Array(), "the request has no message, but this method takes one"],
  [
    "two messages for one",
    [envelope(new Uint8Array()), envelope(new Uint8Array())],
    "the request has several messages, but this method takes one",
  ],
  ["Protobuf that is none", envelope(truncatedString), /^the message is not valid Protobuf: /],
  [
    "a compressed message without a compression",
    envelope(new Uint8Array(3), 1),
    "a message is marked as compressed, but no header says how",
  ],
])("%s is told in words of our own", async (_, body, words) => {
  const server = await serveSample();
  const { message, info } = await rawGrpc(server.url, echo, body);
  expect(info).toMatchObject({ reason: "MALFORMED_REQUEST", domain: "toolplane" });
  expect(message).toMatch(words);
});

test("a content type that is not known is refused in words", async () => {
  const server = await serveSample();
  const words = (type: string) => `"${type}" is no content type of this method`;
  const grpc = "application/grpc+yaml";
  expect(await rawGrpc(server.url, echo, [], { "content-type": grpc })).toMatchObject({
    message: words(grpc),
    info: { reason: "UNSUPPORTED_MEDIA_TYPE" },
  });
  expect(await postJson(server.url + echo, "", { "content-type": "text/plain" })).toMatchObject({
    status: 415,
    error: { message: words("text/plain"), details: [{ debug: { reason: "UNSUPPORTED_MEDIA_TYPE" } }] },
  });
});

test("base64 that cannot be decoded in a GET is the caller's mistake", async () => {
  const server = await serveSample();
  const response = await fetch(`${server.url}${echo}?encoding=proto&base64=1&message=%25%25`);
  expect([response.status, await response.json()]).toMatchObject([400, { code: "invalid_argument" }]);
});

test("JSON nested too deeply is the caller's mistake", async () => {
  const server = await serveSample();
  const deep = `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`;
  expect(await postJson(server.url + reflect, deep)).toMatchObject({
    status: 400,
    error: { code: "invalid_argument" },
  });
});

test("requests that break their rules are refused with the paths of the fields", async () => {
  const server = await serveSample({
    routes: (router) => {
      router.service(RegistryService, { registerService: () => ({}) });
    },
  });
  const client = createClient(RegistryService, createGrpcTransport({ baseUrl: server.url }));
  const error = await failure(
    client.registerService({
      service: { name: "no spaces", tags: ["ok", ""] },
      instance: { endpoint: "127.0.0.1:1" },
    }),
  );
  expect(error.code).toBe(Code.InvalidArgument);
  expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("INVALID_FIELDS");
  expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations).toMatchObject([
    { field: "service.name", reason: "STRING_PATTERN" },
    { field: "service.tags[1]", reason: "STRING_MIN_LEN", description: "must not be empty" },
  ]);
});

test("a domain error keeps everything it says, and its cause goes to the log only", async () => {
  const server = await serveSample(
    {},
    {
      echo: () => {
        throw new DomainError({
          code: Code.FailedPrecondition,
          reason: "NO_PROVIDER",
          message: "no provider is configured",
          metadata: { provider: "none" },
          preconditions: [{ type: "CONFIGURATION", subject: "API_KEY", description: "set it" }],
          retryAfterMs: 1_500,
          cause: new Error("secret cause"),
        });
      },
      reflect: () => {
        throw notFound("Service", "x", "list services to see which exist");
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const error = await failure(client.echo({}));
  expect(error).toMatchObject({ code: Code.FailedPrecondition, rawMessage: "no provider is configured" });
  expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({
    reason: "NO_PROVIDER",
    domain: "toolplane",
    metadata: { provider: "none" },
  });
  expect(error.findDetails(PreconditionFailureSchema)[0]?.violations).toMatchObject([{ subject: "API_KEY" }]);
  expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({
    seconds: 1n,
    nanos: 500_000_000,
  });
  expect(JSON.stringify(error.details)).not.toContain("secret");
  expect(JSON.stringify(server.logged)).toContain("secret cause");
  const missing = await failure(client.reflect({}));
  expect(missing.findDetails(ResourceInfoSchema)[0]).toMatchObject({
    resourceType: "Service",
    resourceName: "x",
  });
});

test("an unexpected failure tells the caller nothing but the correlation id", async () => {
  const server = await serveSample(
    {},
    {
      echo: () => {
        throw new TypeError("secret detail");
      },
      // An answer that cannot be serialized fails after every interceptor.
      measure: () => ({ value: -1 }),
      async *count() {
        yield { value: -1 };
      },
    },
  );
  for (const transport of [
    createGrpcTransport({ baseUrl: server.url }),
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" }),
  ]) {
    const client = createClient(SampleService, transport);
    const headers = { "x-correlation-id": "case-7" };
    for (const call of [
      () => client.echo({}, { headers }),
      () => client.measure({}, { headers }),
      () => client.count({}, { headers })[Symbol.asyncIterator]().next(),
    ]) {
      const error = await failure(call());
      expect(error.code).toBe(Code.Internal);
      expect(error.rawMessage).toBe(
        "internal error; the server's log tells more under correlation id case-7",
      );
      expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: "INTERNAL" });
    }
  }
  const causes = server.logged.filter(({ msg }) => msg === "internal error");
  expect(causes).toHaveLength(6);
});

test("a backend's error is passed on as it is", async () => {
  const backend = await serveSample(
    {},
    {
      echo: () => {
        throw new DomainError({ code: Code.Aborted, reason: "LOCKED", message: "try again" });
      },
    },
  );
  const behind = createClient(SampleService, createGrpcTransport({ baseUrl: backend.url }));
  const server = await serveSample({}, { echo: (request) => behind.echo(request) });
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "2" }),
  );
  const error = await failure(client.echo({}));
  expect(error).toMatchObject({ code: Code.Aborted, rawMessage: "try again" });
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "LOCKED" }]);
});

test("a caller is answered at its deadline even when the handler does not look at its signal", async () => {
  const server = await serveSample({}, { echo: () => new Promise(() => {}) });
  const answer = await rawGrpc(server.url, echo, envelope(new Uint8Array()), { "grpc-timeout": "20m" });
  expect(answer).toMatchObject({ code: Code.DeadlineExceeded, info: { reason: "DEADLINE_EXCEEDED" } });
  const stream = await serveSample(
    {},
    {
      async *count() {
        await new Promise(() => {});
      },
    },
  );
  const count = "/sample.v1.SampleService/Count";
  expect(
    await rawGrpc(stream.url, count, envelope(new Uint8Array()), { "grpc-timeout": "20m" }),
  ).toMatchObject({ code: Code.DeadlineExceeded });
});

test("a generator is cleaned up when its caller leaves", async () => {
  let cleanedUp = false;
  const server = await serveSample(
    {},
    {
      async *count() {
        try {
          for (let value = 0; ; value++) {
            yield { value };
          }
        } finally {
          cleanedUp = true;
        }
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const leave = new AbortController();
  const numbers = client.count({ value: 1 }, { signal: leave.signal })[Symbol.asyncIterator]();
  await numbers.next();
  leave.abort();
  await failure(numbers.next());
  await expect.poll(() => cleanedUp).toBe(true);
  await expect
    .poll(() => server.logged.find(({ msg }) => msg === "call"))
    .toMatchObject({ code: "canceled" });
});

test("what a request that failed had in its query is in no log: it may be a message, or a token", async () => {
  const server = await serveSample({
    http: [
      () => {
        throw new Error("broken");
      },
    ],
  });
  expect((await fetch(`${server.url}/page?access_token=hidden-token`)).status).toBe(500);
  const failures = server.logged.filter(({ msg }) => msg === "a request failed");
  expect(failures).toMatchObject([{ path: "/page" }]);
  expect(JSON.stringify(server.logged)).not.toContain("hidden-token");
});
