import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ExecuteOptions, execute } from "./execute.ts";
import type { PreparedRunner, RunnerEnd, TestEventInit } from "./runner.ts";

let folder: string;
let spoolFile: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-execute-"));
  spoolFile = join(folder, "spool.jsonl");
});
afterEach(() => rm(folder, { recursive: true, maxRetries: 5 }));

/** A runner that is a program of Node's. In it, `spool(event)` reports. */
function program(source: string, more: Partial<PreparedRunner> = {}): PreparedRunner {
  const reporting = `const spool = (event) => require("node:fs").appendFileSync(${JSON.stringify(spoolFile)}, JSON.stringify(event) + "\\n");`;
  return {
    argv: [process.execPath, "-e", `${reporting}\n${source}`],
    env: {},
    reports: [],
    coverageFiles: [],
    verdictCodes: [0, 1],
    ...more,
  };
}

interface Ran {
  readonly end: RunnerEnd;
  readonly events: readonly TestEventInit[];
}

async function run(prepared: PreparedRunner, options: Partial<ExecuteOptions> = {}): Promise<Ran> {
  const events: TestEventInit[] = [];
  const end = await execute({
    prepared,
    directory: folder,
    env: { PATH: process.env["PATH"] },
    signal: new AbortController().signal,
    graceMs: 300,
    spoolFile,
    onEvents: async (more) => {
      events.push(...more);
    },
    ...options,
  });
  return { end, events };
}

function output(events: readonly TestEventInit[], stderr = false): string {
  return events
    .map(({ kind }) =>
      kind?.case === "output" && (kind.value.stderr ?? false) === stderr ? kind.value.text : "",
    )
    .join("");
}

const files = (events: readonly TestEventInit[]) =>
  events.flatMap(({ kind }) => (kind?.case === "fileStarted" ? [kind.value.file ?? ""] : []));

const problems = (events: readonly TestEventInit[]) =>
  events.flatMap(({ kind }) =>
    kind?.case === "problem" ? [`${kind.value.place}: ${kind.value.message}`] : [],
  );

/** Whether a process lives; a zombie does not. */
function lives(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** Processes whose environment mentions a folder of this test. */
function processesOf(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return lives(pid) && readFileSync(`/proc/${pid}/environ`, "latin1").includes(text);
      } catch {
        return false;
      }
    });
}

async function pidIn(name: string): Promise<number> {
  const path = join(folder, name);
  await expect.poll(() => existsSync(path) && readFileSync(path, "utf8")).toMatch(/^\d+$/);
  return Number(await readFile(path, "utf8"));
}

/** Starts a process that ignores SIGTERM in a session of its own, and writes its id to a file. */
const stubborn = (name: string) => `
  require("node:child_process").spawn(process.execPath, ["-e",
    "process.on('SIGTERM', () => {}); require('node:fs').writeFileSync(" + JSON.stringify(${JSON.stringify(name)}) + ", String(process.pid)); setInterval(() => {}, 1000)",
  ], { detached: true, stdio: "ignore" }).unref();`;

const forever = "setInterval(() => {}, 1000);";

describe("running a command", () => {
  it("tells what is reported and what is written, and how it ended", async () => {
    const { end, events } = await run(
      program(`
        spool({ fileStarted: { file: "a" } });
        process.stdout.write("héllo\\n");
        process.stderr.write("oh\\n");
        spool({ fileStarted: { file: "b" } });
        process.exitCode = 1;`),
    );

    expect(end).toEqual({
      exitCode: 1,
      signal: undefined,
      reason: TestRunEndReason.UNSPECIFIED,
      message: "",
    });
    expect(files(events)).toEqual(["a", "b"]);
    expect(output(events)).toBe("héllo\n");
    expect(output(events, true)).toBe("oh\n");
  });

  it("tells of events while the runner runs", async () => {
    const seen: string[] = [];
    const cancel = new AbortController();
    const running = run(program(`spool({ fileStarted: { file: "a" } }); console.log("begun"); ${forever}`), {
      signal: cancel.signal,
      onEvents: async (events) => {
        seen.push(JSON.stringify(events, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
      },
    });

    await expect.poll(() => seen.join("")).toContain('"file":"a"');
    await expect.poll(() => seen.join("")).toContain('"text":"begun');
    cancel.abort();
    expect((await running).end.reason).toBe(TestRunEndReason.CANCELLED);
  });

  it("gives the runner its environment, and nothing of this process", async () => {
    const { events } = await run(program("console.log(JSON.stringify(process.env))", { env: { B: "2" } }), {
      env: { A: "1" },
    });

    expect(JSON.parse(output(events))).toEqual({ A: "1", B: "2", TOOLPLANE_TEST_RUN: expect.any(String) });
  });

  it("does not let the runner speak for the warden", async () => {
    const { events } = await run({
      ...program(""),
      argv: ["/bin/sh", "-c", "echo '{}' >&3 || echo closed"],
    });

    expect(output(events)).toBe("closed\n");
  });

  it("keeps text whole that is written byte by byte, replaces what is no text, and cuts what is long at its lines", async () => {
    const line = `${"é".repeat(999)}\n`;
    const { events } = await run(
      program(`
        const { writeSync } = require("node:fs");
        for (const byte of Buffer.from("wörld 🎈\\n")) writeSync(1, Buffer.of(byte));
        writeSync(1, Buffer.of(0xff, 0x0a));
        writeSync(1, ${JSON.stringify(line)}.repeat(300));
        writeSync(1, "🎈".repeat(100000));`),
    );

    expect(output(events)).toBe(`wörld 🎈\n\ufffd\n${line.repeat(300)}${"🎈".repeat(100_000)}`);
    for (const { kind } of events) {
      const text = kind?.case === "output" ? (kind.value.text ?? "") : "";
      expect(text.length).toBeLessThanOrEqual(65_536);
      expect(text.isWellFormed()).toBe(true);
    }
  });

  it("shows the runner's output to whoever wants it as it comes", async () => {
    const shown: string[] = [];
    await run(program(`console.log("out"); console.error("err")`), {
      onOutput: (text, stderr) => shown.push(`${stderr ? "2" : "1"} ${text}`),
    });

    expect(shown.sort()).toEqual(["1 out\n", "2 err\n"]);
  });

  it("has standard output parsed where the tool reports there", async () => {
    const shown: string[] = [];
    const lines: string[] = [];
    const { events } = await run(
      program(`process.stdout.write("one\\r\\ntwo\\nthree")`, {
        stdout: {
          line: (text) => {
            lines.push(text);
            return [{ kind: { case: "output", value: { text: `${text}!` } } }];
          },
          end: () => [{ kind: { case: "fileStarted", value: { file: "end" } } }],
        },
      }),
      { onOutput: (text) => shown.push(text) },
    );

    expect(lines).toEqual(["one", "two", "three"]);
    expect(output(events)).toBe("one!two!three!");
    expect(shown).toEqual(["one!", "two!", "three!"]);
    expect(files(events)).toEqual(["end"]);
  });

  it("stops reading while nobody takes the events, and loses none", async () => {
    let takeThem = () => {};
    const taken = new Promise<void>((resolve) => {
      takeThem = resolve;
    });
    let length = 0;
    const progress = join(folder, "progress");
    const running = run(
      program(`
        const { writeFileSync } = require("node:fs");
        let sent = 0;
        (function more() {
          if (sent === 400) return;
          sent += 1;
          writeFileSync(${JSON.stringify(progress)}, String(sent));
          process.stdout.write("x".repeat(65535) + "\\n", more);
        })();`),
      {
        onEvents: async (events) => {
          await taken;
          length += output(events).length;
        },
      },
    );

    // The runner comes to stand still, far from its end.
    const sent = () => (existsSync(progress) ? Number(readFileSync(progress, "utf8")) : 0);
    let before = -1;
    await expect
      .poll(
        () => {
          const still = sent() > 0 && sent() === before;
          before = sent();
          return still;
        },
        { interval: 300 },
      )
      .toBe(true);
    expect(sent()).toBeLessThan(200);
    takeThem();
    expect((await running).end.reason).toBe(TestRunEndReason.UNSPECIFIED);
    expect(length).toBe(400 * 65_536);
  });

  it("ends with the error of whoever takes the events, and stops the runner", async () => {
    await expect(
      run(
        program(`require("node:fs").writeFileSync("pid", String(process.pid)); console.log("x"); ${forever}`),
        {
          onEvents: () => Promise.reject(new Error("the store is down")),
        },
      ),
    ).rejects.toThrow("the store is down");

    expect(lives(await pidIn("pid"))).toBe(false);
  });
});

describe("a runner that does not end by itself", () => {
  it("is stopped when it is cancelled, with all that it started", async () => {
    const cancel = new AbortController();
    const running = run(program(`${stubborn("stubborn")} process.on("SIGTERM", () => {}); ${forever}`), {
      signal: cancel.signal,
    });
    const pid = await pidIn("stubborn");
    cancel.abort(new Error("no longer needed"));

    expect((await running).end).toMatchObject({
      reason: TestRunEndReason.CANCELLED,
      message: "no longer needed",
      signal: "SIGKILL",
    });
    expect(lives(pid)).toBe(false);
  });

  it("is not started when it was cancelled before", async () => {
    const { end } = await run(program(forever), { signal: AbortSignal.abort() });

    expect(end.reason).toBe(TestRunEndReason.CANCELLED);
  });

  it("may end in order when it is asked to", async () => {
    const cancel = new AbortController();
    const running = run(
      program(`
        process.on("SIGTERM", () => { spool({ fileStarted: { file: "farewell" } }); process.exit(7); });
        spool({ fileStarted: { file: "begun" } });
        ${forever}`),
      {
        signal: cancel.signal,
        graceMs: 20_000,
        onEvents: async (events) => {
          seen.push(...files(events));
        },
      },
    );
    const seen: string[] = [];
    await expect.poll(() => seen).toEqual(["begun"]);
    cancel.abort();

    expect((await running).end).toMatchObject({ reason: TestRunEndReason.CANCELLED, exitCode: 7 });
    expect(seen).toEqual(["begun", "farewell"]);
  });

  it("times out", async () => {
    const { end } = await run(program(`setInterval(() => console.log("busy"), 20)`), { timeoutMs: 500 });

    expect(end).toMatchObject({ reason: TestRunEndReason.TIMEOUT, signal: "SIGTERM" });
    expect(end.message).toContain("longer than 0.5 s");
  });

  it("counts as hung when it says nothing", async () => {
    const { end } = await run(program(`spool({ fileStarted: { file: "a" } }); ${forever}`), {
      silenceMs: 500,
    });

    expect(end.reason).toBe(TestRunEndReason.SILENT);
    expect(end.message).toContain("for 0.5 s");
  });
});

describe("a runner that fails", () => {
  it("says what to do when the program is not there", async () => {
    const { end } = await run({ ...program(""), argv: ["no-such-program"] }, { env: { PATH: "/nowhere" } });

    expect(end).toEqual({
      exitCode: undefined,
      signal: undefined,
      reason: TestRunEndReason.NOT_STARTED,
      message: "no-such-program was not found in PATH, which is /nowhere; install it, or correct the command",
    });
  });

  it("says what to do when the program may not be run", async () => {
    const path = join(folder, "tool");
    await writeFile(path, "#!/bin/sh\n");
    await chmod(path, 0o644);

    const { end } = await run({ ...program(""), argv: [path] });

    expect(end.reason).toBe(TestRunEndReason.NOT_STARTED);
    expect(end.message).toContain("make it executable");
  });

  it("says when the folder is not there", async () => {
    const { end } = await run(program(""), { directory: join(folder, "gone") });

    expect(end.reason).toBe(TestRunEndReason.NOT_STARTED);
    expect(end.message).toContain("gone cannot be entered");
  });

  it("says when the command cannot even be passed on", async () => {
    const { end } = await run({ ...program(""), argv: ["tool", "a\0b"] });

    expect(end.reason).toBe(TestRunEndReason.NOT_STARTED);
  });

  it("ended with an error of its own when its code is no verdict, and tells its last words", async () => {
    const { end } = await run(program(`console.error("no config found"); process.exitCode = 3`));

    expect(end).toEqual({
      exitCode: 3,
      signal: undefined,
      reason: TestRunEndReason.RUNNER_ERROR,
      message: "the runner ended with code 3; it wrote last:\nno config found",
    });
  });

  it("has crashed when a signal ended it, or what a shell started", async () => {
    const direct = await run(program(`process.kill(process.pid, "SIGSEGV"); ${forever}`));
    const shell = await run({ ...program(""), argv: ["/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"] });

    expect(direct.end).toMatchObject({ reason: TestRunEndReason.CRASHED, signal: "SIGSEGV" });
    expect(shell.end).toMatchObject({ reason: TestRunEndReason.CRASHED, exitCode: 137 });
    expect(shell.end.message).toContain("SIGKILL");
  });

  it("loses nothing of what it reported before it was killed", async () => {
    for (let round = 0; round < 20; round += 1) {
      await rm(spoolFile, { force: true });
      const kill = 1 + Math.floor(Math.random() * 2_000);
      const { end, events } = await run(
        program(`
          for (let i = 1; ; i += 1) {
            spool({ fileStarted: { file: String(i) } });
            if (i === ${kill}) process.kill(process.pid, "SIGKILL");
          }`),
      );

      expect(end).toMatchObject({ reason: TestRunEndReason.CRASHED, signal: "SIGKILL" });
      expect(files(events).length).toBeGreaterThanOrEqual(kill);
      expect(files(events)).toEqual(files(events).map((_, i) => String(i + 1)));
    }
  });

  it("leaves no process behind when it ends by itself", async () => {
    const { end } = await run(
      program(`${stubborn("stubborn")}
        const wait = setInterval(() => require("node:fs").existsSync("stubborn") && clearInterval(wait), 10);`),
    );

    expect(end.reason).toBe(TestRunEndReason.UNSPECIFIED);
    expect(lives(await pidIn("stubborn"))).toBe(false);
  });
});

describe("the warden", () => {
  /** A process that executes a stubborn runner, and that can be killed. */
  function startParent(): { readonly pid: number; readonly exited: Promise<unknown> } {
    const source = `
      import { execute } from ${JSON.stringify(join(import.meta.dirname, "execute.ts"))};
      await execute({
        prepared: ${JSON.stringify(program(`${stubborn("stubborn")} require("node:fs").writeFileSync("runner", String(process.pid)); process.on("SIGTERM", () => {}); ${forever}`))},
        directory: ${JSON.stringify(folder)},
        env: { MARKED: ${JSON.stringify(folder)} },
        signal: new AbortController().signal,
        graceMs: 200,
        spoolFile: ${JSON.stringify(spoolFile)},
        onEvents: async () => {},
      });`;
    const child = spawn(
      process.execPath,
      ["--conditions=toolplane-source", "--input-type=module", "-e", source],
      { stdio: ["ignore", "inherit", "inherit"], cwd: import.meta.dirname },
    );
    return { pid: child.pid ?? 0, exited: new Promise((resolve) => child.on("exit", resolve)) };
  }

  it("leaves no process behind when its parent is killed", async () => {
    const parent = startParent();
    const pids = [await pidIn("runner"), await pidIn("stubborn")];
    expect(pids.every(lives)).toBe(true);

    process.kill(parent.pid, "SIGKILL");
    await parent.exited;

    await expect.poll(() => processesOf(folder)).toEqual([]);
    await expect.poll(() => pids.filter(lives)).toEqual([]);
  });

  it("is not needed to stop the runner when it is killed itself", async () => {
    const running = run(
      program(`${stubborn("stubborn")}
        const { writeFileSync } = require("node:fs");
        writeFileSync("runner", String(process.pid));
        writeFileSync("warden", String(process.ppid));
        ${forever}`),
    );
    const pids = [await pidIn("runner"), await pidIn("stubborn")];
    process.kill(await pidIn("warden"), "SIGKILL");

    expect((await running).end).toMatchObject({ reason: TestRunEndReason.CRASHED });
    expect(pids.filter(lives)).toEqual([]);
  });

  it("ends a run inside of another one together with it", async () => {
    const inner = `
      import { execute } from ${JSON.stringify(join(import.meta.dirname, "execute.ts"))};
      await execute({
        prepared: ${JSON.stringify(program(`${stubborn("stubborn")} ${forever}`))},
        directory: ${JSON.stringify(folder)},
        env: {},
        signal: new AbortController().signal,
        graceMs: 200,
        spoolFile: ${JSON.stringify(join(folder, "inner"))},
        onEvents: async () => {},
      });`;
    const cancel = new AbortController();
    const running = run(
      {
        ...program(""),
        argv: [process.execPath, "--conditions=toolplane-source", "--input-type=module", "-e", inner],
      },
      { signal: cancel.signal },
    );
    const pid = await pidIn("stubborn");
    cancel.abort();
    await running;

    expect(lives(pid)).toBe(false);
  });
});

describe("files that a runner writes", () => {
  const read = async function* (path: string): AsyncGenerator<TestEventInit, void, undefined> {
    const text = await readFile(path, "utf8");
    yield { kind: { case: "fileStarted", value: { file: text } } };
    if (text === "broken") {
      throw new Error("line 1, column 7: not closed");
    }
  };

  it("are read when it has ended: those that match and are new", async () => {
    await mkdir(join(folder, "node_modules"));
    await mkdir(join(folder, "work"));
    for (const name of ["old.xml", "node_modules/new.xml"]) {
      await writeFile(join(folder, name), name);
    }
    await utimes(join(folder, "old.xml"), 1_000, 1_000);

    const { end, events } = await run(
      program(
        `const { writeFileSync } = require("node:fs");
        for (const name of ["b", "a", "c.txt", "work/d"]) writeFileSync(name.includes(".") ? name : name + ".xml", name);
        writeFileSync("node_modules/new.xml", "module");
        writeFileSync("lcov.info", "coverage");
        writeFileSync("z.xml", "broken");`,
        { reports: ["**/*.xml", "../*/*.xml"], coverageFiles: [join(folder, "*.info")] },
      ),
      { readReport: read, readCoverage: read },
    );

    expect(end.reason).toBe(TestRunEndReason.UNSPECIFIED);
    expect(files(events)).toEqual(["a", "b", "work/d", "broken", "coverage"]);
    expect(problems(events)).toEqual(["z.xml: line 1, column 7: not closed"]);
  });

  it("say by themselves what they are", async () => {
    const { end, events } = await run(
      program(
        `const { writeFileSync } = require("node:fs");
        writeFileSync("junit.xml", '<testsuite name="s"><testcase name="adds" classname="c"><failure message="no"/></testcase><testcase');
        writeFileSync("lcov.info", "SF:a.ts\\nDA:1,2\\nend_of_record\\n");
        process.exitCode = 2;`,
        { reports: ["*.xml"], coverageFiles: ["*.info"] },
      ),
    );

    // The code is none that stands for failed tests, but one did fail.
    expect(end).toMatchObject({ exitCode: 2, reason: TestRunEndReason.UNSPECIFIED });
    expect(events.map(({ kind }) => kind?.case)).toEqual(expect.arrayContaining(["testEnded", "coverage"]));
    expect(problems(events)).toEqual([expect.stringMatching(/^junit.xml, line 1/)]);
  });

  it("are missed", async () => {
    const { end } = await run(program(`console.log("nothing to do")`, { reports: ["out/*.xml"] }), {
      readReport: read,
    });

    expect(end.reason).toBe(TestRunEndReason.RUNNER_ERROR);
    expect(end.message).toBe(
      "the runner wrote no report: no file that matches out/*.xml is newer than its start; it wrote last:\nnothing to do",
    );
  });
});
