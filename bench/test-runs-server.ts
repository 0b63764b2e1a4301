// A whole server in a process of its own, so that its memory can be measured. Prints its URL, and for every line that it
// reads its resident memory in bytes.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createLogger, systemClock } from "@toolplane/framework";
import { createApp, loadSettings } from "@toolplane/server";

/** Without limits on callers: they are not what is measured. */
const CONFIG = `
inbound: { global: { unlimited: true }, per_caller: { unlimited: true },
  services: { toolplane.testing.v1.TestRunService: { unlimited: true } } }
limits: { max_concurrent_streams: 2000 }
`;

const folder = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
const config = join(folder, "server.yaml");
await writeFile(config, CONFIG);
const app = await createApp({
  settings: loadSettings(
    { listen: "127.0.0.1:0", config, dataDir: join(folder, "data"), databaseUrl: undefined },
    {},
  ),
  clock: systemClock,
  env: {},
  logger: createLogger({ level: "error" }),
});
console.log(app.url);
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(process.memoryUsage().rss);
}
await app.close();
await rm(folder, { recursive: true, force: true });
