import { systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createSecretResolver } from "../config/secrets.ts";
import { createConnectionPool } from "../pool/index.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createRegistry } from "./registry.ts";
import { openRegistry, startServer } from "./test-support/open-registry.ts";
import { described, instance, testOptions } from "./test-support/specs.ts";

test("connections to the services that are known are open before the first call", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const { url } = await startServer();
  const before = await openRegistry(database);
  await before.register(described({ name: "w" }), instance({ endpoint: url, protocol: Protocol.GRPC }));
  await before.close();

  const parts = { clock: systemClock, logger: silentLogger };
  const pool = createConnectionPool(parts);
  const registry = await createRegistry({
    ...parts,
    ...{ database, pool, options: testOptions },
    secrets: createSecretResolver([], {}),
  });
  onTestFinished(async () => {
    await registry.close();
    await pool.close();
  });
  await expect
    .poll(() => pool.stats().connections)
    .toMatchObject([{ origin: url, protocol: "h2", state: "open", requests: 0 }]);
});
