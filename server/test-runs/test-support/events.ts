import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestIdentitySchema, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunOrigin } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { EventLog } from "../../event-log/event-log.ts";
import type { NewRun } from "../runs.ts";

type Kind = NonNullable<MessageInitShape<typeof TestEventSchema>["kind"]>;

export function event(kind: Kind): TestEvent {
  return create(TestEventSchema, { kind });
}

export function identity(name: string): MessageInitShape<typeof TestIdentitySchema> {
  return { framework: "vitest", project: "shop", file: `${name[0]}.test.ts`, suitePath: ["cart"], name };
}

export function started(name: string, attempt = 0): TestEvent {
  return event({ case: "testStarted", value: { test: identity(name), attempt } });
}

/** A test that ended after 5 ms; a failed one says why. */
export function ended(name: string, status = TestStatus.PASSED, message = `${name} broke`): TestEvent {
  const isFailure = status === TestStatus.FAILED || status === TestStatus.ERROR;
  return event({
    case: "testEnded",
    value: {
      test: identity(name),
      status,
      duration: { nanos: 5_000_000 },
      attempts: isFailure ? [{ status, failures: [{ message, type: "AssertionError" }] }] : [],
    },
  });
}

export function found(...names: readonly string[]): TestEvent {
  return event({ case: "testsFound", value: { tests: names.map(identity) } });
}

export function wrote(text: string): TestEvent {
  return event({ case: "output", value: { text } });
}

/** A run that a reporter fills. */
export function reported(run: Partial<NewRun> = {}): NewRun {
  return {
    origin: TestRunOrigin.REPORT,
    project: "shop",
    environment: "ci",
    framework: "vitest",
    createdBy: "user:ada",
    ...run,
  };
}

/** Everything that was written down about a run. */
export async function allEvents(eventLog: EventLog, runId: string): Promise<TestEvent[]> {
  const events: TestEvent[] = [];
  for (;;) {
    const page = await eventLog.read(runId, events.length, 1_000);
    if (page.events.length === 0) {
      return events;
    }
    events.push(...page.events.map((bytes) => fromBinary(TestEventSchema, bytes)));
  }
}
