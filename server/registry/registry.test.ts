import { expect, test } from "vitest";
import { openTestDatabase } from "../storage/testing.ts";
import { instance, openRegistry, service, startServer } from "./test-support.ts";

test("a registered server's methods are tools", async () => {
  const database = await openTestDatabase();
  const registry = await openRegistry(database);
  const server = await startServer();

  const t = performance.now();
  const { service: registered } = await registry.register(
    service({ name: "sample" }),
    instance({ endpoint: server.url }),
  );
  console.log(performance.now() - t, registered);
  expect(registered.problems).toEqual([]);
  expect(registry.getTool("sample.GetTool", {}).name).toBe(
    "sample.toolplane.registry.v1.RegistryService.GetTool",
  );
  await registry.close();
  await database.close();
});
