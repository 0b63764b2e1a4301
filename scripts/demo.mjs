// `npm run demo`: a tour of Toolplane on real services, each command shown as you would type it.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { ensureBuilt } from "./build.mjs";
import { examples, startExample, startProcess } from "./examples.ts";

const cli = join(dirname(dirname(fileURLToPath(import.meta.url))), "client", "bin", "toolplane.js");
const dataDir = mkdtempSync(join(tmpdir(), "toolplane-demo-"));
/** What has to be stopped at the end, last first. */
const running = [];
let url = "";

const interruption = new AbortController();
const { signal } = interruption;
for (const name of ["SIGINT", "SIGTERM"]) {
  process.once(name, () => interruption.abort());
}
try {
  await tour();
} catch (error) {
  process.exitCode = signal.aborted ? 130 : 1;
  if (!signal.aborted) {
    console.error(error);
  }
} finally {
  for (const service of running.reverse()) {
    await service.stop();
  }
  rmSync(dataDir, { recursive: true, force: true });
}

async function tour() {
  title("Getting ready");
  await ensureBuilt();
  const ready = {};
  for (const [name, example] of Object.entries(examples)) {
    const missing = example.missing();
    if (missing) {
      say(`${missing}: the tour goes on without the ${example.language} service "${name}".`);
    } else {
      say(`The ${example.language} service "${name}" …`);
      await example.prepare();
      signal.throwIfAborted();
      ready[name] = example;
    }
  }

  title("The server, with a database of its own");
  shown("toolplane serve");
  const server = await startProcess(
    [process.execPath, cli, "serve"],
    { TOOLPLANE_LISTEN: "127.0.0.1:0", TOOLPLANE_DATA_DIR: dataDir, TOOLPLANE_URL: "" },
    /Address\s+(http:\S+)/,
    signal,
  );
  running.push(server);
  url = server.url;
  say(`It listens at ${url}.`);

  title("Services in three languages, registered by address");
  const services = {};
  for (const [name, example] of Object.entries(ready)) {
    const env = name === "text" ? { TOOLPLANE_URL: url } : {};
    services[name] = await startExample(example, env, signal);
    running.push(services[name]);
  }
  say(
    "The TypeScript service is written with serve() and registers itself. The others know nothing of Toolplane.",
  );
  if (services.time) {
    await toolplane(
      "register",
      "time",
      services.time.address,
      "--tag",
      "calendar",
      "--health",
      "grpc",
      "--health-interval",
      "1s",
    );
  }
  if (services.diff) {
    await toolplane("register", "diff", services.diff.address, "--tag", "text");
  }
  if (services.stats) {
    await toolplane("register", "stats", services.stats.address, "--utcp-url", `${services.stats.url}/utcp`);
  }
  await until(["services", "list", "text", "--json"], (output) => output.includes('"text"'));
  await toolplane("services");

  title("Their methods are tools");
  await toolplane("tools", "list", "text");
  await toolplane("tools", "search", "how hard is this text to read", "--limit", "3");
  await toolplane("tools", "show", "text.AnalyzeText");

  title("Calling them");
  const sentence =
    "The quick brown fox jumps over the lazy dog. Notwithstanding its reputation, the dog was asleep.";
  await toolplane("call", "text.AnalyzeText", `text=${sentence}`, "topWords:=3");
  if (services.time) {
    const zones = 'toZones:=["Asia/Tokyo"]';
    await toolplane("call", "time.ConvertTime", "localTime=2026-07-01T09:00", "zone=Europe/Berlin", zones);
  }
  if (services.stats) {
    await toolplane("call", "stats.describe", "values:=[12, 11, 13, 12, 55]");
  }

  title("Streams come as they are produced");
  await toolplane("call", "text.GradeSentences", `text=${sentence}`);
  if (services.time) {
    await toolplane("call", "time.ListClockChanges", "zone=Europe/Berlin", "fromYear:=2026");
  }
  if (services.diff) {
    const versions = '{"name": "draft", "text": "a\\nb"}\n{"name": "final", "text": "a\\nB\\nc"}\n';
    await piped(versions, "call", "diff.FollowVersions", "-");
  }

  title("A workflow: steps side by side, a list, and a person who is asked");
  const file = join(dataDir, "grades.yaml");
  writeFileSync(file, workflow({ hasTime: services.time !== undefined }));
  await toolplane("workflow", "graph", file);
  await toolplane("workflow", "put", file);
  const texts = JSON.stringify(["To be or not to be.", sentence]);
  await toolplane("workflow", "run", "grades", `texts:=${texts}`, "--detach");
  say("It is recorded step by step, and would be finished after kill -9. What it waits for is a person:");
  await until(["run", "list", "--state", "waiting", "--json"], (output) => output.includes('"gate"'));
  await toolplane("run", "show", "latest");
  await toolplane("run", "approve", "latest", "--comment", "well written");
  await toolplane("run", "watch", "latest");

  title("Arguments are checked before anything is sent");
  await refused("call", "text.AnalyzeText", "text=", "topWords:=1000");

  title("Health");
  await toolplane("health");
  if (services.time) {
    say(`The Python service is killed (kill -9), and the server's next check notices:`);
    await services.time.kill();
    await until(["services", "list", "time", "--health", "unhealthy", "--json"], (output) =>
      output.includes('"time"'),
    );
    await toolplane("services", "list", "time");
    await toolplane("deregister", "time");
  }
  say("The TypeScript service is killed too. It registered with a lease of 5 s and can no longer renew it:");
  await services.text.kill();
  await until(["services", "list", "text", "--json"], (output) => !output.includes('"text"'));
  await toolplane("services");
  say(styleText("green", "That was the tour. `npm start` starts a server that stays."));
}

/** Grades a list of texts beside asking for the time, then asks a person. */
function workflow({ hasTime }) {
  const time = `  - id: time
    tool:
      name: time.ConvertTime
      arguments: { localTime: "2026-07-01T09:00", zone: Europe/Berlin, toZones: [Asia/Tokyo] }
`;
  return `name: grades
description: Grades texts, and asks whether they are good enough.
steps:
  - id: grades
    for_each: { items: "\${ input.texts }" }
    tool:
      name: text.AnalyzeText
      arguments: { text: "\${ item }", topWords: 1 }
${hasTime ? time : ""}  - id: gate
    approval: { message: "Publish texts of \${ steps.grades.output.map(grade, grade.words) } words?" }
output:
  words: \${ steps.grades.output.map(grade, grade.words) }
  said: \${ steps.gate.output.comment }
`;
}

/** Shows a command and runs it, its output as it comes. */
async function toolplane(...args) {
  await expectCode(args, undefined, (code) => code === 0);
}

/** The same for a command that reads what another one writes. */
async function piped(input, ...args) {
  await expectCode(args, input, (code) => code === 0);
}

/** The same for a command whose failure is what there is to see. */
async function refused(...args) {
  await expectCode(args, undefined, (code) => code > 0);
}

async function expectCode(args, input, wanted) {
  shown(`toolplane ${args.map(quoted).join(" ")}`, input);
  const child = start(args, [input === undefined ? "ignore" : "pipe", "inherit", "inherit"]);
  child.stdin?.end(input);
  const code = await ended(child);
  if (!wanted(code)) {
    throw new Error(`the command ended with code ${code}, which is not what the tour expects`);
  }
}

function start(args, stdio) {
  return spawn(process.execPath, [cli, ...args], {
    stdio,
    signal,
    env: { ...process.env, TOOLPLANE_URL: url },
  });
}

async function ended(child) {
  const code = await new Promise((resolve, reject) => child.once("close", resolve).once("error", reject));
  signal.throwIfAborted();
  return code;
}

/** Asks again until the answer is as wanted, for a minute at most. */
async function until(args, wanted) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const child = start(args, ["ignore", "pipe", "inherit"]);
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    await ended(child);
    if (wanted(output)) {
      return;
    }
    if (Date.now() > deadline) {
      throw new Error(
        `toolplane ${args.join(" ")} did not come to what was expected; its last answer:\n${output}`,
      );
    }
  }
}

function title(text) {
  console.log(`\n${styleText("bold", `── ${text} `.padEnd(80, "─"))}`);
}

function say(text) {
  console.log(styleText("dim", text));
}

function shown(command, input) {
  const prefix =
    input === undefined ? "" : `printf ${quoted(input.replaceAll("\\", "\\\\").replaceAll("\n", "\\n"))} | `;
  console.log(`\n${styleText("cyan", "$")} ${styleText("bold", prefix + command)}`);
}

/** As one would type it in a shell. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
