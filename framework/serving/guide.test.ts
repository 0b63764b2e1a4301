import { type ChildProcessWithoutNullStreams, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import {
  type RegisterServiceRequest,
  RegistryService,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Http2Server, startHttp2Server } from "../test-support/http2-server.ts";
import { defaultLimits } from "./limits.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const guide = await readFile(join(root, "docs", "write-a-service.md"), "utf8");

const env = {
  ...process.env,
  PATH: [join(root, "node_modules", ".bin"), process.env["PATH"]].join(delimiter),
};

/** The files that the guide has its reader write: each block below a line that names it. */
function files(): [name: string, content: string][] {
  return [...guide.matchAll(/^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$/gms)].map(([, name = "", content = ""]) => [
    name,
    content,
  ]);
}

/** The commands of the guide that begin with a word. */
function commands(word: string): string[] {
  return [...guide.matchAll(/^```sh\n(.*?)^```$/gms)]
    .flatMap(([, block = ""]) => block.split("\n"))
    .filter((line) => line.startsWith(word));
}

/** The rows of the guide's tables whose first cell names an option. */
function rows(): Map<string, string> {
  return new Map(
    [...guide.matchAll(/^\| (`.+?) \| (.*?) \|/gm)].flatMap(([, options = "", defaults = ""]) => {
      const values = defaults.split(", `").map((each) => each.replaceAll("`", ""));
      return options.split(", ").map((option, i) => [option.replaceAll("`", ""), values[i] ?? ""] as const);
    }),
  );
}

describe("the guide to writing a service", () => {
  let folder: string;
  let registry: Http2Server;
  let server: ChildProcessWithoutNullStreams | undefined;
  let url = "";
  const registered: RegisterServiceRequest[] = [];
  const deregistered: unknown[] = [];

  async function run(command: string): Promise<string> {
    const { stdout } = await promisify(execFile)(
      "sh",
      ["-ec", command.replaceAll("http://127.0.0.1:4000", url)],
      {
        cwd: folder,
        env,
      },
    );
    return stdout;
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "toolplane-guide-"));
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    for (const [name, content] of files()) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), content.replace("127.0.0.1:4000", "127.0.0.1:0"));
    }
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    for (const command of commands("npx buf").filter((each) => !each.includes("127.0.0.1"))) {
      await run(command);
    }

    registry = await startHttp2Server((router) => {
      router.service(RegistryService, {
        registerService(request) {
          registered.push(request);
          return { instanceId: request.instance?.id ?? "" };
        },
        deregisterService({ target }) {
          deregistered.push(target.value);
          return {};
        },
      });
    });
    server = spawn("node", ["--conditions=toolplane-source", "server.ts"], {
      cwd: folder,
      env: { ...env, TOOLPLANE_URL: registry.url },
    });
    server.stderr.pipe(process.stderr);
    for await (const line of createInterface(server.stdout)) {
      const logged: { url?: string; msg: string } = JSON.parse(line);
      if (logged.msg === "serving" && logged.url !== undefined) {
        url = logged.url;
        break;
      }
    }
    expect(url).not.toBe("");
    server.stdout.resume();
  });

  afterAll(async () => {
    if (server?.exitCode === null) {
      server.kill("SIGKILL");
      await once(server, "exit");
    }
    await registry.close();
    await rm(folder, { recursive: true });
  });

  it("writes the service in ten lines", () => {
    const [, source = ""] = files().find(([name]) => name === "server.ts") ?? [];

    expect(source.split("\n").filter((line) => line.trim() !== "")).toHaveLength(10);
  });

  it("calls it without a schema file, as it says", async () => {
    const calls = commands("npx buf curl");

    expect(calls).toHaveLength(1);
    for (const call of calls) {
      expect(JSON.parse(await run(call))).toEqual({ words: 3 });
    }
  });

  it.each(["grpc", "grpcweb", "connect"])("calls it through %s and reflection", async (protocol) => {
    const call = `buf curl --protocol ${protocol} --http2-prior-knowledge --data '{"text":"one two"}'`;

    expect(JSON.parse(await run(`${call} ${url}/acme.text.v1.TextService/MeasureText`))).toEqual({
      words: 2,
    });
  });

  it("calls it as JSON over HTTP/1.1, with POST and GET", async () => {
    const method = `${url}/acme.text.v1.TextService/MeasureText`;
    const posted = await fetch(method, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text: "one two three" }),
    });
    const message = encodeURIComponent(JSON.stringify({ text: "one" }));
    const got = await fetch(`${method}?encoding=json&connect=v1&message=${message}`);

    expect(await posted.json()).toEqual({ words: 3 });
    expect(await got.json()).toEqual({ words: 1 });
  });

  it("offers the comments to whoever asks for the schema", async () => {
    const connection = new Http2SessionManager(url);
    const reflection = createClient(
      ServerReflection,
      createGrpcTransport({ baseUrl: url, sessionManager: connection }),
    );
    const symbol = "acme.text.v1.TextService.MeasureText";
    const comments: string[] = [];
    for await (const { messageResponse } of reflection.serverReflectionInfo(
      createAsyncIterable([{ messageRequest: { case: "fileContainingSymbol" as const, value: symbol } }]),
    )) {
      const [file] =
        messageResponse.case === "fileDescriptorResponse" ? messageResponse.value.fileDescriptorProto : [];
      const { sourceCodeInfo } = fromBinary(FileDescriptorProtoSchema, file ?? new Uint8Array());
      comments.push(...(sourceCodeInfo?.location.map((each) => each.leadingComments) ?? []));
    }
    connection.abort();

    expect(comments).toContain(" Counts the words of a text.\n");
  });

  it("registers, and deregisters when it is stopped", async () => {
    await expect.poll(() => registered).toHaveLength(1);
    expect(registered).toMatchObject([
      { service: { name: "text", version: "0.0.0" }, instance: { endpoint: url } },
    ]);

    server?.kill("SIGTERM");

    await expect.poll(() => server?.exitCode).toBe(0);
    expect(deregistered).toEqual([registered[0]?.instance?.id]);
  });
});

it("tells every limit with its default", () => {
  const told = rows();

  for (const [limit, value] of Object.entries(defaultLimits)) {
    expect([limit, told.get(limit)]).toEqual([limit, value.toLocaleString("en")]);
  }
});
