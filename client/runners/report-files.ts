import { createReadStream } from "node:fs";
import { relative } from "node:path";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { ProblemSeverity, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { parseReport } from "../formats/parse-report.ts";
import type { TestEventInit } from "./runner.ts";

/** Makes events of a file that a runner has written. What it throws becomes a problem that names the file. */
export type ReadFile = (path: string) => AsyncIterable<TestEventInit>;

/** Reads reports and coverage of all formats that are known, with paths relative to a root. */
export function reportReader(root: string): ReadFile {
  return (path) => parseReport(createReadStream(path), { root, fileName: path });
}

/** What a file says, and problems, which name the file, where it is broken. */
export async function* readSafely(
  read: ReadFile,
  path: string,
  root: string,
): AsyncGenerator<TestEventInit, void, undefined> {
  const name = relative(root, path);
  try {
    for await (const event of read(path)) {
      yield withFile(event, name);
    }
  } catch (error) {
    yield problem(error instanceof Error ? error.message : String(error), name);
  }
}

/** Readers of reports say where in the report a problem is. */
function withFile(init: TestEventInit, name: string): TestEventInit {
  if (init.kind?.case !== "problem") {
    return init;
  }
  const event = create(TestEventSchema, init);
  if (event.kind.case === "problem") {
    const { place } = event.kind.value;
    event.kind.value.place = (place ? `${name}, ${place}` : name).slice(0, 1_024);
  }
  return event;
}

/** Something that went wrong while a run was read. */
export function problem(message: string, place: string): TestEventInit {
  return {
    time: timestampNow(),
    kind: {
      case: "problem",
      value: {
        severity: ProblemSeverity.ERROR,
        message: message.slice(0, 65_536).toWellFormed(),
        place: place.slice(0, 1_024).toWellFormed(),
      },
    },
  };
}
