import { beforeAll, describe, expect, it } from "vitest";
import type { Polyglot } from "./setup.ts";
import { buf, installGrpcurl, jsonDocuments, output, renderDependencies } from "./tools.ts";

const SERVICES = [
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
  "toolplane.admin.v1.AdminService",
  "toolplane.orchestration.v1.OrchestrationService",
  "toolplane.registry.v1.RegistryService",
  "toolplane.testing.v1.TestRunService",
  "toolplane.tools.v1.ToolService",
];
const CALL = { call: { tool: "text.AnalyzeText", arguments: { text: "The cat sat." } } };
const RESULT = { result: { json: { words: 3, sentences: 1 } }, info: { service: "text", resultCount: 1 } };
const STREAM = { call: { tool: "diff.FollowVersions", argumentStream: [{ name: "1", text: "a" }] } };
const EVENTS = [
  { started: { service: "diff" } },
  { result: { json: { name: "1", difference: { added: "1" } } } },
  { finished: { resultCount: 1 } },
];

const RUNS = "toolplane.orchestration.v1.OrchestrationService";
/** A tool in Go beside one in Python, and a person. */
const TWO_LANGUAGES = `
name: two-languages
steps:
  - id: versions
    tool:
      name: diff.CompareTexts
      arguments: { before: a, after: b }
  - id: time
    tool:
      name: time.ConvertTime
      arguments: { localTime: "2026-07-01T09:00", zone: Europe/Berlin, toZones: [Asia/Tokyo] }
  - id: gate
    approval: { message: "Go on after \${ steps.versions.output.difference.added }?" }
output:
  added: \${ steps.versions.output.difference.added }
  tokyo: \${ steps.time.output.zones['Asia/Tokyo'].localTime }
`;

/** What people have at hand: grpcurl, buf curl, curl. */
export function testCommandLineClients(polyglot: () => Polyglot): void {
  let grpcurlPath: string;
  beforeAll(async () => {
    grpcurlPath = await installGrpcurl();
    await renderDependencies();
  });

  describe("grpcurl, without a schema file,", () => {
    it("lists the services and their methods", async () => {
      expect((await grpcurl([], "list")).stdout.trim().split("\n")).toEqual(SERVICES);
      const methods = (await grpcurl([], "list", "toolplane.tools.v1.ToolService")).stdout;
      expect(methods).toContain("toolplane.tools.v1.ToolService.CallToolStream");
    });

    it("describes services, methods and messages with their comments", async () => {
      for (const service of SERVICES) {
        const { code, stdout } = await grpcurl([], "describe", service);
        expect([service, code, stdout]).toEqual([
          service,
          0,
          expect.stringContaining(`service ${service.split(".").at(-1)}`),
        ]);
      }
      expect((await grpcurl([], "describe", "toolplane.tools.v1.ToolService.CallTool")).stdout).toContain(
        "rpc CallTool ( .toolplane.tools.v1.CallToolRequest )",
      );
      const template = await grpcurl(["-msg-template"], "describe", "toolplane.tools.v1.ToolCall");
      expect(template.stdout).toContain("argumentStream");
    });

    it("checks health", async () => {
      const { stdout } = await grpcurl(["-d", "{}"], "grpc.health.v1.Health/Check");
      expect(JSON.parse(stdout)).toEqual({ status: "SERVING" });
    });

    it("calls and streams", async () => {
      const called = await grpcurl(["-d", JSON.stringify(CALL)], "toolplane.tools.v1.ToolService/CallTool");
      expect(JSON.parse(called.stdout)).toMatchObject(RESULT);
      const streamed = await grpcurl(
        ["-d", JSON.stringify(STREAM)],
        "toolplane.tools.v1.ToolService/CallToolStream",
      );
      expect(jsonDocuments(streamed.stdout)).toMatchObject(EVENTS);
    });

    it("shows errors with their details", async () => {
      const { code, stderr } = await grpcurl(
        ["-d", '{"name": "no.Such"}'],
        "toolplane.registry.v1.RegistryService/GetTool",
      );
      expect(code).not.toBe(0);
      expect(stderr).toContain("NotFound");
      expect(stderr).toContain("google.rpc.ErrorInfo");
      expect(stderr).toContain("TOOL_NOT_FOUND");
    });

    it("reports a test run and watches it to its end", async () => {
      const service = "toolplane.testing.v1.TestRunService";
      const send = async (method: string, request: object) => {
        const { stdout } = await grpcurl(["-d", JSON.stringify(request)], `${service}/${method}`);
        return jsonDocuments(stdout);
      };
      const [created] = await send("CreateTestRun", { project: "by-hand", framework: "shell" });
      const { id: runId } = (created as { run: { id: string } }).run;
      const events = [
        { testEnded: { test: { name: "adds" }, status: "TEST_STATUS_PASSED", duration: "0.002s" } },
      ];
      expect(await send("AppendTestEvents", { runId, firstPosition: 1, events })).toMatchObject([
        { acknowledgedPosition: "1" },
      ]);
      await send("FinishTestRun", { runId });
      const told = await send("WatchTestRun", { runId });
      expect(told[0]).toMatchObject({ connected: { run: { state: "TEST_RUN_STATE_PASSED" } } });
      const watched = told.flatMap(
        (news) => (news as { events?: { events: object[] } }).events?.events ?? [],
      );
      expect(watched).toMatchObject([
        { sequence: "1", created: { project: "by-hand" } },
        { sequence: "2" },
        { sequence: "3", testEnded: { test: { name: "adds" } } },
        { sequence: "4", ended: { counts: { passed: 1 } } },
      ]);
      const { stdout } = await output("curl", ["-sN", `${polyglot().url}/test-runs/${runId}/events`]);
      expect(stdout.match(/^event: .*$/gm)).toEqual([
        "event: created",
        "event: started",
        "event: test-ended",
        "event: ended",
        "event: caught-up",
      ]);
    });

    it("starts a workflow over a Go and a Python tool, answers it, and watches it to its end", async () => {
      const send = async (method: string, request: object) => {
        const { stdout, stderr } = await grpcurl(["-d", JSON.stringify(request)], `${RUNS}/${method}`);
        return [stderr, jsonDocuments(stdout)] as const;
      };
      const [problem, [started]] = await send("StartRun", { source: { workflow: { text: TWO_LANGUAGES } } });
      expect(problem).toBe("");
      const { id: runId } = (started as { run: { id: string } }).run;
      const toldKinds = async () =>
        (await output("curl", ["-sN", "--max-time", "1", `${polyglot().url}/runs/${runId}/events`])).stdout;
      await expect.poll(toldKinds).toContain("event: approval-requested");
      expect(await send("ResolveApproval", { runId, path: "gate", approved: true })).toMatchObject([
        "",
        [{ run: { id: runId } }],
      ]);

      const [, told] = await send("WatchRun", { runId });
      expect(told[0]).toMatchObject({ connected: { run: { id: runId } } });
      const events = told.flatMap((news) => (news as { events?: { events: object[] } }).events?.events ?? []);
      expect(events.map((event) => Number((event as { sequence: string }).sequence))).toEqual(
        events.map((_, index) => index + 1),
      );
      expect(events.filter((event) => "finished" in event)).toMatchObject([
        {
          finished: {
            state: "RUN_STATE_SUCCEEDED",
            output: { added: "1", tokyo: "2026-07-01T16:00:00" },
          },
        },
      ]);
      expect(events.at(-1)).toHaveProperty("finished");
      expect((await toldKinds()).match(/^event: .*$/gm)?.slice(-2)).toEqual([
        "event: finished",
        "event: caught-up",
      ]);
    });

    it("works on the examples themselves", async () => {
      for (const [name, service] of [
        ["text", "examples.text.v1.TextService"],
        ["time", "examples.time.v1.TimeService"],
        ["diff", "examples.diff.v1.DiffService"],
      ] as const) {
        const { stdout } = await output(grpcurlPath, [
          "-plaintext",
          polyglot().services[name].address,
          "list",
        ]);
        expect(stdout).toContain(service);
      }
    });
  });

  describe.each<[string, string[]]>([
    ["Connect over HTTP/1.1", ["--protocol", "connect"]],
    ["Connect over HTTP/2", ["--protocol", "connect", "--http2-prior-knowledge"]],
    ["gRPC over HTTP/2", ["--protocol", "grpc", "--http2-prior-knowledge"]],
    ["gRPC-Web over HTTP/1.1", ["--protocol", "grpcweb"]],
    ["gRPC-Web over HTTP/2", ["--protocol", "grpcweb", "--http2-prior-knowledge"]],
  ])("buf curl with %s", (_, flags) => {
    // Reflection streams both ways, which HTTP/1.1 cannot: there the schema comes from the contract's files.
    const reflective = flags.includes("--http2-prior-knowledge");
    const schema = reflective ? [] : ["--schema", "."];

    async function curl(method: string, request: object) {
      const result = await output(buf, [
        "curl",
        ...flags,
        ...schema,
        "-d",
        JSON.stringify(request),
        `${polyglot().url}/${method}`,
      ]);
      expect(result.stderr).toBe("");
      return jsonDocuments(result.stdout);
    }

    it("calls", async () => {
      expect(await curl("toolplane.tools.v1.ToolService/CallTool", CALL)).toMatchObject([RESULT]);
    });

    it("streams", async () => {
      expect(await curl("toolplane.tools.v1.ToolService/CallToolStream", STREAM)).toMatchObject(EVENTS);
    });

    it("starts a run and watches it in one", async () => {
      const calls = [CALL.call, { tool: "diff.CompareTexts", arguments: { before: "a", after: "b" } }];
      const told = await curl(`${RUNS}/ExecuteRun`, { start: { source: { toolBatch: { calls } } } });
      expect(told[0]).toHaveProperty("connected");
      const events = told.flatMap((news) => (news as { events?: { events: object[] } }).events?.events ?? []);
      expect(events.at(-1)).toMatchObject({
        finished: {
          state: "RUN_STATE_SUCCEEDED",
          output: [{ result: { words: 3 } }, { result: { difference: { added: "1" } } }],
        },
      });
    });

    it("lists services and methods", async () => {
      if (reflective) {
        const services = await output(buf, ["curl", ...flags, "--list-services", polyglot().url]);
        expect(services.stdout.trim().split("\n")).toEqual(SERVICES);
      }
      const methods = await output(buf, ["curl", ...flags, ...schema, "--list-methods", polyglot().url]);
      expect(methods.stdout).toContain("toolplane.registry.v1.RegistryService/SearchTools");
    });

    it("shows errors with their details", async () => {
      const method = `${polyglot().url}/toolplane.registry.v1.RegistryService/GetTool`;
      const { code, stderr } = await output(buf, [
        "curl",
        ...flags,
        ...schema,
        "-d",
        '{"name": "no.Such"}',
        method,
      ]);
      expect(code).not.toBe(0);
      expect(JSON.parse(stderr)).toMatchObject({
        code: "not_found",
        details: expect.arrayContaining([expect.objectContaining({ type: "google.rpc.ErrorInfo" })]),
      });
    });
  });

  describe("curl", () => {
    it.each([
      ["HTTP/1.1", "--http1.1"],
      ["HTTP/2", "--http2-prior-knowledge"],
    ])("calls with JSON over %s", async (_, version) => {
      const url = `${polyglot().url}/toolplane.tools.v1.ToolService/CallTool`;
      const json = ["-H", "content-type: application/json", "-d", JSON.stringify(CALL)];
      const { stdout } = await output("curl", ["-s", version, ...json, url]);
      expect(JSON.parse(stdout)).toMatchObject(RESULT);
    });

    it("reads with GET where a method has no side effects", async () => {
      const query = `encoding=json&connect=v1&message=${encodeURIComponent('{"filter":{"name":"diff"}}')}`;
      const url = `${polyglot().url}/toolplane.registry.v1.RegistryService/ListServices?${query}`;
      const { stdout } = await output("curl", ["-s", url]);
      expect(JSON.parse(stdout)).toMatchObject({ services: [{ name: "diff", toolCount: 3 }] });
    });
  });

  function grpcurl(options: readonly string[], ...what: string[]) {
    return output(grpcurlPath, ["-plaintext", ...options, polyglot().address, ...what]);
  }
}
