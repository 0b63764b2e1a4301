import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, rm } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolder, run } from "../../scripts/examples.ts";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end, whatever that is. */
export function output(file: string, args: readonly string[], input?: string): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = execFile(file, [...args], { cwd: root, timeout: 60_000 }, (error, stdout, stderr) => {
      if (error && typeof error.code !== "number") {
        reject(error);
      } else {
        resolve({ code: Number(error?.code ?? 0), stdout, stderr });
      }
    });
    child.stdin?.end(input);
  });
}

/** `npm` and `npx` put it on the path; a test that an editor starts has it nevertheless. */
export const buf = join(root, "node_modules", ".bin", "buf");

/** Installs grpcurl once and returns its path. */
export async function installGrpcurl(): Promise<string> {
  await run("go", ["install", GRPCURL], { GOBIN: join(cacheFolder, "bin") });
  return join(cacheFolder, "bin", "grpcurl");
}

/** The documents of a stream of JSON, one after the other as protobuf tools print them. */
export function jsonDocuments(text: string): unknown[] {
  return text
    .split(/\n(?=\{)/)
    .filter((document) => document.trim() !== "")
    .map((document) => JSON.parse(document));
}

/** Generates Go code for the whole contract and builds the client in `go-client` with it. Returns its path. */
export async function buildGoClient(): Promise<string> {
  const folder = join(cacheFolder, "go-client");
  await rm(folder, { recursive: true, force: true });
  await cp(join(root, "test", "polyglot", "go-client"), folder, { recursive: true });
  await renderDependencies();
  const plugins = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "connectrpc.com/connect/cmd/protoc-gen-connect-go",
  ];
  await run("go", ["build", "-C", folder, "-o", join(folder, "bin") + sep, ...plugins]);
  const template = {
    version: "v2",
    managed: {
      enabled: true,
      override: [{ file_option: "go_package_prefix", value: "toolplane.example/client/gen" }],
    },
    plugins: plugins.map((plugin) => ({
      local: join(folder, "bin", basename(plugin)),
      out: join(folder, "gen"),
      opt: "paths=source_relative",
    })),
  };
  await run(buf, ["generate", "--template", JSON.stringify(template)]);
  const binary = join(cacheFolder, "bin", "go-client");
  await run("go", ["build", "-C", folder, "-o", binary, "."]);
  return binary;
}

/** Generates Python code for the whole contract and returns the folder to import it from. */
export async function generatePython(python: string): Promise<string> {
  const folder = join(cacheFolder, "python-client");
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await renderDependencies();
  await run(python, [join(root, "test", "polyglot", "python-client", "generate.py"), folder]);
  return folder;
}

/** The files that the contract imports. Others may be reading them, so they are only written when they are not there. */
export async function renderDependencies(): Promise<void> {
  if (!existsSync(join(root, ".proto-deps"))) {
    await run(process.execPath, ["scripts/generate.mjs", "--deps"]);
  }
}
