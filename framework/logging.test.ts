import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createLogger } from "./logging.ts";

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
