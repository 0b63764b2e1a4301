// Generates `gen/` from `proto/`, and freezes the contract that later changes are checked against.
//
//   node scripts/generate.mjs                    regenerate; a breaking change is refused
//   node scripts/generate.mjs --accept-breaking  regenerate although it breaks callers
//   node scripts/generate.mjs --check            fail when anything committed is stale
//   node scripts/generate.mjs --deps             only render `.proto-deps`, which buf needs to read `proto/`
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { printProto } from "./print-proto.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const baseline = join(root, "proto", "baseline.binpb");
const generated = ["--exclude-path", ".proto-deps/buf"]; // protovalidate ships its own generated code
const flags = new Set(process.argv.slice(2));

renderDependencies();
try {
  if (flags.has("--check")) {
    check();
  } else if (!flags.has("--deps")) {
    generate();
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

/** Collects the `.proto` files that `proto/` imports from the npm packages that ship them. */
function renderDependencies() {
  const deps = join(root, ".proto-deps");
  const modules = join(root, "node_modules");
  rmSync(deps, { recursive: true, force: true });
  const copies = {
    "google/rpc/code.proto": "google-proto-files/google/rpc/code.proto",
    "google/rpc/status.proto": "google-proto-files/google/rpc/status.proto",
    "google/rpc/error_details.proto": "google-proto-files/google/rpc/error_details.proto",
    "grpc/health/v1/health.proto": "grpc-health-check/proto/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto": "@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto":
      "@grpc/reflection/build/proto/grpc/reflection/v1alpha/reflection.proto",
  };
  for (const [to, from] of Object.entries(copies)) {
    cpSync(join(modules, from), join(deps, to));
  }
  mkdirSync(join(deps, "buf", "validate"), { recursive: true });
  writeFileSync(join(deps, "buf", "validate", "validate.proto"), printProto(file_buf_validate_validate));
}

function generate() {
  withTemporaryFolder((folder) => {
    const contract = buildContract(folder);
    if (!flags.has("--accept-breaking") && existsSync(baseline)) {
      refuseBreaking(contract);
    }
    buf("generate", ...generated);
    cpSync(contract, baseline);
  });
}

/** Builds the descriptors of `proto/` into a file. */
function buildContract(folder) {
  const contract = join(folder, "contract.binpb");
  buf("build", "--path", "proto/toolplane", "--exclude-source-info", "-o", contract);
  return contract;
}

/** Ends the process when a caller of the committed contract would break. */
function refuseBreaking(contract) {
  const config = JSON.stringify({ version: "v2", breaking: { use: ["FILE"] } });
  buf("breaking", contract, "--against", baseline, "--exclude-imports", "--config", config);
}

/** Regenerates into a temporary folder and compares it with what is committed. */
function check() {
  withTemporaryFolder((folder) => {
    const contract = buildContract(folder);
    refuseBreaking(contract);
    buf("generate", ...generated, "-o", folder);
    const stale = differences(join(folder, "gen", "src"), join(root, "gen", "src"));
    if (!readFileSync(contract).equals(readFileSync(baseline))) {
      stale.push("proto/baseline.binpb");
    }
    if (stale.length > 0) {
      console.error(
        `Generated files are stale: ${stale.join(", ")}\nRun \`npm run generate\` and commit the result.`,
      );
      process.exitCode = 1;
    }
  });
}

function withTemporaryFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), "toolplane-gen-"));
  try {
    use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function differences(fresh, committed) {
  const list = (folder) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  const names = new Set([...list(fresh), ...list(committed)]);
  const read = (folder, name) => {
    try {
      return readFileSync(join(folder, name), "utf8");
    } catch {
      return undefined;
    }
  };
  return [...names]
    .filter((name) => read(fresh, name) !== read(committed, name))
    .map((name) => `gen/src/${name}`);
}

function buf(...args) {
  try {
    execFileSync(join(root, "node_modules", ".bin", "buf"), args, {
      cwd: root,
      stdio: "inherit",
      env: { ...process.env, PATH: `${join(root, "node_modules", ".bin")}:${process.env.PATH}` },
    });
  } catch (error) {
    throw new Error(`buf ${args[0]} failed`, { cause: error.status });
  }
}
