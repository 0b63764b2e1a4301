/**
 * A replica in a process of its own, for tests that kill it. Begins the work of one request and never ends it; tells its
 * parent "working" when it has begun.
 *
 * Arguments: the URL of the database, the length of a lease in milliseconds, the request id.
 */
import { flushCompileCache } from "node:module";
import { tmpdir } from "node:os";
import { createIdempotency } from "@toolplane/framework/policies";
import { openDatabase } from "../../storage/database.ts";
import { idempotencyMigration } from "../../storage/migrations/0003-idempotency.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openIdempotencyStore } from "../store.ts";

// Written when a process ends by itself, which this one does not.
flushCompileCache();
const [url = "", leaseMs = "", requestId = ""] = process.argv.slice(2);
const database = await openDatabase({
  url,
  dataDir: tmpdir(),
  logger: silentLogger,
  migrations: [idempotencyMigration],
});
const idempotency = createIdempotency({
  store: await openIdempotencyStore(database),
  leaseMs: Number(leaseMs),
});
process.once("disconnect", () => process.exit());
await idempotency.run({ scope: "test", requestId, fingerprint: "a" }, () => {
  process.send?.("working");
  return new Promise(() => {});
});
