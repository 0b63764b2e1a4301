import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { createLogger, type Server, serve } from "@toolplane/framework";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BundledCli, bundleCli } from "../client/testing/bundled-cli.ts";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { textService } from "../examples/typescript/text-service.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const GREET = `
name: greet
input_schema:
  type: object
  required: [names]
  properties:
    names: { type: array, items: { type: string }, description: Who is greeted }
steps:
  - id: greetings
    for_each: { items: "\${ input.names }" }
    value: "Hello, \${ item }!"
  - id: gate
    approval: { message: "Greet \${ size(steps.greetings.output) }?" }
output:
  greetings: \${ steps.greetings.output }
  said: \${ steps.gate.output.comment }
`;

let cli: BundledCli;
let app: TestApp;
let service: Server;
let address: string;

beforeAll(async () => {
  [cli, app, service] = await Promise.all([
    bundleCli(),
    startTestApp(),
    serve({
      name: "text",
      version: "1.0.0",
      listen: "127.0.0.1:0",
      logger: createLogger({ level: "error" }),
      register: false,
      routes: (router) => router.service(TextService, textService),
    }),
  ]);
  address = service.url.replace("http://", "");
});
afterAll(async () => {
  await Promise.all([app?.close(), service?.close(), cli?.[Symbol.asyncDispose]()]);
});

const run = (...args: string[]) => cli.run(args, { url: app.url });
const json = async (...args: string[]) => JSON.parse((await run(...args, "--json")).stdout);

describe("a service that is registered from the command line", () => {
  it("is there with its tools at once, and watchers see it come", async () => {
    const watcher = cli.start(["services", "watch"], { url: app.url });
    const lines = createInterface({ input: watcher.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toContain("toolplane");

    const { code, stdout, stderr } = await run(
      "register",
      "text",
      address,
      "--version",
      "1.0.0",
      "--tag",
      "demo",
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout).toContain("✓ Registered text 1.0.0 in default: 2 tools");
    expect(stdout).toMatch(/text\.AnalyzeText +unary/);
    expect(stdout).toMatch(/text\.GradeSentences +server stream/);

    expect((await lines.next()).value).toContain("text 1.0.0 in default");
    watcher.kill("SIGINT");
    await once(watcher, "close");
  });

  it("is listed and shown, alone and with its tools", async () => {
    expect((await json("services", "--tag", "demo")).services).toMatchObject([
      { name: "text", version: "1.0.0" },
    ]);
    const shown = await run("services", "show", "text");
    expect(shown.stdout).toMatch(/Source +gRPC reflection/);
    expect(shown.stdout).toContain(service.url);
    expect((await json("tools", "list", "text")).totalSize).toBe(2);
    const found = await run("tools", "search", "readability");
    expect(found.stdout).toContain("text.AnalyzeText");
  });

  it("says how its tools are called, and the example works", async () => {
    const { stdout } = await run("tools", "show", "text.AnalyzeText");
    expect(stdout).toMatch(/text +string +required +The text to analyze/);
    const example = /\$ toolplane (call .*)$/m.exec(stdout)?.[1] ?? "";
    const [command = "", tool = "", quoted = ""] = /^(call) (\S+) '?(.*?)'?$/.exec(example)?.slice(1) ?? [];
    const called = await run(command, tool, quoted);
    expect(called).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(called.stdout)).toHaveProperty("words");
  });

  it("is called with pairs that its schema types", async () => {
    const result = await json("call", "text.AnalyzeText", "text=To be or not to be", "topWords=1");
    expect(result).toMatchObject({
      result: { words: 6, topWords: { be: 2 } },
      info: { service: "text", resultCount: 1 },
    });
  });

  it("streams its results, one a line", async () => {
    const { code, stdout } = await run("call", "text.GradeSentences", "text=One cat sat. Two dogs ran.");
    expect(code).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line).sentence),
    ).toEqual(["One cat sat.", "Two dogs ran."]);
  });

  it("has wrong arguments refused, field by field", async () => {
    const { code, stderr } = await run("call", "text.AnalyzeText", "topWords=many", "languge=en");
    expect(code).toBe(5);
    expect(stderr).toContain("✗ The arguments are not valid");
    expect(stderr).toMatch(/^ {2}topWords +expected/m);
    expect(stderr).toMatch(/^ {2}languge +is no known field/m);
  });

  it("is healthy when it is asked, and refreshes without a change", async () => {
    const checked = await run("health", "text");
    expect(checked.code).toBe(0);
    expect(checked.stdout).toMatch(/text +1\.0\.0 +default +\S+ +● healthy +[\d.]+ ms/);
    await expect.poll(async () => (await run("health", "text", "--history")).stdout).toContain("● healthy");
    expect((await run("refresh", "text")).stdout).toContain("Nothing changed.");
  });

  it("is completed by name", async () => {
    expect((await run("__complete", "--", "call", "text.A")).stdout).toMatch(/^text\.AnalyzeText\t/);
    expect((await run("__complete", "--", "call", "text.AnalyzeText", "to")).stdout).toMatch(/^topWords=\t/);
  });

  it("is gone after it was deregistered", async () => {
    expect((await run("deregister", "text")).stdout).toContain("✓ Removed text: 1 instance");
    const { code, stderr } = await run("call", "text.AnalyzeText", "text=x");
    expect(code).toBe(3);
    expect(stderr).toContain("does not exist");
  });
});

describe("discover", () => {
  it("says how to keep a manual, and what it says works", async () => {
    const template = { call_template_type: "http", url: "/hello", http_method: "GET" };
    const manual = {
      utcp_version: "1.0.1",
      manual_version: "1.0.0",
      tools: [
        {
          name: "hello",
          description: "Says hello",
          inputs: { type: "object" },
          tool_call_template: template,
        },
      ],
    };
    const server = createServer((request, response) => {
      response
        .setHeader("content-type", "application/json")
        .end(JSON.stringify(request.url === "/utcp" ? manual : { said: "hello" }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const { port } = server.address() as AddressInfo; // what a TCP server that listens has
      const { stderr } = await run("discover", `http://127.0.0.1:${port}/utcp`);
      const [, command = ""] = /toolplane (register .*?) \(/.exec(stderr) ?? [];
      expect((await run(...command.replace("<name>", "kept").split(" "))).code).toBe(0);
      expect((await run("call", "kept.hello", "--json")).stdout).toContain('"hello"');
      await run("deregister", "kept");
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("shows what a server offers and keeps nothing", async () => {
    const { code, stdout } = await run("discover", address);
    expect(code).toBe(0);
    expect(stdout).toMatch(/offers 2 tools[\s\S]*AnalyzeText/);
    expect((await json("services")).services).toMatchObject([{ name: "toolplane" }]);
    expect((await json("discover", address)).tools).toHaveLength(2);
  });

  it("says why nothing was learnt", async () => {
    const { code, stdout } = await run("discover", "127.0.0.1:1");
    expect(code).toBe(1);
    expect(stdout).toContain("connection refused");
    expect((await json("services")).services).toHaveLength(1);
  });
});

describe("a registration that cannot work", () => {
  it("is accepted as degraded, with the reason", async () => {
    const { code, stdout, stderr } = await run("register", "ghost", "127.0.0.1:1", "--lease", "5s");
    expect(code).toBe(0);
    expect(stdout).toMatch(/ghost 0\.0\.0 in default: 0 tools[\s\S]*connection refused/);
    expect(stderr).toContain("toolplane refresh ghost");
    await run("deregister", "ghost");
  });

  it("is refused when it is malformed, with the field", async () => {
    const { code, stderr } = await run("register", "no spaces", "127.0.0.1:1");
    expect(code).toBe(5);
    expect(stderr).toContain("service.name");
  });
});

describe("a workflow that is kept from the command line", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "toolplane-cli-workflow-"));
    await writeFile(join(folder, "greet.yaml"), GREET);
    await writeFile(join(folder, "grader.yaml"), "name: grader\nprompt: You grade.\ntools: { none: true }\n");
    await run("workflow", "put", join(folder, "greet.yaml"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("is shown with its input, and with a command that runs it", async () => {
    const { stdout } = await run("workflow", "show", "greet");
    expect(stdout).toMatch(/names +list of string +required +Who is greeted/);
    expect(stdout).toContain("Run it: toolplane workflow run greet 'names:=");
  });

  it("has wrong input refused in the words in which it is written", async () => {
    expect(await run("workflow", "run", "greet")).toMatchObject({
      code: 5,
      stdout: "",
      stderr: "✗ The input is not valid\n  names  is required\n",
    });
  });

  it("asks, is answered, and says how to answer only where that is still needed", async () => {
    const id = (await run("workflow", "run", "greet", 'names:=["Ada"]', "--detach")).stdout.trim();
    const hint = `toolplane run approve ${id.slice(0, 8)} gate`;
    await expect.poll(async () => (await run("run", "show", id)).stdout).toMatch(/\? approval +gate/);
    const watch = cli.start(["run", "watch", id], { url: app.url });
    const watched = text(watch.stdout);

    const approved = await run("run", "approve", id, "--comment", "fine");
    expect(approved).toMatchObject({
      code: 0,
      stderr: `  See it go on: toolplane run watch ${id.slice(0, 8)}\n`,
    });
    expect(await watched).toContain("✓ succeeded  workflow greet v1");
    expect((await run("run", "output", id)).stdout).toBe('{"greetings":["Hello, Ada!"],"said":"fine"}\n');
    const { stdout } = await run("run", "watch", id);
    expect(stdout).toContain("? approval   gate  Greet 1?");
    expect(stdout).not.toContain(hint);
  });

  it("goes with an agent that is kept as YAML", async () => {
    expect(await run("agent", "put", join(folder, "grader.yaml"))).toMatchObject({
      code: 0,
      stdout: "✓ Kept grader v1\n",
    });
    expect((await run("agent", "run", "grader", "hello")).stderr).toContain("OPENAI_BASE_URL");
  });
});

describe("version", () => {
  it("names both ends", async () => {
    expect(await json("version")).toMatchObject({
      client: { version: expect.stringMatching(/^\d/) },
      server: { url: app.url, version: expect.stringMatching(/^\d/) },
    });
  });
});

describe("serve", () => {
  const children: ChildProcess[] = [];
  let dataDir: string;
  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "toolplane-serve-"));
  });
  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    await rm(dataDir, { recursive: true, force: true });
  });

  function startServe(...args: string[]) {
    const script = join(ROOT, "client", "cli", "main.ts");
    const child = spawn(process.execPath, ["--conditions=toolplane-source", script, "serve", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env["PATH"] },
    });
    children.push(child);
    return child;
  }

  it("starts a server that answers until it is interrupted, then stops cleanly", async () => {
    const child = startServe("--listen", "127.0.0.1:0", "--data-dir", dataDir);
    let output = "";
    for await (const line of createInterface({ input: child.stdout })) {
      output += `${line}\n`;
      const url = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
      if (url === undefined || !line.includes("Address")) continue;
      expect((await cli.run(["services"], { url })).stdout).toContain("toolplane");
      child.kill("SIGINT");
    }
    expect(output).toContain("is serving");
    expect(child.exitCode ?? (await once(child, "close"))[0]).toBe(0);
  });

  it("says which field of the configuration is wrong", async () => {
    const config = join(dataDir, "config.yaml");
    await writeFile(config, "listen: nowhere\npool: {max_connections: -1}\n");
    const child = startServe("--config", config);
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, "close")]);
    expect(code).toBe(5);
    expect(stderr).toContain("✗ The configuration is not valid");
    expect(stderr).toMatch(/listen|max_connections/);
    expect(stderr).not.toMatch(/ at .*\.ts/);
  });

  it.each([
    ["a missing file", ["--config", "absent.yaml"], "configuration file absent.yaml"],
    ["a data directory that cannot be", ["--data-dir", "/dev/null"], "data_dir /dev/null is a file"],
    ["an address that others can reach", ["--listen", "0.0.0.0:0"], "can be reached from other machines"],
  ])("has one exit code for %s and every other mistake in the configuration", async (_, args, words) => {
    const child = startServe("--listen", "127.0.0.1:0", ...args);
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, "close")]);
    expect(stderr.split(words)).toHaveLength(2);
    expect(code).toBe(5);
  });
});
