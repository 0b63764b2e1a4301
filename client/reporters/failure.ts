import { stripVTControlCharacters } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TestFailureSchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { boundedName, boundedText } from "../runners/bounded-text.ts";

export type TestFailureInit = MessageInitShape<typeof TestFailureSchema>;

const MAX_FAILURES = 100;

/** What was thrown, as errors of all runners have it: much of it may be missing, anything may be of another type. */
export function failureOf(thrown: unknown): TestFailureInit {
  if (typeof thrown !== "object" || thrown === null) {
    return { message: textOf(thrown) };
  }
  const error = thrown as Readonly<Record<string, unknown>>;
  return {
    message: textOf(error["message"]) || firstLine(error["stack"]) || "an error without a message",
    type: boundedName(typeof error["name"] === "string" ? error["name"] : "", 256),
    stack: textOf(stackOf(error)),
    ...("expected" in error && { expected: describeValue(error["expected"]) }),
    ...("actual" in error && { actual: describeValue(error["actual"]) }),
  };
}

function firstLine(stack: unknown): string {
  return textOf(stack).split("\n", 1)[0] ?? "";
}

/** Where an error comes from, with what caused it, as Node prints errors. */
function stackOf(error: Readonly<Record<string, unknown>>, depth = 0): string {
  const { stack, cause } = error;
  const own = typeof stack === "string" ? stack : "";
  if (typeof cause !== "object" || cause === null || depth === 5) {
    return own;
  }
  const below = cause as Readonly<Record<string, unknown>>;
  const caused = stackOf(below, depth + 1) || String(below["message"] ?? "");
  return caused === "" || own.includes(caused) ? own : `${own}\nCaused by: ${caused}`;
}

export function failuresOf(thrown: readonly unknown[] | null | undefined): TestFailureInit[] {
  return (thrown ?? []).slice(0, MAX_FAILURES).map(failureOf);
}

/** Runners colour messages for terminals. */
export function textOf(value: unknown): string {
  if (value === undefined || value === null) {
    return "";
  }
  return boundedText(stripVTControlCharacters(typeof value === "string" ? value : String(value)));
}

/** A value for people: as it is when it is text, else as JSON where it has one. */
export function describeValue(value: unknown): string {
  if (value === undefined || value === null) {
    return value === null ? "null" : "";
  }
  try {
    return textOf(typeof value === "object" ? (JSON.stringify(value) ?? String(value)) : value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
