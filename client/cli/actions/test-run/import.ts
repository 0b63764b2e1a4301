import { randomUUID } from "node:crypto";
import { open } from "node:fs/promises";
import { basename } from "node:path";
import type { Readable } from "node:stream";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { TestRunContextSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type CreateTestRunRequest,
  type ImportTestResultsRequestSchema,
  type ImportTestResultsResponse,
  ImportTestResultsResponseSchema,
  ReportFormat,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { IMPORT_FORMATS, type TestImportOptions } from "../../commands/test-report.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { findRun } from "../../input/run-name.ts";
import { oneLine } from "../../output/text-width.ts";
import { isError } from "../../test-view/live-run.ts";
import { renderSummary } from "../../test-view/summary.ts";
import { UsageError } from "../../usage-error.ts";
import { toMadeRun } from "./made-run.ts";
import { exitCodeOfRun } from "./watch.ts";

type ImportRequest = MessageInitShape<typeof ImportTestResultsRequestSchema>;

/** The most bytes that one message may have. */
const PIECE_BYTES = 1024 * 1024;

/** How many problems of a report are named. */
const MAX_PROBLEMS = 10;

export async function importReports(
  context: Context,
  files: readonly string[],
  options: TestImportOptions,
): Promise<number> {
  const format = parseFormat(options.format);
  const { tests } = await context.connect();
  const { signal } = context.io;
  const runId =
    options.run === undefined ? "" : await findRun(tests, options.run, { project: options.project, signal });
  const run = runId === "" ? await toMadeRun(context, options, process.cwd()) : undefined;
  let worst: number = ExitCode.ok;
  for (const file of files) {
    const header = {
      format,
      fileName: file === "-" ? "" : basename(file),
      runId,
      root: options.root ?? "",
      ...(run && { run: importedRun(run, options) }),
    };
    // Opened before anything is sent: a file that is not there is no matter of the server's.
    const content =
      file === "-" ? context.io.stdin : (await open(file)).createReadStream({ highWaterMark: PIECE_BYTES });
    const response = await tests.importTestResults(messages(header, content), {
      signal,
      timeoutMs: context.timeoutMs ?? 0,
    });
    await print(context, file, response);
    if (response.run !== undefined) worst = Math.max(worst, exitCodeOfImport(response));
  }
  return worst;
}

/** What is here says nothing about where an imported report was made, besides the code. */
function importedRun(run: CreateTestRunRequest, options: TestImportOptions): CreateTestRunRequest {
  const { commit = "", branch = "", dirty = false, buildUrl = "", labels = {} } = run.context ?? {};
  return {
    ...run,
    framework: options.framework ?? "",
    context: create(TestRunContextSchema, { commit, branch, dirty, buildUrl, labels }),
    requestId: randomUUID(),
  };
}

async function* messages(
  header: NonNullable<ImportRequest["header"]>,
  content: Readable,
): AsyncGenerator<ImportRequest, void, undefined> {
  yield { header };
  for await (const piece of content as AsyncIterable<Uint8Array | string>) {
    const data = typeof piece === "string" ? Buffer.from(piece) : piece;
    for (let start = 0; start < data.length; start += PIECE_BYTES) {
      yield { data: data.subarray(start, start + PIECE_BYTES) };
    }
  }
}

/** An import that brought a run of failed tests has done what it should; one that lost something has not. */
function exitCodeOfImport({ run, problems }: ImportTestResultsResponse): number {
  if (problems.some(isError)) return ExitCode.incomplete;
  const code = run === undefined ? ExitCode.ok : exitCodeOfRun(run);
  return code === ExitCode.failure ? ExitCode.ok : code;
}

async function print(context: Context, file: string, response: ImportTestResultsResponse): Promise<void> {
  if (context.json) return await context.printMessage(ImportTestResultsResponseSchema, response);
  if (response.run !== undefined) await context.print(renderSummary(context, response.run).join("\n"));
  for (const { message, place } of response.problems.slice(0, MAX_PROBLEMS)) {
    const where = [file, place].filter((part) => part !== "").join(", ");
    await context.note(context.paintErr.yellow(`▲ ${oneLine(message)} (${oneLine(where)})`));
  }
  const hidden = response.problems.length - MAX_PROBLEMS;
  if (hidden > 0) await context.note(context.paintErr.dim(`  … and ${hidden} more problems`));
}

function parseFormat(text: string | undefined): ReportFormat {
  switch (text) {
    case undefined:
      return ReportFormat.UNSPECIFIED;
    case "junit":
      return ReportFormat.JUNIT_XML;
    case "ctrf":
      return ReportFormat.CTRF;
    case "go-test":
      return ReportFormat.GO_TEST_JSON;
    case "lcov":
      return ReportFormat.LCOV;
    case "istanbul":
      return ReportFormat.ISTANBUL_JSON;
    case "cobertura":
      return ReportFormat.COBERTURA;
    case "go-cover":
      return ReportFormat.GO_COVER;
    default:
      throw new UsageError(`--format: "${text}" is not one of ${IMPORT_FORMATS.join(", ")}`);
  }
}
