import { create } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { isReadable, parseReport, type ReportOutcome } from "@toolplane/client/formats";
import { invalidArgument, type Principal, principalOf, wordRule } from "@toolplane/framework";
import {
  type Problem,
  ProblemSchema,
  ProblemSeverity,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestRunOrigin } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type CreateTestRunRequest,
  CreateTestRunRequestSchema,
  type ImportHeader,
  type ImportTestResultsRequest,
  type TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { fingerprintOf } from "../../fingerprint.ts";
import { refuseStranger } from "../../ownership.ts";
import { RESOURCE } from "../refusals.ts";
import type { NewRun, Runs } from "../runs.ts";
import { type ReportBytes, reportBytes } from "./report-bytes.ts";
import { coverageTarget, type ImportTarget, newRunTarget } from "./target.ts";

export interface ImporterOptions {
  readonly runs: Runs;
  /** How many bytes a report may have, before and after decompression. */
  readonly maxImportBytes: number;
}

type ImportTestResults = ServiceImpl<typeof TestRunService>["importTestResults"];

const DEFAULT_ENVIRONMENT = "default";
/** As many as the response names. */
const MAX_PROBLEMS = 1_000;

/**
 * Makes runs of reports. The run is made when the first result is read, so that a report of which nothing can be read
 * leaves none; one that breaks off later ends as INCOMPLETE. The sender is read only as fast as events become durable.
 */
export function createImporter({ runs, maxImportBytes }: ImporterOptions): ImportTestResults {
  const validator = createValidator();

  function checkRun(request: CreateTestRunRequest | undefined): CreateTestRunRequest {
    if (request === undefined) {
      throw invalidArgument([
        {
          field: "header.run",
          description: "is needed to make a run, with its project; or set header.run_id",
        },
      ]);
    }
    const result = validator.validate(CreateTestRunRequestSchema, request);
    switch (result.kind) {
      case "valid":
        return request;
      case "invalid":
        throw invalidArgument(
          result.violations.slice(0, 50).map(({ field, message }) => ({
            field: `header.run.${pathToString(field)}`,
            description: wordRule(message),
          })),
        );
      case "error":
        throw result.error;
    }
  }

  async function targetOf(
    header: ImportHeader,
    context: Pick<HandlerContext, "values">,
  ): Promise<ImportTarget> {
    const principal = principalOf(context.values);
    if (header.runId !== "") {
      const { createdBy } = await runs.identify(header.runId);
      refuseStranger({ type: RESOURCE, id: header.runId, createdBy }, principal);
      return coverageTarget(runs, header.runId);
    }
    return newRunTarget(runs, newRunOf(checkRun(header.run), principal));
  }

  return async (messages, context) => {
    const iterator = messages[Symbol.asyncIterator]();
    const first = await iterator.next();
    const header = first.done ? undefined : first.value.header;
    if (first.done || header === undefined) {
      throw invalidArgument([{ field: "header", description: "is needed in the first message" }]);
    }
    const target = await targetOf(header, context);
    const bytes = reportBytes(dataOf(first.value, iterator), maxImportBytes);
    const problems: Problem[] = [];
    try {
      const outcome = await read(bytes, header, target, problems);
      const failure = brokenBecause(outcome, bytes);
      if (failure !== undefined && !isReadable({ ...outcome, failure })) {
        throw invalidArgument([
          {
            field: "data",
            description: `${failure.message} (${placeOf(failure, header)})`,
            reason: "UNREADABLE_REPORT",
          },
        ]);
      }
      const run = await target.finish(
        failure === undefined
          ? ""
          : `The report is not complete: ${failure.message} (${placeOf(failure, header)})`,
      );
      return { run, problems };
    } catch (error) {
      await target.abandon("The import failed before the end of the report");
      throw error;
    }
  };
}

/** Gives all events of the report to the target. */
async function read(
  bytes: ReportBytes,
  { format, fileName, root }: ImportHeader,
  target: ImportTarget,
  problems: Problem[],
): Promise<ReportOutcome> {
  const events = parseReport(bytes, { format, fileName, root });
  for (let next = await events.next(); ; next = await events.next()) {
    if (next.done) {
      return next.value;
    }
    if (next.value.kind?.case === "problem" && problems.length < MAX_PROBLEMS) {
      problems.push(create(ProblemSchema, next.value.kind.value));
    }
    await target.add(next.value);
  }
}

/** Damaged compression is the cause of whatever it did to the report. */
function brokenBecause({ failure }: ReportOutcome, { brokenBecause }: ReportBytes): Problem | undefined {
  return brokenBecause === undefined
    ? failure
    : create(ProblemSchema, {
        severity: ProblemSeverity.ERROR,
        message: `${brokenBecause}${failure === undefined ? "" : `; ${failure.message}`}`,
        place: failure?.place ?? "end",
      });
}

function placeOf({ place }: Problem, { fileName }: ImportHeader): string {
  return [fileName, place].filter((part) => part !== "").join(", ");
}

async function* dataOf(
  first: ImportTestResultsRequest,
  iterator: AsyncIterator<ImportTestResultsRequest>,
): AsyncGenerator<Uint8Array> {
  yield first.data;
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    if (next.value.header !== undefined) {
      throw invalidArgument([{ field: "header", description: "belongs in the first message only" }]);
    }
    yield next.value.data;
  }
}

function newRunOf(request: CreateTestRunRequest, principal: Principal): NewRun {
  const { project, environment, framework, context, selection, silenceTimeout, requestId } = request;
  return {
    origin: TestRunOrigin.IMPORT,
    project,
    environment: environment || DEFAULT_ENVIRONMENT,
    framework,
    context,
    selection,
    createdBy: principal.id,
    ...(silenceTimeout && { silenceMs: durationMs(silenceTimeout) }),
    ...(requestId !== "" && {
      request: {
        id: requestId,
        fingerprint: fingerprintOf(CreateTestRunRequestSchema, { ...request, requestId: "" }),
      },
    }),
  };
}
