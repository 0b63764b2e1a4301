import { createWriteStream } from "node:fs";
import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { EXPORT_FORMATS, type TestExportOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { findRun } from "../../input/run-name.ts";
import type { Output } from "../../io.ts";
import { UsageError } from "../../usage-error.ts";

export async function exportRun(
  context: Context,
  name: string,
  options: TestExportOptions,
): Promise<undefined> {
  const format = parseFormat(options.format);
  const { tests } = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(tests, name, { project: options.project, signal });
  const pieces = tests.exportTestResults({ runId, format }, { signal, timeoutMs: context.timeoutMs ?? 0 });
  // The file is made when the first piece is there: a run that does not exist leaves none behind.
  let output: Output | undefined;
  for await (const { data } of pieces) {
    output ??= options.output === undefined ? context.io.stdout : createWriteStream(options.output);
    await writeAll(output, data);
  }
  if (options.output === undefined) return;
  await close(output ?? createWriteStream(options.output));
  await context.note(`${context.paintErr.green("✓")} Wrote ${options.output}`);
}

/** Waits until the piece is written, so that what goes wrong is told here. */
function writeAll(output: Output, data: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => reject(error);
    output.once("error", fail);
    output.write(data, (error) => {
      output.off("error", fail);
      if (error) reject(error);
      else resolve();
    });
  });
}

function close(output: Output): Promise<void> {
  return new Promise((resolve, reject) => {
    output.once("error", reject);
    output.end(resolve);
  });
}

function parseFormat(text: string): ReportFormat {
  switch (text) {
    case "junit":
      return ReportFormat.JUNIT_XML;
    case "ctrf":
      return ReportFormat.CTRF;
    case "go-test":
      return ReportFormat.GO_TEST_JSON;
    default:
      throw new UsageError(`--format: "${text}" is not one of ${EXPORT_FORMATS.join(", ")}`);
  }
}
