import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { RunnerError } from "./runner.ts";

/** Where the folder of bundled reporters is, seen from one of the folders above this module. */
const PLACES = [
  "reporters",
  "dist/reporters",
  "client/dist/reporters",
  "node_modules/@toolplane/client/dist/reporters",
];

/**
 * The bundled reporter for a runner, which needs nothing besides itself. This module may be a source, compiled, or part
 * of the bundle of the command line or of the server.
 */
export function reporterFile(name: "vitest" | "jest" | "node-test"): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    for (const place of PLACES) {
      const file = join(folder, place, `${name}.js`);
      if (existsSync(file)) {
        return file;
      }
    }
    const above = dirname(folder);
    if (above === folder) {
      throw new RunnerError(
        "command",
        `the reporter for ${name} is missing from this installation: build it with "npm run build"`,
      );
    }
    folder = above;
  }
}
