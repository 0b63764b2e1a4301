import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { createLogger, DomainError, notFound, systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { createConnectionPool } from "../../pool/index.ts";
import type { Target } from "../../pool/target.ts";
import type { Discovery } from "../source.ts";
import type { SecretLookup } from "./credentials.ts";
import { discoverFromUtcpManual } from "./manual.ts";

const pool = createConnectionPool({ logger: createLogger({ level: "silent" }), clock: systemClock });
const { dispatcher } = pool;
const servers: Server[] = [];

afterEach(async () => {
  await Promise.all(
    servers.splice(0).map((server) => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    }),
  );
});

afterAll(() => pool.close());

describe("a UTCP manual", () => {
  it("offers its tools with schemas, tags and what their method promises", async () => {
    const { tools, problems, definition } = await inline([
      tool("get_forecast", { description: "Weather to come", tags: ["weather"] }),
      tool("weather.addStation", { tool_call_template: { ...template, http_method: "post" } }),
      tool("drop", { tool_call_template: { ...template, http_method: "DELETE" } }),
    ]);
    expect(problems).toEqual([]);
    expect(tools.map(({ name, title, idempotency }) => ({ name, title, idempotency }))).toEqual([
      { name: "get_forecast", title: "Get forecast", idempotency: Idempotency.NO_SIDE_EFFECTS },
      { name: "weather.addStation", title: "Add station", idempotency: Idempotency.UNSPECIFIED },
      { name: "drop", title: "Drop", idempotency: Idempotency.IDEMPOTENT },
    ]);
    expect(tools[0]).toMatchObject({
      description: "Weather to come",
      tags: ["weather"],
      kind: ToolKind.HTTP,
      streaming: Streaming.UNARY,
      sourceName: "get_forecast",
      inputSchema: inputs,
      outputSchema: { type: "object" },
    });
    expect(definition?.kind).toBe("utcp");
  });

  it("of version 0.x is understood", async () => {
    const { tool_call_template: _, ...entry } = tool("old");
    const discovery = await discover({
      version: "0.1.0",
      tools: [
        {
          ...entry,
          tool_provider: { provider_type: "http", url: "http://127.0.0.1:1/x", http_method: "GET" },
        },
      ],
    });
    expect(discovery.tools).toMatchObject([{ name: "old", problem: undefined }]);
    expect(JSON.parse(new TextDecoder().decode(discovery.definition?.bytes))).toMatchObject({
      utcp_version: "1.0.1",
      tools: [{ tool_call_template: { call_template_type: "http" } }],
    });
  });

  it.each<[string, JsonObject, string, RegExp]>([
    [
      "an unknown template type",
      { call_template_type: "smoke_signal" },
      "UNSUPPORTED_CALL_TEMPLATE",
      /"smoke_signal"/,
    ],
    ["a missing template type", { url: "http://x/" }, "UNSUPPORTED_CALL_TEMPLATE", /null/],
    ["no address", { call_template_type: "http" }, "INVALID_URL", /url/],
    ["an address of another scheme", { ...http("file:///etc/passwd") }, "INVALID_URL", /not an http/],
    ["a host chosen by an argument", { ...http("http://{city}/") }, "INVALID_URL", /placeholders/],
    ["a host ended by an argument", { ...http("http://good.test{city}/") }, "INVALID_URL", /placeholders/],
    ["a scheme-relative host chosen by an argument", { ...http("//{city}/") }, "INVALID_URL", /placeholders/],
    ["an argument inside an escape", { ...http("/a/%2{city}") }, "INVALID_URL", /percent-encoded/],
    ["an address with a line break", { ...http("http://a.test/\nb") }, "INVALID_URL", /spaces/],
    ["an address with a password", { ...http("http://me:secret@a.test/") }, "INVALID_URL", /password/],
    ["a variable in the address", { ...http("http://a.test/$STAGE/x") }, "UNRESOLVED_VARIABLE", /\$STAGE/],
    ["an unknown method", { ...template, http_method: "BREW" }, "INVALID_CALL_TEMPLATE", /http_method/],
    [
      "a header that frames messages",
      { ...template, headers: { Host: "x" } },
      "INVALID_CALL_TEMPLATE",
      /Host/,
    ],
    [
      "a header with a line break",
      { ...template, headers: { x: "a\r\nb" } },
      "INVALID_CALL_TEMPLATE",
      /headers\.x/,
    ],
    [
      "a multipart body",
      { ...template, content_type: "multipart/form-data" },
      "INVALID_CALL_TEMPLATE",
      /multipart/,
    ],
    [
      "fields of the wrong type",
      { ...template, header_fields: [1] },
      "INVALID_CALL_TEMPLATE",
      /header_fields/,
    ],
    ["OAuth", { ...template, auth: { auth_type: "oauth2" } }, "UNSUPPORTED_AUTH", /oauth2/],
    ["an unset variable", { ...template, headers: { key: "$HOME" } }, "UNRESOLVED_VARIABLE", /\$HOME/],
    [
      "an unset variable in a key",
      { ...template, auth: { auth_type: "api_key", api_key: "Bearer $PATH" } },
      "UNRESOLVED_VARIABLE",
      /\$PATH/,
    ],
  ])("with %s degrades only that tool", async (_, bad, reason, message) => {
    const discovery = await inline([tool("bad", { tool_call_template: bad }), tool("good")]);
    expectOnlyBad(discovery, reason, message);
  });

  it.each<[string, JsonObject, string]>([
    ["is not an object", { inputs: "text" }, "INVALID_SCHEMA"],
    ["describes no object", { inputs: { type: "string" } }, "INVALID_SCHEMA"],
    [
      "is no JSON Schema",
      { inputs: { type: "object", properties: { a: { type: "strung" } } } },
      "INVALID_SCHEMA",
    ],
  ])("with an input schema that %s degrades only that tool", async (_, bad, reason) => {
    expectOnlyBad(await inline([tool("bad", bad), tool("good")]), reason, /inputs/);
  });

  it("with a broken output schema reports it and keeps the tool callable", async () => {
    const { tools, problems } = await inline([tool("odd", { outputs: { type: 7 } })]);
    expect(tools).toMatchObject([{ name: "odd", problem: undefined, outputSchema: {} }]);
    expect(problems).toMatchObject([{ reason: "INVALID_SCHEMA", tool: "odd" }]);
  });

  it("leaves out entries that cannot be listed, and says which", async () => {
    let deep: JsonValue = {};
    for (let level = 0; level < 5000; level++) {
      deep = { a: deep };
    }
    const { tools, problems } = await inline([
      tool("twice"),
      tool("twice", { description: "second" }),
      tool("two words"),
      tool(""),
      "nonsense",
      tool("deep", { inputs: deep }),
      { name: "no_template" },
    ]);
    expect(tools).toMatchObject([{ name: "twice", description: "" }]);
    expect(problems.map(({ reason, message }) => `${reason} ${message.split(":")[0]}`)).toEqual([
      "DUPLICATE_TOOL tools[1].name",
      "INVALID_TOOL tools[2].name",
      "INVALID_TOOL tools[3].name",
      "INVALID_TOOL tools[4]",
      "INVALID_TOOL tools[5]",
      "INVALID_TOOL tools[6].tool_call_template",
    ]);
  });

  it("that holds nothing callable has no definition", async () => {
    const { tools, definition } = await inline([
      tool("bad", { tool_call_template: { call_template_type: "cli" } }),
    ]);
    expect(tools).toHaveLength(1);
    expect(definition).toBeUndefined();
  });

  it.each<[string, JsonValue, string]>([
    ["a list", [], ""],
    ["without tools", { utcp_version: "1.0.1" }, "tools"],
    ["of a future version", { utcp_version: "2.0", tools: [] }, "utcp_version"],
    ["an OpenAPI document", { openapi: "3.1.0", paths: {} }, "openapi"],
    ["with too many tools", { tools: Array.from({ length: 10_001 }, () => null) }, "tools"],
  ])("that is %s is refused with the field's path", async (_, json, field) => {
    expect(await refusal(discover(json))).toMatchObject({ reason: "MANUAL_INVALID", metadata: { field } });
  });
});

describe("variables of a manual", () => {
  const secrets: SecretLookup = {
    resolve(name, endpoint) {
      if (name === "KEY" && endpoint === "http://127.0.0.1:1") {
        return "s3cret";
      }
      throw notFound("secret", name, `or not for ${endpoint}`);
    },
  };
  const keyed = {
    ...template,
    auth: { auth_type: "api_key", api_key: "Bearer $KEY", var_name: "Authorization" },
  };

  it("are filled with secrets that may go to the tool's host", async () => {
    const own = await discover({ tools: [tool("own", { tool_call_template: keyed })] }, { secrets });
    expect(own.problems).toEqual([]);
    const elsewhere = { ...keyed, url: "http://127.0.0.1:2/steal" };
    const { problems } = await discover(
      { tools: [tool("other", { tool_call_template: elsewhere })] },
      { secrets },
    );
    expect(problems).toMatchObject([{ reason: "UNRESOLVED_VARIABLE", tool: "other" }]);
  });

  it("are not stored with the definition", async () => {
    const { definition } = await discover(
      { tools: [tool("own", { tool_call_template: keyed })] },
      { secrets },
    );
    expect(new TextDecoder().decode(definition?.bytes)).not.toContain("s3cret");
  });

  it("need no value when the registration sets the header, at its own origin", async () => {
    const registered = (endpoint: string): Target => ({
      endpoint,
      protocol: Protocol.HTTP,
      headers: new Headers({ authorization: "Bearer mine" }),
    });
    const manual = { tools: [tool("own", { tool_call_template: keyed })] };
    expect((await discover(manual, { target: registered("http://127.0.0.1:1") })).problems).toEqual([]);
    expect((await discover(manual, { target: registered("http://127.0.0.1:2") })).problems).toHaveLength(1);
  });
});

describe("a manual's address", () => {
  it("is fetched, and relative addresses in it start there", async () => {
    const url = await serve((_, response) => {
      response.setHeader("content-type", "application/json");
      response.end(
        JSON.stringify({
          utcp_version: "1.0.1",
          tools: [tool("near", { tool_call_template: http("/near") })],
        }),
      );
    });
    const { tools, problems } = await fetched(`${url}/utcp`);
    expect(problems).toEqual([]);
    expect(tools).toMatchObject([{ name: "near" }]);
  });

  it("gets the registered headers only at the registered origin", async () => {
    const seen: (string | undefined)[] = [];
    const listener: RequestListener = (request, response) => {
      seen.push(request.headers.authorization);
      response.end('{"tools":[]}');
    };
    const own = await serve(listener);
    const other = await serve(listener);
    const target = {
      endpoint: own,
      protocol: Protocol.HTTP,
      headers: new Headers({ authorization: "Bearer mine" }),
    };
    await fetched(`${own}/utcp`, { target });
    await fetched(`${other}/utcp`, { target });
    expect(seen).toEqual(["Bearer mine", undefined]);
  });

  it("may redirect three times, without taking credentials to another origin", async () => {
    const seen: (string | undefined)[] = [];
    const goal = await serve((request, response) => {
      seen.push(request.headers.authorization);
      response.end('{"tools":[]}');
    });
    const start = await serve((request, response) => {
      const hops = Number(request.url?.slice(1));
      response.writeHead(302, { location: hops > 1 ? `/${hops - 1}` : goal }).end();
    });
    const target = {
      endpoint: start,
      protocol: Protocol.HTTP,
      headers: new Headers({ authorization: "Bearer mine" }),
    };
    await fetched(`${start}/3`, { target });
    expect(seen).toEqual([undefined]);
    expect(await refusal(fetched(`${start}/4`, { target }))).toMatchObject({
      reason: "MANUAL_UNREACHABLE",
      message: expect.stringContaining("redirects more than 3 times"),
    });
  });

  it.each<[string, RequestListener, string, RegExp]>([
    ["answers with an error", (_, r) => r.writeHead(503).end(), "MANUAL_UNREACHABLE", /status 503/],
    ["closes the connection", (_, r) => r.destroy(), "MANUAL_UNREACHABLE", /connection/],
    [
      "answers with a web page",
      (_, r) => r.setHeader("content-type", "text/html").end("<html>Sign in</html>"),
      "MANUAL_INVALID",
      /text\/html instead of JSON/,
    ],
    ["answers with something else", (_, r) => r.end("not JSON"), "MANUAL_INVALID", /not JSON/],
    [
      "answers with bad UTF-8",
      (_, r) => r.end(Buffer.from([0x22, 0xff, 0x22])),
      "MANUAL_INVALID",
      /not JSON/,
    ],
    [
      "compresses its answer unasked",
      (_, r) => r.setHeader("content-encoding", "gzip").end("{}"),
      "MANUAL_UNREACHABLE",
      /compressed/,
    ],
    [
      "answers without end",
      (_, r) => {
        const more = () => {
          while (r.write(Buffer.alloc(1024 * 1024, "["))) {}
        };
        r.on("drain", more);
        more();
      },
      "MANUAL_INVALID",
      /larger than/,
    ],
  ])("that %s is refused with the reason", async (_, listener, reason, message) => {
    const url = await serve(listener);
    expect(await refusal(fetched(`${url}/utcp`))).toMatchObject({
      reason,
      message: expect.stringMatching(message),
    });
  });

  it("that nobody listens at is unreachable", async () => {
    expect(await refusal(fetched("http://127.0.0.1:1/utcp"))).toMatchObject({
      reason: "MANUAL_UNREACHABLE",
      message: expect.stringContaining("connection refused"),
    });
  });

  it("that never answers is given up when the signal says so", async () => {
    const controller = new AbortController();
    const url = await serve(() => controller.abort());
    expect(await refusal(fetched(`${url}/utcp`, { signal: controller.signal }))).toMatchObject({
      reason: "MANUAL_UNREACHABLE",
      message: expect.stringContaining("did not answer in time"),
    });
  });

  it.each(["nonsense", "ftp://a.test/utcp"])("%s is refused", async (url) => {
    expect(await refusal(fetched(url))).toMatchObject({
      reason: "MANUAL_INVALID",
      metadata: { field: "url" },
    });
  });
});

const inputs: JsonObject = { type: "object", properties: { city: { type: "string" } } };
const template: JsonObject = http("http://127.0.0.1:1/forecast");

function http(url: string): JsonObject {
  return { call_template_type: "http", url, http_method: "GET" };
}

function tool(name: string, more: JsonObject = {}): JsonObject {
  return { name, inputs, outputs: { type: "object" }, tool_call_template: template, ...more };
}

function inline(tools: JsonValue[]): Promise<Discovery> {
  return discover({ utcp_version: "1.0.1", manual_version: "1.2.0", info: { title: "extra" }, tools });
}

type Options = Partial<Parameters<typeof discoverFromUtcpManual>[0]>;

function discover(json: JsonValue, options: Options = {}): Promise<Discovery> {
  return discoverFromUtcpManual({
    service: "weather",
    manual: { kind: "inline", json },
    dispatcher,
    signal: new AbortController().signal,
    ...options,
  });
}

function fetched(url: string, options: Options = {}): Promise<Discovery> {
  return discoverFromUtcpManual({
    service: "weather",
    manual: { kind: "url", url },
    dispatcher,
    signal: new AbortController().signal,
    ...options,
  });
}

function expectOnlyBad({ tools, problems, definition }: Discovery, reason: string, message: RegExp): void {
  expect(tools.map(({ name }) => name)).toEqual(["bad", "good"]);
  expect(problems).toEqual([{ reason, message: expect.stringMatching(message), tool: "bad" }]);
  expect(tools[0]?.problem).toEqual(problems[0]);
  expect(tools[1]?.problem).toBeUndefined();
  expect(definition).toBeDefined();
}

async function refusal(action: Promise<unknown>): Promise<object> {
  const error = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DomainError);
  return error instanceof DomainError ? error.init : {};
}

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo; // A TCP server has no other kind.
  return `http://127.0.0.1:${address.port}`;
}
