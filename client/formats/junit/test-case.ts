import { fromJsonString, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type AttachmentSchema,
  type TestFailureSchema,
  TestIdentitySchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { type BoundedText, boundedText } from "../../runners/bounded-text.ts";
import {
  attachmentOf,
  boundedFailure,
  boundedIdentity,
  boundedProperties,
  boundedTags,
  MAX,
} from "../limits.ts";
import { type AttemptInit, type IdentityInit, readableText, type TestResultInit } from "../report-sink.ts";
import type { XmlAttributes } from "../xml/xml-reader.ts";
import type { Producer } from "./identity.ts";
import { MARK } from "./marks.ts";
import { parseCount, parseSeconds, parseTimestamp } from "./numbers.ts";

type FailureInit = MessageInitShape<typeof TestFailureSchema>;

/** A `<failure>`, `<error>` or one of Surefire's elements for reruns, with what is inside of it. */
export interface FailureElement {
  readonly element: string;
  readonly attributes: XmlAttributes;
  /** The text of the element or of the `<stackTrace>` in it. */
  readonly body: BoundedText;
  readonly stdout: BoundedText;
  readonly stderr: BoundedText;
}

/** A `<testcase>` while it is read. */
export interface TestCase {
  readonly attributes: XmlAttributes;
  readonly producer: Producer;
  readonly identity: IdentityInit;
  readonly failures: FailureElement[];
  /** Undefined: there was no `<skipped>`. */
  skipped: { readonly type: string; readonly message: string; readonly body: BoundedText } | undefined;
  readonly properties: (readonly [string, string])[];
  readonly stdout: BoundedText;
  readonly stderr: BoundedText;
}

const NOT_RUN_STATUSES = /^(notrun|not_?run|disabled|skipped|suppressed|ignored|pending)$/i;

/** The names under which a status of ours is marked. */
const MARKED_STATUSES: Readonly<Record<string, number>> = Object.fromEntries(
  Object.entries(TestStatus).filter((entry): entry is [string, TestStatus] => Number(entry[1]) > 0),
);

/** What became of the test. */
export function resultOf(test: TestCase): TestResultInit {
  const { attributes, properties } = test;
  const attempts = attemptsOf(test);
  const status = markedStatus(test) ?? attempts.at(-1)?.status ?? TestStatus.PASSED;
  const duration = parseSeconds(attributes["time"]);
  const startTime = parseTimestamp(attributes["timestamp"]);
  const last = attempts.at(-1);
  const tells = attempts.length > 1 || last?.failures?.length || last?.stdout || last?.stderr;
  return {
    test: markedIdentity(test) ?? test.identity,
    status,
    ...(duration !== undefined && { duration }),
    ...(startTime !== undefined && { startTime }),
    attempts: tells ? [...attempts.slice(0, -1), { ...last, status, ...(duration && { duration }) }] : [],
    tags: boundedTags(valuesOf(test, MARK.tag)),
    message: boundedText(
      readableText(valuesOf(test, MARK.message)[0] ?? (test.skipped && skipMessage(test.skipped)) ?? ""),
    ),
    line: parseCount(attributes["line"]) ?? 0,
    attachments: attachmentsIn(test),
    traceId: valuesOf(test, MARK.traceId).find((id) => /^[0-9a-f]{32}$/.test(id)) ?? "",
    properties: boundedProperties(properties.filter(([name]) => !name.startsWith("toolplane."))),
  };
}

/** The executions in order; Surefire writes those after a first failure, and those before a pass, as reruns. */
function attemptsOf(test: TestCase): AttemptInit[] {
  const flaky = test.failures.filter(({ element }) => element.startsWith("flaky"));
  const reruns = test.failures.filter(({ element }) => element.startsWith("rerun"));
  const own: AttemptInit = {
    status: ownStatus(test),
    failures: test.failures
      .filter(({ element }) => element === "failure" || element === "error")
      .slice(0, MAX.failures)
      .map(failureOf),
    stdout: test.stdout.toString(),
    stderr: test.stderr.toString(),
  };
  const all = [...flaky.map(rerunOf), own, ...reruns.map(rerunOf)];
  // The last ones tell how it ended.
  return all.slice(-MAX.attempts);
}

function rerunOf(failure: FailureElement): AttemptInit {
  const duration = parseSeconds(failure.attributes["time"]);
  const startTime = parseTimestamp(failure.attributes["timestamp"]);
  return {
    status: failure.element.endsWith("Error") ? TestStatus.ERROR : TestStatus.FAILED,
    ...(duration !== undefined && { duration }),
    ...(startTime !== undefined && { startTime }),
    failures: [failureOf(failure)],
    stdout: failure.stdout.toString(),
    stderr: failure.stderr.toString(),
  };
}

function failureOf({ attributes, body }: FailureElement): FailureInit {
  return boundedFailure({ message: attributes["message"], type: attributes["type"], stack: body.toString() });
}

/** How the execution that is no rerun ended. */
function ownStatus({ producer, attributes, failures, skipped }: TestCase): TestStatus {
  const failure = failures.find(({ element }) => element === "failure");
  if (failure !== undefined) {
    const passed = producer === "pytest" && attributeStarts(failure, "[XPASS(strict)]");
    return passed ? TestStatus.UNEXPECTED_PASS : TestStatus.FAILED;
  }
  if (failures.some(({ element }) => element === "error")) {
    return TestStatus.ERROR;
  }
  if (skipped !== undefined) {
    return skippedStatus(skipped);
  }
  return statusOfAttributes(attributes);
}

function attributeStarts({ attributes }: FailureElement, text: string): boolean {
  return attributes["message"]?.startsWith(text) ?? false;
}

function skippedStatus({ type, message }: { readonly type: string; readonly message: string }): TestStatus {
  switch (type.toLowerCase()) {
    case "pytest.xfail":
      return TestStatus.EXPECTED_FAILURE;
    case "todo":
      return TestStatus.TODO;
    default:
      return /^todo$/i.test(message.trim()) ? TestStatus.TODO : TestStatus.SKIPPED;
  }
}

/** GoogleTest and CTest tell tests that did not run by attributes alone. */
function statusOfAttributes(attributes: XmlAttributes): TestStatus {
  const told = [attributes["status"] ?? "", attributes["result"] ?? ""];
  if (told.some((status) => NOT_RUN_STATUSES.test(status))) {
    return TestStatus.SKIPPED;
  }
  if (told.some((status) => /^(fail|failed|failure)$/i.test(status))) {
    return TestStatus.FAILED;
  }
  return told.some((status) => /^error$/i.test(status)) ? TestStatus.ERROR : TestStatus.PASSED;
}

function skipMessage({ message, body }: { readonly message: string; readonly body: BoundedText }): string {
  return message || body.toString().trim();
}

function valuesOf({ properties }: TestCase, wanted: string): string[] {
  return properties.filter(([name]) => name === wanted).map(([, value]) => value);
}

function markedStatus(test: TestCase): TestStatus | undefined {
  return MARKED_STATUSES[valuesOf(test, MARK.status)[0] ?? ""];
}

function markedIdentity(test: TestCase): IdentityInit | undefined {
  const text = valuesOf(test, MARK.test)[0];
  if (text === undefined) {
    return undefined;
  }
  try {
    const { $typeName: _, ...identity } = fromJsonString(TestIdentitySchema, text, {
      ignoreUnknownFields: true,
    });
    return boundedIdentity({ ...identity, project: test.identity.project ?? "" });
  } catch {
    // Someone else's property, or a cut one: the elements tell.
    return undefined;
  }
}

/** The convention of Jenkins and GitLab: `[[ATTACHMENT|path]]` in what the test wrote. */
function attachmentsIn(test: TestCase): MessageInitShape<typeof AttachmentSchema>[] {
  const written = test.stdout.empty ? "" : test.stdout.toString();
  return [...written.matchAll(/\[\[ATTACHMENT\|([^\]\n]{1,2048})\]\]/g)]
    .flatMap((match) => attachmentOf(match[1] ?? "") ?? [])
    .slice(0, MAX.attachments);
}
