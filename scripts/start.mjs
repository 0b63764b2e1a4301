// Builds what is missing, then runs the command line with the arguments given.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "./build.mjs";

await ensureBuilt();
await import(join(dirname(dirname(fileURLToPath(import.meta.url))), "client", "bin", "toolplane.js"));
