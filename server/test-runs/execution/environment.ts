import { existsSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import type { TestEnvironmentSettings, TestProjectSettings } from "../../config/testing.ts";

/** Variables of the server that every runner gets. None of them is secret. */
const ALWAYS_PASSED = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER"];

/** The whole environment of a runner: nothing that was not allowed. */
export function runnerEnvironment(
  project: TestProjectSettings,
  { passed, variables }: TestEnvironmentSettings,
  env: NodeJS.ProcessEnv,
): Record<string, string> {
  const result: Record<string, string> = {};
  for (const name of [...ALWAYS_PASSED, ...passed]) {
    const value = env[name];
    if (value !== undefined) {
      result[name] = value;
    }
  }
  Object.assign(result, variables);
  const path = [...toolFolders(project.directory), ...(result["PATH"] ? [result["PATH"]] : [])];
  result["PATH"] = path.join(delimiter);
  return result;
}

/** As package managers do: the project's own tools first, then those of the workspace around it. */
function toolFolders(directory: string): string[] {
  const tools = join(directory, "node_modules", ".bin");
  const above = dirname(directory);
  return [...(existsSync(tools) ? [tools] : []), ...(above === directory ? [] : toolFolders(above))];
}
