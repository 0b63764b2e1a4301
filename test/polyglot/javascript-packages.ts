import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder, run } from "../../scripts/examples.ts";

const folder = join(cacheFolder, "javascript-tests");

/** Packages that publish their tests, with what those need; and Jest, which the repository does not depend on. */
const PACKAGES = {
  "find-my-way": "9.10.1",
  jest: "30.5.2",
  "process-warning": "5.1.1",
  proxyquire: "2.1.3",
  rfdc: "1.4.1",
  zod: "4.6.7",
};

/** Where Jest is. */
export const jestCommand = join(folder, "node_modules", ".bin", "jest");

/** Installs the packages once, in a folder that is kept between runs. */
export async function installPackages(): Promise<void> {
  const manifest = JSON.stringify({ private: true, dependencies: PACKAGES });
  const marker = join(folder, "installed.json");
  if (existsSync(marker) && (await readFile(marker, "utf8")) === manifest) {
    return;
  }
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), manifest);
  await run("npm", ["install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"]);
  await writeFile(marker, manifest);
}

/** A copy of a project's files beside the packages, because runners leave out what is below `node_modules`. */
export async function projectOf(name: string, source = join(folder, "node_modules", name)): Promise<string> {
  const project = join(folder, "projects", name);
  await rm(project, { recursive: true, force: true });
  await cp(source, project, { recursive: true });
  return project;
}
