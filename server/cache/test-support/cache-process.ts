/**
 * A cache in a process of its own, for tests that kill it. Answers each message `[key, value]` with the answer's state,
 * value and age, and writes it to the store before.
 *
 * Arguments: the URL of the database, and the data directory that holds the key.
 */
import { systemClock } from "@toolplane/framework";
import { createResponseCache } from "@toolplane/framework/policies";
import { openDatabase } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openPostgresCacheStore } from "../postgres-store.ts";
import { loadSigningKeys } from "../signing-key.ts";

const [url = "", dataDir = ""] = process.argv.slice(2);
const logger = silentLogger;
const database = await openDatabase({ url, dataDir, logger, clock: systemClock });
const cache = createResponseCache({
  name: "tools",
  durable: {
    store: await openPostgresCacheStore({ database, logger }),
    secrets: await loadSigningKeys({ source: undefined, dataDir, env: {}, logger }),
    // What is tested is not how fast a busy machine is.
    readTimeoutMs: 10_000,
  },
});
process.on("message", async ([key, value]: [string, string]) => {
  const load = async () => ({ value: Buffer.from(value) });
  const answer = await cache.getOrLoad(key, load, { tags: [`tool/${key}`] });
  await cache.flush();
  process.send?.([answer.state, answer.source, Buffer.from(answer.value).toString()]);
});
process.send?.("ready");
