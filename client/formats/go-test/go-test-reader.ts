import { create } from "@bufbuild/protobuf";
import { TestResultSchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { createGoTestParser } from "../../runners/go-test-json.ts";
import type { TestEventInit } from "../../runners/runner.ts";
import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createLineReader } from "../text/line-reader.ts";

/** Reads what `go test -json` writes. */
export function createGoTestReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const parser = createGoTestParser({ liveOutput: false });
  /** Packages that have begun and not ended. */
  const open = new Set<string>();
  let events = 0;
  let lastLine = 1;

  function follow({ kind }: TestEventInit): void {
    switch (kind?.case) {
      case "fileStarted":
        open.add(kind.value.file ?? "");
        break;
      case "testStarted":
        open.add(kind.value.test?.file ?? "");
        break;
      case "fileEnded":
        open.delete(kind.value.file ?? "");
    }
  }

  function take(made: ReturnType<typeof parser.line>): void {
    for (const event of made) {
      follow(event);
      sink.event(withProject(event, options.project));
    }
  }

  return createLineReader(
    {
      line({ text, number, complete }) {
        lastLine = number;
        const isEvent = text.trimStart().startsWith("{") && isJson(text);
        events += isEvent ? 1 : 0;
        if (!complete && !isEvent && text.trimStart().startsWith("{")) {
          sink.error("the report breaks off; what stands before was kept", `line ${number}`);
          return;
        }
        take(parser.line(text));
      },
      end() {
        if (events === 0) {
          sink.error("this is not what `go test -json` writes: no line is a JSON object", "line 1");
          return;
        }
        // What the parser says at the end may close packages of which the report does not tell the end.
        const [unfinished] = open;
        if (unfinished !== undefined && !sink.broken) {
          sink.error(
            `the report breaks off: the package ${unfinished} has not ended; what stands before was kept`,
            `line ${lastLine}`,
          );
        }
        take(parser.end());
      },
    },
    sink,
    limits,
  );
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function withProject(event: TestEventInit, project: string | undefined): TestEventInit {
  if (project === undefined || event.kind?.case !== "testEnded") {
    return event;
  }
  const result = create(TestResultSchema, event.kind.value);
  if (result.test !== undefined) {
    result.test.project = project;
  }
  return { ...event, kind: { case: "testEnded", value: result } };
}
