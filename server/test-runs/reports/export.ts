import type { ServiceImpl } from "@connectrpc/connect";
import { UnsupportedExportError, writeReport } from "@toolplane/client/formats";
import { invalidArgument } from "@toolplane/framework";
import type { FileCoverage, TestResult } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { Page, ResultPosition, TestRunQueries } from "../queries.ts";
import type { Runs } from "../runs.ts";

export interface ExporterOptions {
  readonly runs: Pick<Runs, "get">;
  readonly queries: Pick<TestRunQueries, "listResults" | "listCoverage">;
}

type ExportTestResults = ServiceImpl<typeof TestRunService>["exportTestResults"];

const MAX_CHUNK_BYTES = 64 * 1024;
const PAGE_SIZE = 500;

/** Writes runs as reports, reading no more of them than the next page. */
export function createExporter({ runs, queries }: ExporterOptions): ExportTestResults {
  return async function* ({ runId, format }, { signal }) {
    const run = await runs.get(runId);
    try {
      const { fileName, mediaType, text } = writeReport(format, {
        run,
        results: () =>
          allOf<TestResult, ResultPosition>(
            (after) => queries.listResults(runId, undefined, PAGE_SIZE, after),
            signal,
          ),
        coverage: () =>
          allOf<FileCoverage, string>((after) => queries.listCoverage(runId, "", PAGE_SIZE, after), signal),
      });
      let isFirst = true;
      for await (const data of chunksOf(text)) {
        yield isFirst ? { data, fileName, mediaType } : { data };
        isFirst = false;
      }
    } catch (error) {
      throw error instanceof UnsupportedExportError
        ? invalidArgument([{ field: "format", description: error.message }], error)
        : error;
    }
  };
}

async function* allOf<T, P>(
  read: (after: P | undefined) => Promise<Page<T, P>>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  let after: P | undefined;
  do {
    signal.throwIfAborted();
    const page = await read(after);
    yield* page.items;
    after = page.next;
  } while (after !== undefined);
}

/** At least one, each but the last full. */
async function* chunksOf(text: AsyncIterable<string>): AsyncGenerator<Uint8Array> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const part of text) {
    const bytes = Buffer.from(part);
    parts.push(bytes);
    size += bytes.length;
    if (size >= MAX_CHUNK_BYTES) {
      const all = Buffer.concat(parts);
      const whole = all.length - (all.length % MAX_CHUNK_BYTES);
      for (let from = 0; from < whole; from += MAX_CHUNK_BYTES) {
        yield all.subarray(from, from + MAX_CHUNK_BYTES);
      }
      parts = [all.subarray(whole)];
      size = all.length - whole;
    }
  }
  yield Buffer.concat(parts);
}
