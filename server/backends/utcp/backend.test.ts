import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  anonymous,
  type Clock,
  createLogger,
  DomainError,
  notFound,
  systemClock,
} from "@toolplane/framework";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { SecretSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import fc from "fast-check";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { createSecretResolver } from "../../config/secrets.ts";
import { createConnectionPool } from "../../pool/index.ts";
import type { Invocation } from "../invocation.ts";
import { createUtcpBackend, type UtcpBackendOptions } from "./backend.ts";

const pool = createConnectionPool({ logger: createLogger({ level: "silent" }), clock: systemClock });
const servers: Server[] = [];
const clock: Clock = { now: () => Date.UTC(2030, 0, 1), monotonic: () => 0, after: () => () => undefined };
let origin = "";
let seen: Seen[] = [];
/** What the tool does after its request was noted. */
let answer: (request: IncomingMessage, response: ServerResponse) => void;

interface Seen {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

beforeEach(async () => {
  seen = [];
  answer = (_, response) => response.setHeader("content-type", "application/json").end('{"ok":true}');
  origin = await serve(async (request, response) => {
    seen.push({
      method: request.method,
      url: request.url,
      headers: request.headers,
      body: await text(request),
    });
    answer(request, response);
  });
});

afterEach(async () => {
  await Promise.all(
    servers.splice(0).map((server) => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    }),
  );
});

afterAll(() => pool.close());

describe("a UTCP http tool gets its arguments", () => {
  it("in the path and, with GET, the query", async () => {
    await call(
      { url: "/cities/{city}/forecast?unit={unit}", http_method: "GET" },
      { city: "São Paulo/ä?", unit: "°C", days: 3, tags: ["a", "b"], opts: { deep: true }, none: null },
    );
    expect(seen).toMatchObject([{ method: "GET", body: "" }]);
    const url = new URL(seen[0]?.url ?? "", origin);
    expect(url.pathname).toBe("/cities/S%C3%A3o%20Paulo%2F%C3%A4%3F/forecast");
    expect([...url.searchParams]).toEqual([
      ["unit", "°C"],
      ["days", "3"],
      ["tags", "a"],
      ["tags", "b"],
      ["opts", '{"deep":true}'],
    ]);
  });

  it.each(["POST", "PUT", "PATCH"])("in the JSON body with %s", async (http_method) => {
    await call({ url: "/notes/{id}", http_method }, { id: 7, title: "T", list: [1] });
    expect(seen).toMatchObject([{ method: http_method, url: "/notes/7", body: '{"title":"T","list":[1]}' }]);
    expect(seen[0]?.headers["content-type"]).toBe("application/json");
  });

  it("in the query with DELETE", async () => {
    await call({ url: "/notes/{id}", http_method: "DELETE" }, { id: 7, force: true });
    expect(seen).toMatchObject([{ method: "DELETE", url: "/notes/7?force=true", body: "" }]);
  });

  it("as the whole body where the template names one, the others in the query", async () => {
    await call({ url: "/x", http_method: "POST", body_field: "note" }, { note: { a: 1 }, dry: true });
    await call({ url: "/x", http_method: "POST" }, { body: [1, 2], dry: true });
    await call({ url: "/x", http_method: "POST", body_field: null }, { body: "hello", to: "you" });
    expect(seen).toMatchObject([
      { url: "/x?dry=true", body: '{"a":1}' },
      { url: "/x?dry=true", body: "[1,2]" },
      { url: "/x", body: '{"body":"hello","to":"you"}' },
    ]);
  });

  it("as a form or as text where the template says so", async () => {
    await call(
      { url: "/f", http_method: "POST", content_type: "application/x-www-form-urlencoded" },
      { a: "1 & 2", b: ["x", "y"] },
    );
    await call({ url: "/t", http_method: "POST", content_type: "text/plain" }, { body: "plain" });
    expect(seen).toMatchObject([
      { body: "a=1+%26+2&b=x&b=y", headers: { "content-type": "application/x-www-form-urlencoded" } },
      { body: "plain", headers: { "content-type": "text/plain" } },
    ]);
    await expectViolation({ url: "/t", http_method: "POST", content_type: "text/plain" }, { a: 1 }, "args");
  });

  it("in headers", async () => {
    await call({ url: "/h", header_fields: ["X-Trace", "X-Missing"] }, { "X-Trace": 42, q: "z" });
    expect(seen).toMatchObject([{ url: "/h?q=z", headers: { "x-trace": "42" } }]);
    expect(seen[0]?.headers["x-missing"]).toBeUndefined();
  });
});

describe("arguments of a UTCP http tool cannot", () => {
  it.each<[string, string]>([
    ["a header's end", "a\r\nx-admin: 1"],
    ["characters that no header has", "日本"],
  ])("bring %s into a header", async (_, value) => {
    await expectViolation({ url: "/h", header_fields: ["X-Trace"] }, { "X-Trace": value }, "args.X-Trace");
  });

  it.each(["..", ".", "", null, ["a"], "\ud800"])("be %j in the path", async (id) => {
    await expectViolation({ url: "/users/{id}/delete", http_method: "DELETE" }, { id }, "args.id");
  });

  it("be missing from the path", async () => {
    await expectViolation({ url: "/users/{id}" }, {}, "args.id");
  });

  it("climb out of their segment together with the text around them", async () => {
    await expectViolation({ url: "/a/b/.{id}" }, { id: "." }, "args.id");
    await expectViolation({ url: "/a/{x}{y}/c" }, { x: ".", y: "." }, "args.x");
  });

  it("change host or path structure, whatever they are", async () => {
    const backend = createUtcpBackend({ pool, maxResultBytes: 1000 });
    const invoker = backend.invoker(manual({ url: "/users/{id}/name", http_method: "GET" }), "t");
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.string({ unit: "binary" }), fc.stringMatching(/^[./\\?#@:%2eE]{1,8}$/)),
        async (id) => {
          seen = [];
          try {
            for await (const _ of invoker.invoke([invoker.parse({ id }, "args")], invocation())) {
            }
          } catch (error) {
            expect(error).toBeInstanceOf(DomainError);
            return;
          }
          const [, users, sent, name, ...rest] = (seen[0]?.url ?? "").split("/");
          expect({ users, sent: decodeURIComponent(sent ?? ""), name, rest }).toEqual({
            users: "users",
            sent: id,
            name: "name",
            rest: [],
          });
        },
      ),
      { numRuns: 100 },
    );
  });

  it("differ from the tool's schema", async () => {
    const error = await failure(call({ url: "/x" }, { city: 7 }));
    expect(error).toBeInstanceOf(DomainError);
    expect(error instanceof DomainError && error.init.fields).toMatchObject([{ field: "args.city" }]);
    expect(seen).toEqual([]);
  });
});

describe("a UTCP http tool is sent", () => {
  it("its template's headers and the caller's trace, below what the operator registered", async () => {
    await call(
      { url: "/x", headers: { "X-A": "manual", "X-B": "manual" } },
      {},
      {
        headers: new Headers({ traceparent: "00-1-2-01", "x-request-id": "r" }),
        target: { endpoint: origin, protocol: Protocol.HTTP, headers: new Headers({ "x-b": "operator" }) },
      },
    );
    expect(seen[0]?.headers).toMatchObject({
      "x-a": "manual",
      "x-b": "operator",
      traceparent: "00-1-2-01",
      "x-request-id": "r",
    });
  });

  it("a key in the header, query or cookie, or a password", async () => {
    const key = { auth_type: "api_key", api_key: "k v", var_name: "X-Key" };
    await call({ url: "/x", auth: key }, {});
    await call({ url: "/x?a=1", auth: { ...key, location: "query" } }, { q: "2" });
    await call({ url: "/x", headers: { cookie: "a=b" }, auth: { ...key, location: "cookie" } }, {});
    await call({ url: "/x", auth: { auth_type: "basic", username: "me", password: "pä:ss" } }, {});
    expect(seen).toMatchObject([
      { headers: { "x-key": "k v" } },
      { url: "/x?a=1&q=2&X-Key=k+v" },
      { headers: { cookie: "a=b; X-Key=k v" } },
      { headers: { authorization: `Basic ${Buffer.from("me:pä:ss").toString("base64")}` } },
    ]);
  });

  it("secrets in the place of variables, read anew for every call", async () => {
    let secret = "one";
    const options = {
      secrets: {
        resolve(name: string, endpoint: string) {
          if (name !== "KEY") {
            throw notFound("secret", name);
          }
          return `${name}=${secret}@${endpoint}`;
        },
      },
    };
    const template = { url: "/x", headers: { "x-key": "<${KEY}>" } };
    await call(template, {}, {}, options);
    secret = "two";
    await call(template, {}, {}, options);
    expect(seen.map(({ headers }) => headers["x-key"])).toEqual([
      `<KEY=one@${origin}>`,
      `<KEY=two@${origin}>`,
    ]);
  });

  it("its own service's secret where there is one, in the form of UTCP", async () => {
    const secrets = createSecretResolver(
      ["KEY", "web__search__2_KEY", "web__search__2_AWAY"].map((name) =>
        create(SecretSchema, {
          name,
          source: { case: "env", value: name },
          hosts: [name.endsWith("AWAY") ? "away.example" : "127.0.0.1"],
        }),
      ),
      { KEY: "any", web__search__2_KEY: "own" },
    );
    await call({ url: "/x", headers: { "x-key": "$KEY" } }, {}, {}, { secrets });
    await call({ url: "/x", headers: { "x-key": "$KEY" } }, {}, { service: "other" }, { secrets });
    expect(seen.map(({ headers }) => headers["x-key"])).toEqual(["own", "any"]);
    const error = await failure(call({ url: "/x", headers: { "x-key": "$AWAY" } }, {}, {}, { secrets }));
    expect(error).toMatchObject({ message: expect.stringContaining("may not be sent to") });
  });

  it("nothing while a variable has no value", async () => {
    const error = await failure(call({ url: "/x", headers: { "x-key": "$HOME" } }, {}));
    expect(error instanceof DomainError && error.init).toMatchObject({ reason: "UNRESOLVED_VARIABLE" });
    expect(seen).toEqual([]);
  });

  it("no registered headers at another origin than the registered one", async () => {
    const target = {
      endpoint: "http://127.0.0.1:1",
      protocol: Protocol.HTTP,
      headers: new Headers({ "x-secret": "s" }),
    };
    await call({ url: `${origin}/x` }, {}, { target });
    expect(seen[0]?.headers["x-secret"]).toBeUndefined();
  });

  it("to a path below the endpoint where its address is relative", async () => {
    const target = { endpoint: `${origin}/api`, protocol: Protocol.HTTP, headers: new Headers() };
    await call({ url: "near" }, {}, { target });
    await call({ url: "/far" }, {}, { target });
    expect(seen.map(({ url }) => url)).toEqual(["/api/near", "/far"]);
  });
});

describe("the answer of a UTCP http tool", () => {
  it.each<[string, string | undefined, string | Uint8Array, JsonValue]>([
    ["JSON", "application/problem+json; charset=utf-8", '{"a":[1,null]}', { a: [1, null] }],
    ["text", "text/csv", "a,b", "a,b"],
    ["text in another encoding", "text/plain; charset=iso-8859-1", Uint8Array.of(0xe4), "ä"],
    ["text that is none", "text/plain", Uint8Array.of(0xff), { mime_type: "text/plain", data: "/w==" }],
    ["unlabelled text", undefined, "hi", "hi"],
    ["binary data", "image/png", Uint8Array.of(1, 2, 3), { mime_type: "image/png", data: "AQID" }],
    ["nothing", "application/json", "", null],
    [
      "integers with all their digits",
      "application/json",
      '{"id": 9007199254740993, "n": 12, "x": 1e300}',
      { id: "9007199254740993", n: 12, x: 1e300 },
    ],
  ])("is passed on as %s", async (_, type, body, expected) => {
    answer = (_, response) => {
      if (type) {
        response.setHeader("content-type", type);
      }
      response.end(body);
    };
    expect(await call({ url: "/x" }, {})).toEqual(expected);
  });

  it("that is not the JSON it claims to be is an error", async () => {
    answer = (_, response) => response.setHeader("content-type", "application/json").end("{");
    expect(await failure(call({ url: "/x" }, {}))).toMatchObject({ code: Code.Internal });
  });

  it("that is too large is an error, and reading it stops", async () => {
    answer = (_, response) => {
      const more = () => {
        while (response.write(Buffer.alloc(64 * 1024))) {}
      };
      response.on("drain", more);
      more();
    };
    const error = await failure(call({ url: "/x" }, {}, {}, { maxResultBytes: 100_000 }));
    expect(error).toMatchObject({
      code: Code.ResourceExhausted,
      rawMessage: expect.stringContaining("100000 bytes"),
    });
  });

  it.each<[number, Code]>([
    [400, Code.InvalidArgument],
    [401, Code.Unauthenticated],
    [403, Code.PermissionDenied],
    [404, Code.NotFound],
    [409, Code.Aborted],
    [418, Code.Unknown],
    [429, Code.ResourceExhausted],
    [500, Code.Internal],
    [503, Code.Unavailable],
    [504, Code.DeadlineExceeded],
  ])("with status %i becomes the matching code", async (status, code) => {
    answer = (_, response) => response.writeHead(status).end('{"error":{"message":"no such city"}}');
    const error = await connectError(call({ url: "/x" }, {}));
    expect(error).toMatchObject({
      code,
      rawMessage: `the tool answered with HTTP status ${status}: no such city`,
    });
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
      {
        reason: "HTTP_STATUS",
        metadata: { http_status: String(status), body: '{"error":{"message":"no such city"}}' },
      },
    ]);
  });

  it("that fails at length is cut to an excerpt", async () => {
    answer = (_, response) => response.writeHead(500).end("é".repeat(1_000_000));
    const [info] = (await connectError(call({ url: "/x" }, {}))).findDetails(ErrorInfoSchema);
    expect(info?.metadata["body"]).toBe("é".repeat(1024));
  });

  it.each([
    ["7", 7n],
    [new Date(clock.now() + 90_000).toUTCString(), 90n],
    [new Date(clock.now() - 90_000).toUTCString(), 0n],
  ])("with Retry-After %s says when to come back", async (value, seconds) => {
    answer = (_, response) => response.writeHead(429, { "retry-after": value }).end();
    const error = await connectError(call({ url: "/x" }, {}, {}, { clock }));
    expect(error.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds } }]);
    expect(error.metadata.get("retry-after")).toBe(String(seconds));
  });

  it("may be a redirect within the origin, and no other", async () => {
    const elsewhere: string[] = [];
    const other = await serve((request, response) => {
      elsewhere.push(request.url ?? "");
      response.end();
    });
    answer = (request, response) =>
      request.url === "/done"
        ? response.end("done")
        : response.writeHead(307, { location: request.url === "/near" ? "/done" : `${other}/steal` }).end();
    expect(await call({ url: "/near", http_method: "POST" }, { q: "1" })).toBe("done");
    expect(seen.at(-1)).toMatchObject({ method: "POST", body: '{"q":"1"}' });
    expect(await failure(call({ url: "/far" }, {}))).toMatchObject({ code: Code.FailedPrecondition });
    expect(elsewhere).toEqual([]);
  });

  it("that never comes is given up with the signal's reason, and the tool notices", async () => {
    const controller = new AbortController();
    const left = Promise.withResolvers<void>();
    answer = (_, response) => {
      response.once("close", left.resolve);
      controller.abort(new ConnectError("too late", Code.DeadlineExceeded));
    };
    const error = await failure(call({ url: "/x" }, {}, { signal: controller.signal }));
    expect(error).toMatchObject({ code: Code.DeadlineExceeded, rawMessage: "too late" });
    await left.promise;
  });

  it("that stops half-way is UNAVAILABLE", async () => {
    answer = (_, response) => {
      response.writeHead(200, { "content-length": "10" });
      response.write("half", () => response.destroy());
    };
    expect(await failure(call({ url: "/x" }, {}))).toMatchObject({ code: Code.Unavailable });
  });

  it("from an address where nobody listens is UNAVAILABLE", async () => {
    const error = await failure(call({ url: "http://127.0.0.1:1/x" }, {}));
    expect(error).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringContaining("http://127.0.0.1:1: connection refused"),
    });
  });
});

describe("a UTCP backend", () => {
  it("knows only tools of the manual, and only manuals", () => {
    const backend = createUtcpBackend({ pool, maxResultBytes: 1 });
    expect(() => backend.invoker(manual({ url: "/x" }), "other")).toThrow(/does not exist/);
    expect(() => backend.invoker({ kind: "descriptors", bytes: new Uint8Array() }, "t")).toThrow(
      /not a UTCP manual/,
    );
    expect(() => backend.invoker(manual({ url: "/x", call_template_type: "cli" }), "t")).toThrow(/"cli"/);
  });

  it("takes JSON one message at a time", async () => {
    const invoker = createUtcpBackend({ pool, maxResultBytes: 1 }).invoker(manual({ url: "/x" }), "t");
    expect(invoker.streaming).toBe(Streaming.UNARY);
    expect(() => invoker.parseMessage(create(AnySchema), "message")).toThrow(/message: the tool takes JSON/);
    const results = invoker.invoke([], invocation())[Symbol.asyncIterator]();
    await expect(results.next()).rejects.toThrow(/none/);
  });
});

function manual(template: JsonObject) {
  const tool = {
    name: "t",
    inputs: { type: "object", properties: { city: { type: "string" } } },
    tool_call_template: { call_template_type: "http", ...template },
  };
  return { kind: "utcp", bytes: new TextEncoder().encode(JSON.stringify({ tools: [tool] })) } as const;
}

function invocation(more: Partial<Invocation> = {}): Invocation {
  return {
    service: "web-search_2",
    target: { endpoint: origin, protocol: Protocol.HTTP, headers: new Headers() },
    principal: anonymous,
    headers: new Headers(),
    signal: new AbortController().signal,
    timeoutMs: 60_000,
    ...more,
  };
}

async function call(
  template: JsonObject,
  args: JsonObject,
  more: Partial<Invocation> = {},
  options: Partial<UtcpBackendOptions> = {},
): Promise<JsonValue> {
  const backend = createUtcpBackend({ pool, maxResultBytes: 1024 * 1024, ...options });
  const invoker = backend.invoker(manual(template), "t");
  const results: JsonValue[] = [];
  for await (const result of invoker.invoke([invoker.parse(args, "args")], invocation(more))) {
    results.push(result.json());
  }
  expect(results).toHaveLength(1);
  return results[0] ?? null;
}

async function expectViolation(template: JsonObject, args: JsonObject, field: string): Promise<void> {
  seen = [];
  const error = await failure(call(template, args));
  expect(error instanceof DomainError && error.init.fields?.map((violation) => violation.field)).toContain(
    field,
  );
  expect(seen).toEqual([]);
}

function failure(action: Promise<unknown>): Promise<unknown> {
  return action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
}

async function connectError(action: Promise<unknown>): Promise<ConnectError> {
  const error = await failure(action);
  expect(error).toBeInstanceOf(ConnectError);
  return ConnectError.from(error);
}

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo; // A TCP server has no other kind.
  return `http://127.0.0.1:${address.port}`;
}
