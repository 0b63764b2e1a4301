import { stripVTControlCharacters } from "node:util";
import type { TestFailure, TestResult } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { count, formatDuration } from "../output/format.ts";
import { oneLine, printable } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { testStatus, testTitle } from "./states.ts";

/** How many lines of a message, and of the place where it happened, are shown of a failure. */
const MESSAGE_LINES = 12;
const STACK_LINES = 4;

/** A test that did not do what it should, with why. */
export function renderFailure({ paint }: Terminal, result: TestResult): string[] {
  const { text, style } = testStatus(result.status, paint);
  const time = result.duration === undefined ? "" : paint.dim(`  ${formatDuration(result.duration)}`);
  const attempts =
    result.attempts.length > 1 ? paint.dim(`  ${count(result.attempts.length, "attempt")}`) : "";
  const title = `${style(text)}  ${paint.bold(oneLine(testTitle(result.test)))}${time}${attempts}`;
  const failures = result.attempts.findLast((attempt) => attempt.failures.length > 0)?.failures ?? [];
  const [first] = failures;
  if (first === undefined) {
    return result.message === "" ? [title] : [title, ...indented(lines(result.message, MESSAGE_LINES))];
  }
  const more = failures.length > 1 ? [paint.dim(`… ${count(failures.length - 1, "more failure")}`)] : [];
  return [title, ...indented([...renderReason(first, paint.dim), ...more])];
}

function renderReason(failure: TestFailure, dim: (text: string) => string): string[] {
  const hasBoth = failure.expected !== "" && failure.actual !== "";
  // Many frameworks say both in the message as well.
  const isSaid = failure.message.includes(failure.expected) && failure.message.includes(failure.actual);
  return [
    ...lines(failure.message || failure.type, MESSAGE_LINES),
    ...(hasBoth && !isSaid
      ? [
          ...lines(`expected ${failure.expected}`, STACK_LINES),
          ...lines(`actual   ${failure.actual}`, STACK_LINES),
        ]
      : []),
    ...lines(stackOnly(failure), STACK_LINES).map(dim),
  ];
}

/** The frames of a stack, without the message that it may begin with. */
function stackOnly({ stack }: TestFailure): string {
  const frames = stack.split("\n").filter((line) => /^\s*(at |❯|File "|\S+:\d+)/.test(line));
  return (frames.length > 0 ? frames : stack.split("\n")).map((line) => line.trim()).join("\n");
}

/** Text from elsewhere, as its first lines. */
function lines(text: string, most: number): string[] {
  const clean = printable(stripVTControlCharacters(text)).trimEnd();
  if (clean === "") return [];
  const all = clean.split("\n");
  return all.length <= most
    ? all
    : [...all.slice(0, most - 1), `… ${count(all.length - most + 1, "more line")}`];
}

function indented(texts: readonly string[]): string[] {
  return texts.map((text) => (text === "" ? "" : `    ${text}`));
}
