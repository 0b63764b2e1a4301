import { spawnSync } from "node:child_process";
import { PassThrough } from "node:stream";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { createLogger, unredacted } from "./logging.ts";

function captured(options: Parameters<typeof createLogger>[0]) {
  const destination = new PassThrough();
  const logger = createLogger({ ...options, destination });
  return { logger, text: () => String(destination.read() ?? "") };
}

test("lines are JSON with name, level and time", () => {
  const { logger, text } = captured({ name: "sample", format: "json" });
  logger.info({ port: 7400 }, "serving");
  expect(JSON.parse(text())).toMatchObject({
    name: "sample",
    level: "info",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    port: 7400,
    msg: "serving",
  });
});

test("credentials never reach a log", () => {
  const { logger, text } = captured({ format: "json" });
  const headers = { authorization: "Bearer s3cret", cookie: "s3cret", "x-api-key": "s3cret", accept: "*/*" };
  logger.info({ ...headers, headers, request: { headers }, token: "s3cret" }, "call");
  const line = text();
  expect(line).not.toContain("s3cret");
  expect(line).toContain("*/*");
});

test("lines below the level are not written", () => {
  const { logger, text } = captured({ level: "warn", format: "json" });
  logger.info("quiet");
  expect(text()).toBe("");
});

test("lines can be for people", () => {
  const { logger, text } = captured({ format: "pretty" });
  logger.warn({ lease: "30 s" }, "renewal failed");
  expect(text()).toMatch(/WARN.*renewal failed\n.*lease: "30 s"/s);
});

test("lines for people are coloured where they go to a terminal", () => {
  const terminal = Object.assign(new PassThrough(), { isTTY: true });
  createLogger({ destination: terminal }).info("serving");
  expect(String(terminal.read())).toContain("\u001b[");

  const { logger, text } = captured({ format: "pretty" });
  logger.info("serving");
  expect(text()).not.toContain("\u001b[");
});

test("what looks for no credentials still writes the same way to the same place", () => {
  const { logger, text } = captured({ name: "sample", format: "json" });
  unredacted(logger).info({ code: "ok" }, "call");
  const { time, ...line } = JSON.parse(text());
  expect(line).toEqual({ name: "sample", level: "info", code: "ok", msg: "call" });
  expect(time).toMatch(/^\d{4}-\d\d-\d\dT/);
});

test("a logger of one's own keeps what it hides", () => {
  const destination = new PassThrough();
  const own = pino({ redact: ["peer"] }, destination);
  unredacted(own).info({ peer: "127.0.0.1:1" }, "call");
  expect(String(destination.read())).not.toContain("127.0.0.1");
});

describe("to standard output", () => {
  /** What a process has written when it is over, line by line. */
  function linesOf(program: string): unknown[] {
    const { stdout, status } = spawnSync(
      process.execPath,
      [
        "--conditions=toolplane-source",
        "--input-type=module",
        "--eval",
        `import { createLogger } from ${JSON.stringify(new URL("./logging.ts", import.meta.url).href)};
         const logger = createLogger({ format: "json" });
         ${program}`,
      ],
      { encoding: "utf8" },
    );
    expect(status).toBe(0);
    return stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line).msg);
  }

  test("lines stay in order, and none is lost at an exit", () => {
    expect(
      linesOf(`
        logger.info("one");
        createLogger({ format: "json", name: "other" }).info("two");
        setTimeout(() => { logger.info("three"); logger.warn("four"); logger.info("five"); process.exit(0); }, 1);
      `),
    ).toEqual(["one", "two", "three", "four", "five"]);
  });

  test("warnings are written at once, with what came before them", () => {
    expect(
      linesOf(`
        logger.info("before");
        logger.warn("warned");
        logger.info("after");
        process.reallyExit(0);
      `),
    ).toEqual(["before", "warned"]);
  });
});
