import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type ReportServer, startReportServer } from "../testing/report-server.ts";
import { createServerSink, projectNameOf } from "./server-sink.ts";

let server: ReportServer;

beforeEach(async () => {
  server = await startReportServer();
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
});

it("a reporter without a parent makes a run of its own", async () => {
  const sink = createServerSink({
    url: server.url,
    framework: "vitest",
    frameworkVersion: "vitest 5.1.1",
    project: "shop",
    environment: "laptop",
  });
  sink.write({ kind: { case: "fileStarted", value: { file: "a.test.ts" } } });
  await sink.end();
  expect([...server.runs.values()]).toMatchObject([
    {
      request: {
        project: "shop",
        environment: "laptop",
        framework: "vitest",
        context: { frameworkVersion: "vitest 5.1.1", platform: `${process.platform}/${process.arch}` },
      },
      events: [{ kind: { case: "fileStarted" } }],
      // The server judges by the tests.
      finish: { lastPosition: 1n },
    },
  ]);
  expect(server.runs.get("run-1")?.finish?.exitCode).toBeUndefined();
});

it("what a server refuses is told once and fails nothing", async () => {
  server.refusal = new ConnectError("may not", Code.PermissionDenied);
  const warnings: string[] = [];
  const sink = createServerSink({ url: server.url, framework: "jest", warn: (text) => warnings.push(text) });
  sink.write({ kind: { case: "fileStarted", value: { file: "a.test.ts" } } });
  sink.write({ kind: { case: "fileStarted", value: { file: "b.test.ts" } } });
  await sink.end();
  expect(warnings).toEqual([expect.stringContaining("may not")]);
});

it("the name of a project is that of its folder, as far as servers take it", () => {
  expect(projectNameOf("/home/ada/my shop")).toBe("my shop");
  expect(projectNameOf("/home/ada/.größe")).toBe("gr-e");
  expect(projectNameOf("/")).toBe("default");
});
