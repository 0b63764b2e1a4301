#!/usr/bin/env node
// Starts the command line: bundled, as published, or from its sources. Written so that an old Node can read it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const OLDEST_NODE = 22;
const BUILT = ["../dist/bundle/toolplane.js", "../dist/cli/main.js"];
const SOURCE = "../cli/main.ts";

const find = (path) => new URL(path, import.meta.url);

if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
  console.error(
    `toolplane needs Node ${OLDEST_NODE} or newer, and this is Node ${process.versions.node}.\n` +
      "Within a project that has it installed, `npx toolplane` brings the right one.",
  );
  process.exitCode = 1;
} else {
  const built = BUILT.map(find).find((url) => existsSync(url));
  if (built === undefined) runSource(fileURLToPath(find(SOURCE)));
  else await import(built.href);
}

/** The export condition that resolves workspace packages to their sources can only be set for a new process. */
function runSource(path) {
  const child = spawn(
    process.execPath,
    [...process.execArgv, "--conditions=toolplane-source", path, ...process.argv.slice(2)],
    { stdio: "inherit" },
  );
  // A terminal sends an interruption to both processes; this one only waits for how the other ends.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exitCode = code ?? 1;
    else process.kill(process.pid, signal);
  });
}
