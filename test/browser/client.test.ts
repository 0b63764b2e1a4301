import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createToolplane } from "@toolplane/client/node";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { build } from "esbuild";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestApp, type TestApp } from "../support/test-app.ts";

let app: TestApp;
let pages: Server;
let browser: Browser;

beforeAll(async () => {
  app = await startTestApp();
  const bundle = await build({
    entryPoints: [join(import.meta.dirname, "page.ts")],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    conditions: ["toolplane-source"],
  });
  const script = bundle.outputFiles[0]?.text ?? "";
  pages = createServer((request, response) => {
    if (request.url === "/page.js") {
      response.setHeader("content-type", "text/javascript").end(script);
      return;
    }
    response
      .setHeader("content-type", "text/html")
      .end(
        `<!doctype html><script>window.serverUrl = "${app.url}"</script><script type="module" src="/page.js"></script>`,
      );
  });
  await new Promise<void>((resolve) => pages.listen(0, "127.0.0.1", resolve));
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

afterAll(async () => {
  await browser?.close();
  await new Promise((resolve) => pages?.close(resolve));
  await app?.close();
});

test("a page on another origin lists, searches, calls, streams and watches with the generated client", async () => {
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${(pages.address() as AddressInfo).port}/`);
  await page
    .waitForFunction("window.seen?.done === true", undefined, { timeout: 30_000 })
    .catch((error: unknown) => {
      throw new Error(`the page did not finish: ${errors.join("; ")}`, { cause: error });
    });
  const seen: unknown = await page.evaluate("window.seen");
  expect(seen).toMatchObject({
    services: ["toolplane"],
    result: { service: { name: "toolplane", state: "SERVICE_STATE_READY" } },
    watched: ["updated", "synced"],
    done: true,
  });
  expect(seen).toHaveProperty("hits.0", "toolplane.ListServices");
  expect(seen).toHaveProperty("streamed.0.updated.name", "toolplane");
  expect(seen).toHaveProperty("refusal", expect.stringContaining("call.arguments.service.nam"));
  expect(errors).toEqual([]);
});

test("a page watches a run with the generated client, and with an EventSource that goes on after what it has", async () => {
  const toolplane = createToolplane({ url: app.url });
  const text = `
name: asks
steps:
  - id: numbers
    for_each: { items: "\${ [1, 2, 3] }" }
    value: \${ item * 2 }
  - id: gate
    approval: { message: "\${ steps.numbers.output[2] }?" }
`;
  const { run } = await toolplane.orchestration.startRun({
    source: { kind: { case: "workflow", value: { workflow: { case: "text", value: text } } } },
  });
  const runId = run?.id ?? "";
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${(pages.address() as AddressInfo).port}/`);
  const follow = (after: number) =>
    page.evaluate(
      `window.told = []; window.source = new EventSource("${app.url}/runs/${runId}/events?after=${after}");
      for (const kind of ["created", "approval-requested", "approval-resolved", "finished"]) {
        source.addEventListener(kind, ({ lastEventId, type }) => {
          told.push({ sequence: Number(lastEventId), kind: type });
          if (type === "finished") source.close();
        });
      }`,
    );
  const told = async () => (await page.evaluate("window.told")) as { sequence: number; kind: string }[];
  const kinds = async () => (await told()).map(({ kind }) => kind);
  await page.evaluate(`void window.watchRun("${runId}")`);
  await follow(0);
  await expect.poll(kinds).toEqual(["created", "approval-requested"]);
  const asked = (await told()).at(-1)?.sequence ?? 0;
  await page.evaluate("source.close()");

  await toolplane.orchestration.resolveApproval({ runId, path: "gate", approved: true });
  await follow(asked);
  await expect.poll(kinds).toEqual(["approval-resolved", "finished"]);
  await expect.poll(() => page.evaluate("window.watched.at(-1)")).toBe("finished");
  const watched = (await page.evaluate("window.watched")) as string[];
  expect(watched[0]).toBe("connected");
  expect(watched).toContain("approvalRequested");
  expect(watched.filter((kind) => kind === "stepFinished")).toHaveLength(5);
  toolplane.close();
});

test("a page follows a test run with an EventSource, and goes on after the last event that it has", async () => {
  const toolplane = createToolplane({ url: app.url });
  const { run } = await toolplane.tests.createTestRun({ project: "in-a-browser" });
  const runId = run?.id ?? "";
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${(pages.address() as AddressInfo).port}/`);
  const follow = (after: number) =>
    page.evaluate(
      `window.told = []; window.source = new EventSource("${app.url}/test-runs/${runId}/events?after=${after}");
      for (const kind of ["created", "started", "test-ended", "ended"]) {
        source.addEventListener(kind, ({ lastEventId, type }) => {
          told.push(lastEventId + " " + type);
          if (type === "ended") source.close();
        });
      }`,
    );
  const told = () => page.evaluate("window.told");
  await follow(0);
  await expect.poll(told).toEqual(["1 created", "2 started"]);
  const test = { name: "is seen at once" };
  const events = [{ kind: { case: "testEnded", value: { test, status: TestStatus.PASSED } } } as const];
  await toolplane.tests.appendTestEvents({ runId, firstPosition: 1n, events });
  await expect.poll(told).toEqual(["1 created", "2 started", "3 test-ended"]);
  await page.evaluate("source.close()");
  await toolplane.tests.finishTestRun({ runId });
  await follow(3);
  await expect.poll(told).toEqual(["4 ended"]);
  toolplane.close();
});
