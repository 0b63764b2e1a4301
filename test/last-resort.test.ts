import { afterAll, beforeAll, expect, test } from "vitest";
import { clientsOf, startFaultInstances } from "./support/fault-instances.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

let app: TestApp;

beforeAll(async () => {
  app = await startTestApp({
    config: `
inbound: { global: { unlimited: true }, per_caller: { unlimited: true } }
outbound: { deduplication: { disabled: true } }
`,
  });
});

afterAll(() => app?.close());

test("an instance that is only slow is called again when the others' breakers are open", async () => {
  const { tools, admin, registry } = clientsOf(app);
  const instances = await startFaultInstances({ registry, service: "worn", count: 2 });
  const read = async () => {
    const call = { tool: "worn.Read", input: { case: "arguments" as const, value: { text: "x" } } };
    return (await tools.callTool({ call })).info?.instanceId;
  };
  instances.fail(0, { latency: { nanos: 200_000_000 } });
  await expect
    .poll(async () => {
      await read();
      return (await admin.listBreakers({ service: "worn" })).ejections;
    })
    .toMatchObject([{ instanceId: "worn-1.0.0-0" }]);

  instances.fail(1, { errorRate: 1 });

  await expect.poll(() => read().catch(() => undefined)).toBe("worn-1.0.0-0");
  expect(await read()).toBe("worn-1.0.0-0");
});
