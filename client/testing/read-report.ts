import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import {
  type Problem,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { FileCoverage, TestResult } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { type ParseReportOptions, parseReport, type ReportOutcome } from "../formats/index.ts";

export interface ReadReport {
  readonly events: readonly TestEvent[];
  readonly results: readonly TestResult[];
  readonly files: readonly FileCoverage[];
  readonly problems: readonly Problem[];
  readonly outcome: ReportOutcome;
}

const validator = createValidator();

/** Reads a report as a whole. Throws when an event is not as the contract wants it. */
export async function readReport(
  report: string | Uint8Array | readonly Uint8Array[],
  options: ParseReportOptions = {},
): Promise<ReadReport> {
  const chunks =
    typeof report === "string" ? [Buffer.from(report)] : report instanceof Uint8Array ? [report] : report;
  const events: TestEvent[] = [];
  const reading = parseReport(
    (async function* () {
      yield* chunks;
    })(),
    options,
  );
  for (let next = await reading.next(); ; next = await reading.next()) {
    if (next.done) {
      return {
        events,
        results: events.flatMap(({ kind }) => (kind.case === "testEnded" ? [kind.value] : [])),
        files: events.flatMap(({ kind }) => (kind.case === "coverage" ? kind.value.files : [])),
        problems: events.flatMap(({ kind }) => (kind.case === "problem" ? [kind.value] : [])),
        outcome: next.value,
      };
    }
    const event = create(TestEventSchema, next.value);
    const checked = validator.validate(TestEventSchema, event);
    if (checked.kind !== "valid") {
      throw checked.error;
    }
    events.push(event);
  }
}
