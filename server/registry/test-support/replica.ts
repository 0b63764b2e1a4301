/**
 * A replica in a process of its own, for tests that kill it. Registers one service after the other and prints the name
 * of each when its registration is acknowledged, until it is killed.
 *
 * Arguments: the URL of the database, and what the names begin with.
 */
import { flushCompileCache } from "node:module";
import { tmpdir } from "node:os";
import { systemClock } from "@toolplane/framework";
import { createSecretResolver } from "../../config/secrets.ts";
import { createConnectionPool } from "../../pool/index.ts";
import { openDatabase } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createRegistry } from "../registry.ts";
import { described, instance, testOptions } from "./specs.ts";

// Written when a process ends by itself, which none of these does.
flushCompileCache();
const [url = "", prefix = ""] = process.argv.slice(2);
const parts = { clock: systemClock, logger: silentLogger };
const registry = await createRegistry({
  ...parts,
  database: await openDatabase({ url, dataDir: tmpdir(), ...parts }),
  pool: createConnectionPool(parts),
  secrets: createSecretResolver([], {}),
  options: testOptions,
});
for (let count = 0; ; count++) {
  const name = `${prefix}-${count}`;
  await registry.register(described({ name }), instance({ endpoint: "localhost:1" }));
  process.stdout.write(`${name}\n`);
}
