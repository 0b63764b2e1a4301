#!/usr/bin/env node
// Starts the command line. Written so that an old Node can read it and say what is wrong.
import { existsSync } from "node:fs";

const OLDEST_NODE = 22;
const BUNDLE = new URL("../dist/bundle/toolplane.js", import.meta.url);
/** There in a checkout only, where sources may be newer than the bundle. */
const BUILD = new URL("../../scripts/build.mjs", import.meta.url);

if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
  console.error(
    `toolplane needs Node ${OLDEST_NODE} or newer, and this is Node ${process.versions.node}.\n` +
      "Within a project that has it installed, `npx toolplane` brings the right one.",
  );
  process.exitCode = 1;
} else {
  const { enableCompileCache } = await import("node:module");
  enableCompileCache();
  if (existsSync(BUILD)) {
    const { ensureBuilt } = await import(BUILD.href);
    await ensureBuilt();
  }
  await import(BUNDLE.href);
}
