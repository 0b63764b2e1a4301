import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import {
  type CreateTestRunRequest,
  CreateTestRunRequestSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { CommandEnd } from "../../../reporting/uploader.ts";
import { UsageError } from "../../usage-error.ts";

/** What a report consists of, in a folder of its own, until the server has it. */
export interface KeptReport {
  readonly folder: string;
  /** All events, one a line, in the order in which they are uploaded. */
  readonly eventsFile: string;
  /** To which reporters inside of the runner write. */
  readonly runnerFile: string;
  /** Empty, for the runner. */
  readonly workFolder: string;
  readonly run: CreateTestRunRequest;
  /** Undefined: the command has not ended, or nobody was there to see it. */
  readonly end: CommandEnd | undefined;
}

const RUN_FILE = "run.json";

/** Makes the folder and writes down which run it is. */
export async function createReport(run: CreateTestRunRequest): Promise<KeptReport> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  const report = reportIn(folder, run, undefined);
  await save(report);
  return report;
}

/** Writes down how the command ended. */
export async function keepEnd(report: KeptReport, end: CommandEnd): Promise<void> {
  await save({ ...report, end });
}

/** Throws a `UsageError` when the folder holds no report. */
export async function openReport(folder: string): Promise<KeptReport> {
  const path = join(folder, RUN_FILE);
  if (!existsSync(path)) throw new UsageError(`${folder} holds no report of tests`);
  const { run, end } = JSON.parse(await readFile(path, "utf8")) as { run: JsonValue; end?: CommandEnd }; // As `save` writes it.
  return reportIn(folder, fromJson(CreateTestRunRequestSchema, run), end);
}

export async function removeReport({ folder }: KeptReport): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}

function reportIn(folder: string, run: CreateTestRunRequest, end: CommandEnd | undefined): KeptReport {
  return {
    folder,
    eventsFile: join(folder, "events.jsonl"),
    runnerFile: join(folder, "runner.jsonl"),
    workFolder: join(folder, "work"),
    run,
    end,
  };
}

async function save({ folder, run, end }: KeptReport): Promise<void> {
  const content = { run: toJson(CreateTestRunRequestSchema, run), ...(end && { end }) };
  await writeFile(join(folder, RUN_FILE), JSON.stringify(content), { mode: 0o600 });
}
