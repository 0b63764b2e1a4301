import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { stripVTControlCharacters } from "node:util";
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import {
  HealthStatus,
  InstanceSchema,
  ServiceState,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Streaming, type Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { ToolCall } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BundledCli, bundleCli, type RunOptions } from "../testing/bundled-cli.ts";
import { aService, aTool, type StubServer, startStubServer } from "../testing/stub-server.ts";
import { SHELLS } from "./commands/completion.ts";
import { ExitCode } from "./exit-code.ts";

const tools: readonly Tool[] = [
  aTool(),
  aTool({
    name: "weather.acme.weather.v1.WeatherService.Watch",
    alias: "weather.Watch",
    description: "Streams the weather\u001b[2J as it changes.",
    streaming: Streaming.SERVER,
  }),
  aTool({ name: "weather.Record", alias: "weather.Record", streaming: Streaming.CLIENT }),
  aTool({ name: "weather.Hang", alias: "weather.Hang", streaming: Streaming.SERVER }),
  ...["Internal", "Limited", "Invalid", "Denied", "Down", "Slow", "Text", "Backend"].map((name) =>
    aTool({ name: `fail.${name}`, alias: `fail.${name}` }),
  ),
];

/** What the server adds to errors of the services behind it. */
const BACKEND = {
  reason: "BACKEND_ERROR",
  domain: "toolplane",
  metadata: { service: "weather", version: "1.2.0", instance_id: "weather-1" },
};

const failures: Readonly<Record<string, () => ConnectError>> = {
  "fail.Internal": () =>
    new ConnectError("internal error", Code.Internal, { "x-correlation-id": "abc-123" }, [
      { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason: "INTERNAL", domain: "toolplane" }) },
    ]),
  "fail.Limited": () =>
    new ConnectError("too many calls", Code.ResourceExhausted, undefined, [
      { desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: durationFromMs(3_000) }) },
    ]),
  "fail.Invalid": () =>
    new ConnectError("arguments.days: too many", Code.InvalidArgument, undefined, [
      {
        desc: BadRequestSchema,
        value: create(BadRequestSchema, {
          fieldViolations: [
            { field: "call.arguments.days", description: "must be at most 14" },
            { field: "call.arguments.place.lat", description: "must be a number" },
          ],
        }),
      },
    ]),
  "fail.Denied": () => new ConnectError("a token is needed", Code.Unauthenticated),
  "fail.Down": () =>
    new ConnectError("connection refused", Code.Unavailable, undefined, [
      {
        desc: ErrorInfoSchema,
        value: create(ErrorInfoSchema, BACKEND),
      },
    ]),
  "fail.Backend": () =>
    new ConnectError("nothing grows there", Code.InvalidArgument, undefined, [
      {
        desc: ErrorInfoSchema,
        value: create(ErrorInfoSchema, { reason: "NO_SOIL", domain: "acme.example" }),
      },
      {
        desc: BadRequestSchema,
        value: create(BadRequestSchema, { fieldViolations: [{ field: "place", description: "is at sea" }] }),
      },
      { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, BACKEND) },
    ]),
  "fail.Slow": () => new ConnectError("the deadline passed", Code.DeadlineExceeded),
};

let cli: BundledCli;
let server: StubServer;
let calls: ToolCall[] = [];
let hanging: Promise<unknown>;

beforeAll(async () => {
  cli = await bundleCli();
  const services = [
    aService(),
    aService({ name: "billing", state: ServiceState.DEGRADED, version: "2.0.0", tags: [] }),
  ];
  server = await startStubServer(
    {
      listServices: ({ pageToken, pageSize }) => {
        const start = Number(pageToken || 0);
        const end = Math.min(start + (pageSize || 100), 2_500);
        return {
          services: Array.from({ length: end - start }, (_, n) => services[(start + n) % 2] ?? aService()),
          nextPageToken: end < 2_500 ? String(end) : "",
          totalSize: 2_500,
        };
      },
      listTools: () => ({ tools: [...tools], totalSize: tools.length }),
      getTool: ({ name }) => {
        const tool = tools.find((each) => each.name === name || each.alias === name);
        if (tool === undefined) throw new ConnectError(`tool "${name}" does not exist`, Code.NotFound);
        return { tool };
      },
      checkHealth: () => ({
        checks: [HealthStatus.HEALTHY, HealthStatus.UNHEALTHY].map((status, n) => ({
          service: "weather",
          version: "1.2.0",
          environment: "default",
          instanceId: `weather-${n}`,
          status,
          latency: durationFromMs(3),
          time: timestampFromMs(0),
        })),
      }),
      registerService: () => ({
        service: {
          ...aService(),
          instances: [
            create(InstanceSchema, { id: "weather-0", endpoint: "http://a:1", health: HealthStatus.UNKNOWN }),
          ],
        },
      }),
      async *watchServices(_, { signal }) {
        yield { event: { case: "updated", value: aService() } };
        yield { event: { case: "synced", value: { revision: 1n } } };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    },
    {
      async *callToolStream({ call }, { signal }) {
        if (call === undefined) return;
        calls.push(call);
        const failure = failures[call.tool];
        if (failure !== undefined) throw failure();
        yield { event: { case: "started", value: { tool: call.tool } } };
        for (const value of resultsOf(call)) {
          yield {
            event: {
              case: "result",
              value: { value: { case: "json", value: fromJson(ValueSchema, value) } },
            },
          };
        }
        if (call.tool === "weather.Hang") {
          hanging = new Promise((resolve) => signal.addEventListener("abort", resolve));
          await hanging;
        }
        yield {
          event: {
            case: "finished",
            value: { tool: call.tool, resultCount: 1, duration: durationFromMs(12) },
          },
        };
      },
    },
    {
      async *watchStats(_, { signal }) {
        for (const perSecond of [1, 2]) {
          yield { stats: { inbound: { perSecond, successRate: 1 } } };
        }
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    },
  );
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await cli[Symbol.asyncDispose]();
});
beforeEach(() => {
  calls = [];
});

function resultsOf(call: ToolCall): JsonValue[] {
  if (call.tool === "fail.Text") return ["plain\ntext"];
  if (call.tool === "weather.acme.weather.v1.WeatherService.Watch") return [{ n: 1 }, { n: 2 }];
  return [{ sunny: true }];
}

const run = (args: readonly string[], options: RunOptions = {}) =>
  cli.run(args, { url: server.url, ...options });

describe("help", () => {
  it("gives examples and options for every command", async () => {
    const commands = [
      ["serve"],
      ["register"],
      ["deregister"],
      ["discover"],
      ["services", "list"],
      ["services", "show"],
      ["services", "watch"],
      ["refresh"],
      ["tools", "list"],
      ["tools", "search"],
      ["tools", "show"],
      ["call"],
      ["health"],
      ["monitor"],
      ["stats"],
      ["breakers", "list"],
      ["breakers", "reset"],
      ["breakers", "isolate"],
      ["limits"],
      ["caches", "list"],
      ["caches", "purge"],
      ["pools"],
      ["runtime"],
      ["metrics"],
      ["version"],
      ["completion"],
    ];
    const results = await Promise.all(commands.map((command) => run([...command, "--help"])));
    for (const [index, { code, stdout, stderr }] of results.entries()) {
      const command = commands[index]?.join(" ");
      expect([code, stderr], command).toEqual([0, ""]);
      expect(stdout, command).toContain(`Usage: toolplane ${command}`);
      expect(stdout, command).toMatch(/Examples:\n {2}\$ .*toolplane/);
      expect(stdout, command).toContain("--json");
    }
  });

  it("lists the commands and the exit codes", async () => {
    const { stdout } = await run(["--help"]);
    expect(stdout).toMatch(/Commands:[\s\S]*serve[\s\S]*register <name> <address>[\s\S]*completion/);
    expect(stdout).toContain("Exit codes:");
    expect(stdout).not.toContain("__complete");
  });

  it("answers to the --version that people try first", async () => {
    expect(await run(["--version"])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^toolplane {2}\d+\.\d+/),
    });
  });
});

describe("a wrong command line", () => {
  it.each([
    [["servcies"], 'Unknown command "servcies"', "Did you mean services?"],
    [["services", "--helth", "x"], 'Unknown option "--helth"', "toolplane services --help"],
    [["tools", "show"], "<tool> is missing", "toolplane tools show --help"],
    [["services", "--timeout", "soon"], '--timeout: "soon" is not a length of time', "30s"],
    [["services", "--limit", "x"], '--limit: "x" is not a whole number', "toolplane services list --help"],
    [["services", "--url", "ftp://x"], '"ftp://x" is not the address of a server', "http://host:port"],
    [["services", "--health", "fine"], '--health: "fine" is not one of', ""],
    [
      ["register", "a", "b:1", "--source", "carrier-pigeon"],
      "is not one of reflection, utcp and descriptors",
      "",
    ],
    [["register", "a", "b:1", "--manual", "x.json", "--descriptors", "y"], "one source", ""],
    [["register", "a", "b:1", "--metadata", "x"], "is not written as key=value", ""],
    [["deregister"], "Say what to remove", ""],
    [["call", "weather.GetForecast", "Berlin"], "neither JSON nor a pair", "city=Berlin"],
    [["call", "weather.GetForecast", '"Berlin"'], "must be a JSON object", ""],
    [["completion", "cmd.exe"], '"cmd.exe" is no shell', "bash"],
    [["services", "--url"], "--url <url> needs a value", "toolplane services --help"],
    [["version", "1", "2"], "There are 2 arguments where 0 are expected", "toolplane version --help"],
    [["health", "--limit", "5"], "--instance and --limit choose among past checks", "--history"],
  ])("%j is explained, with what to try instead", async (args, message, hint) => {
    const { code, stdout, stderr } = await run(args);
    expect(code).toBe(ExitCode.usage);
    expect(stdout).toBe("");
    expect(stderr).toContain(message);
    expect(stderr).toContain(hint);
    expect(stderr).not.toMatch(/ at .*\.ts/);
  });

  it("is explained in JSON with --json", async () => {
    const { code, stderr } = await run(["tools", "show", "--json"]);
    expect(code).toBe(ExitCode.usage);
    expect(JSON.parse(stderr)).toEqual({
      error: {
        exitCode: ExitCode.usage,
        code: "usage",
        message: "<tool> is missing",
        hints: ["Help: toolplane tools show --help"],
      },
    });
  });
});

describe("register", () => {
  it("shows the health of what was not checked yet", async () => {
    const { code, stdout } = await run(["register", "weather", "a:1"]);
    expect(code).toBe(ExitCode.ok);
    expect(stdout).toMatch(
      /^✓ Registered weather 1\.2\.0 in default: .*● ready\n {2}http:\/\/a:1 {2}gRPC {2}● healthy\n/,
    );
  });
});

describe("listings", () => {
  it("are tables for people, read page by page", async () => {
    const { code, stdout, stderr } = await run(["services", "--limit", "1500"]);
    expect(code).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(1_501);
    expect(lines[0]).toMatch(/^SERVICE +VERSION +ENVIRONMENT +STATE +INSTANCES +TOOLS +CHANGED +TAGS$/);
    expect(lines[1]).toMatch(/^weather +1\.2\.0 +default +● ready +1\/1 healthy +2 +\S+( ago)? +demo$/);
    expect(lines[2]).toMatch(/^billing +2\.0\.0 +default +▲ degraded/);
    expect(stderr).toContain("1500 of 2,500 services; --limit 0 lists all.");
  });

  it("are one JSON document for programs", async () => {
    const { stdout, stderr } = await run(["services", "--limit", "0", "--json"]);
    const document = JSON.parse(stdout);
    expect(document.services).toHaveLength(2_500);
    expect(document.services[0]).toMatchObject({
      name: "weather",
      state: "SERVICE_STATE_READY",
      toolCount: 2,
    });
    expect(document).toMatchObject({ totalSize: 2_500 });
    expect(stderr).toBe("");
  });

  it("do not let a service's words command the terminal", async () => {
    const { stdout } = await run(["tools"]);
    expect(stdout).toContain("weather.Watch");
    expect(stdout).not.toContain("\u001b");
  });

  it("are coloured only where colours are wanted", async () => {
    const [forced, refused, option, piped] = await Promise.all([
      run(["services"], { env: { FORCE_COLOR: "1" } }),
      run(["services"], { env: { FORCE_COLOR: "1", NO_COLOR: "1" } }),
      run(["services", "--no-color"], { env: { FORCE_COLOR: "1" } }),
      run(["services"]),
    ]);
    expect(forced.stdout).toContain("\u001b[32m● ready");
    for (const { stdout } of [refused, option, piped]) expect(stdout).not.toContain("\u001b");
  });
});

describe("call", () => {
  it("turns pairs into the JSON that the schema asks for", async () => {
    const args = [
      "call",
      "weather.GetForecast",
      "city=12",
      "days=3",
      "place.lat=52.5",
      "tags=a",
      "tags=b",
      "metric:=true",
    ];
    const { code, stdout } = await run([...args, "--timeout", "5s", "--request-id", "--version", "1.2.0"]);
    expect([code, stdout]).toEqual([0, '{"sunny":true}\n']);
    expect(calls[0]).toMatchObject({
      tool: "weather.acme.weather.v1.WeatherService.GetForecast",
      input: { value: { city: "12", days: 3, place: { lat: 52.5 }, tags: ["a", "b"], metric: true } },
      version: "1.2.0",
      timeout: { seconds: 5n },
      requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
  });

  it("reads JSON from stdin", async () => {
    await run(["call", "weather.GetForecast", "-"], { input: '{"city": "Berlin"}' });
    expect(calls[0]?.input.value).toEqual({ city: "Berlin" });
  });

  it("reads a line for each message of a tool that takes a stream", async () => {
    await run(["call", "weather.Record"], { input: '{"city": "a"}\n{"city": "b"}\n' });
    expect(calls[0]?.argumentStream).toEqual([{ city: "a" }, { city: "b" }]);
  });

  it("prints one document with --json, and one a line for a tool that streams", async () => {
    const [single, stream, raw, rawText] = await Promise.all([
      run(["call", "weather.GetForecast", "city=x", "--json"]),
      run(["call", "weather.Watch", "city=x", "--json"]),
      run(["call", "weather.Watch", "city=x", "--raw"]),
      run(["call", "fail.Text", "--raw"]),
    ]);
    expect(JSON.parse(single.stdout)).toMatchObject({
      result: { sunny: true },
      info: { duration: "0.012s" },
    });
    const lines = stream.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toEqual([{ result: { n: 1 } }, { result: { n: 2 } }, { info: expect.anything() }]);
    expect(raw.stdout).toBe('{"n":1}\n{"n":2}\n');
    expect(rawText.stdout).toBe("plain\ntext\n");
  });

  it.each([
    ["nope", ExitCode.notFound, ['✗ Tool "nope" does not exist']],
    ["fail.Internal", ExitCode.failure, ["✗ Internal error", "correlation id abc-123"]],
    ["fail.Limited", ExitCode.limited, ["✗ Too many calls", "Try again in 3 s."]],
    [
      "fail.Invalid",
      ExitCode.invalidArguments,
      ["✗ The arguments are not valid", "  days       must be at most 14", "  place.lat  must be a number"],
    ],
    ["fail.Denied", ExitCode.notPermitted, ["✗ A token is needed", "--token"]],
    [
      "fail.Down",
      ExitCode.unavailable,
      ["✗ Connection refused", "From weather 1.2.0 (instance weather-1): unavailable"],
    ],
    [
      "fail.Backend",
      ExitCode.invalidArguments,
      ["✗ Nothing grows there", "  place  is at sea", "(instance weather-1): invalid_argument, NO_SOIL"],
    ],
    ["fail.Slow", ExitCode.timeout, ["✗ The deadline passed", "--timeout"]],
  ])("says what went wrong with %s and exits with %i", async (tool, expected, texts) => {
    const { code, stdout, stderr } = await run(["call", tool, "city=x"]);
    expect(code).toBe(expected);
    expect(stdout).toBe("");
    for (const text of texts) expect(stderr).toContain(text);
    expect(stderr).not.toMatch(/ at .*\.ts/);
  });

  it("writes errors as JSON with --json", async () => {
    const { stderr } = await run(["call", "fail.Invalid", "--json"]);
    expect(JSON.parse(stderr)).toMatchObject({
      error: {
        exitCode: ExitCode.invalidArguments,
        code: "invalid_argument",
        violations: [{ field: "days", description: "must be at most 14" }, {}],
      },
    });
  });

  it.each(["weather.Record", "weather.GetForecast"])(
    "of %s ends when it is interrupted while it reads stdin",
    async (tool) => {
      const child = cli.start(["call", tool, "-"], { url: server.url });
      const seen = server.requests.length;
      await expect.poll(() => server.requests.length).toBeGreaterThan(seen);
      child.kill("SIGINT");
      const [code] = await once(child, "exit");
      expect(code).toBe(ExitCode.interrupted);
    },
  );

  it("prints results as they come, and cancels the call when it is interrupted", async () => {
    const child = cli.start(["call", "weather.Hang", "city=x"], { url: server.url });
    const [line] = await once(createInterface({ input: child.stdout }), "line");
    expect(line).toBe('{"sunny":true}');
    child.kill("SIGINT");
    const [code] = await once(child, "close");
    expect(code).toBe(ExitCode.interrupted);
    await hanging;
  });

  it("ends quietly when the reader of its output has seen enough", async () => {
    const child = cli.start(["services", "watch"], { url: server.url });
    await once(createInterface({ input: child.stdout }), "line");
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.kill("SIGINT");
    await once(child, "close");
    expect(stderr).toBe("");
  });
});

describe("health", () => {
  it("exits with 1 when an instance is unhealthy", async () => {
    const { code, stdout } = await run(["health"]);
    expect(code).toBe(ExitCode.failure);
    expect(stdout).toMatch(/weather-0 +● healthy +3 ms\nweather .*weather-1 +✗ unhealthy +3 ms/);
  });
});

describe("a watch", () => {
  it.each([["services", "watch"], ["monitor"]])(
    "of %s prints one event a line into a pipe",
    async (...command) => {
      const child = cli.start([...command, "--json"], { url: server.url });
      const lines: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) {
        lines.push(line);
        if (lines.length === 2) child.kill("SIGINT");
      }
      expect(JSON.parse(lines[0] ?? "")).toMatchObject({ updated: { name: "weather" } });
      expect(JSON.parse(lines[1] ?? "")).toEqual({ synced: { revision: "1" } });
      expect(child.exitCode ?? (await once(child, "close"))[0]).toBe(ExitCode.interrupted);
    },
  );
});

describe("without a server", () => {
  it("says where it looked and how to start one", async () => {
    const { code, stderr } = await run(["services"], { url: "http://127.0.0.1:1" });
    expect(code).toBe(ExitCode.unavailable);
    expect(stderr).toContain(
      "Cannot reach the Toolplane server at http://127.0.0.1:1: the connection was refused",
    );
    expect(stderr).toContain("npx toolplane serve");
    expect(stderr).toContain("TOOLPLANE_URL");
  });

  it("says so when something else listens there", async () => {
    const other = createServer((_, response) => response.writeHead(404).end("nothing here"));
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo; // A TCP server has no other kind of address.
    const { code, stderr } = await run(["services"], { url: `127.0.0.1:${port}` });
    other.close();
    expect(code).toBe(ExitCode.failure);
    expect(stderr).toContain("Is this a Toolplane server");
  });

  it("gives up after --timeout", async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo; // A TCP server has no other kind of address.
    const { code } = await run(["services", "--timeout", "100ms"], { url: `http://127.0.0.1:${port}` });
    silent.closeAllConnections();
    silent.close();
    expect(code).toBe(ExitCode.timeout);
  });

  it("still shows the version of the command", async () => {
    const { code, stdout } = await run(["version"], { url: "http://127.0.0.1:1" });
    expect(code).toBe(ExitCode.unavailable);
    expect(stdout).toMatch(/^toolplane {2}\d/);
  });
});

describe("completion", () => {
  it.each(SHELLS)("prints a script for %s", async (shell) => {
    const { code, stdout } = await run(["completion", shell]);
    expect(code).toBe(0);
    expect(stdout).toContain("__complete --");
  });

  it.each([
    [["ser"], ["serve", "services"]],
    [["services", "l"], ["list"]],
    [["services", "list", "--env"], ["--environment"]],
    [
      ["completion", ""],
      ["bash", "zsh", "fish"],
    ],
    [["call", "weather.G"], ["weather.GetForecast"]],
    [["--json", "tools", "show", "weather.W"], ["weather.Watch"]],
    [["call", "weather.GetForecast", "city=x", "p"], ["place="]],
    [["deregister", "bi"], ["billing"]],
    [["services", "list", "--tag", ""], []],
  ])("completes %j to %j", async (words, expected) => {
    const { code, stdout } = await run(["__complete", "--", ...words]);
    expect(code).toBe(0);
    expect(
      stdout
        .split("\n")
        .filter(Boolean)
        .map((line) => line.split("\t")[0]),
    ).toEqual(expected);
  });

  it("keeps silent when the server cannot be asked", async () => {
    const result = await run(["__complete", "--", "call", "w"], { url: "http://127.0.0.1:1" });
    expect(result).toEqual({ code: 0, stdout: "", stderr: "" });
  });
});

/** util-linux has `script`, which gives a program a terminal. */
const hasScript = spawnSync("script", ["--version"]).stdout?.toString().includes("util-linux") === true;

if (hasScript) {
  describe("on a terminal", () => {
    /** Runs a command in a terminal of 120 columns and types into it; returns what it showed. */
    function type(
      args: string,
      typed: { after: string; keys: string },
    ): Promise<{ output: string; code: number | null }> {
      const command = `stty cols 120 rows 30; exec ${process.execPath} ${cli.path} ${args}`;
      const child = spawn("script", ["-qec", command, "/dev/null"], {
        stdio: ["pipe", "pipe", "ignore"],
        env: {
          PATH: process.env["PATH"],
          SHELL: "/bin/sh",
          TERM: "xterm-256color",
          TOOLPLANE_URL: server.url,
        },
      });
      let output = "";
      let keys = typed.keys;
      child.stdout.on("data", (data) => {
        output += data;
        if (keys === "" || !output.includes(typed.after)) return;
        child.stdin.write(keys);
        keys = "";
      });
      return new Promise((resolve) => child.on("close", (code) => resolve({ output, code })));
    }

    it("results are indented and coloured, with a line about the call below", async () => {
      const { output } = await type("call weather.GetForecast city=x", { after: "", keys: "" });
      expect(output).toContain('{\r\n  \u001b[34m"sunny"\u001b[39m: \u001b[35mtrue\u001b[39m\r\n}');
      expect(stripVTControlCharacters(output)).toContain("✓ from weather 1.2.0 in 12 ms");
    });

    it("the monitor draws a table until q is pressed, and gives the terminal back", async () => {
      const { output, code } = await type("monitor", { after: "● live", keys: "q" });
      expect(code).toBe(0);
      expect(stripVTControlCharacters(output)).toMatch(/weather +1\.2\.0 +default +● ready/);
      expect(output.lastIndexOf("\u001b[?25h")).toBeGreaterThan(output.lastIndexOf("\u001b[?25l"));
    });

    it("statistics are drawn with a line of bars until q is pressed", async () => {
      const { output, code } = await type("stats --watch --interval 250ms", { after: "▅█", keys: "q" });
      expect(code).toBe(0);
      const text = stripVTControlCharacters(output);
      expect(text).toMatch(/● live {2}\d\d:\d\d:\d\d {2}every 250 ms/);
      expect(text).toMatch(/to the server +2 +▅█ +0 +100 %/);
      expect(output.lastIndexOf("\u001b[?25h")).toBeGreaterThan(output.lastIndexOf("\u001b[?25l"));
    });

    it("the monitor ends on Ctrl-C too", async () => {
      expect(await type("monitor", { after: "● live", keys: "\u0003" })).toMatchObject({
        code: ExitCode.interrupted,
      });
    });
  });
}
