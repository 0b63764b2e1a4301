import { createHash } from "node:crypto";
import type { RunFacts } from "../engine/step.ts";

/** The run that a call belongs to. Sent with every call that a run makes. */
export const RUN_HEADER = "x-toolplane-run";
/** How many runs stand above that run. */
export const RUN_DEPTH_HEADER = "x-toolplane-run-depth";

/** What servers take as a correlation id: see `correlationIdOf` in the framework. */
const MAX_CORRELATION_ID = 128;
const UNFIT_FOR_CORRELATION = /[^A-Za-z0-9._:/+=@-]/g;
/** Of the hash that stands for what does not fit. */
const HASH_LENGTH = 16;

/** What a run that another one starts has above it. */
export interface ParentRun {
  readonly runId: string;
  /** How many runs stand above the one that is started: 1 when a person started its parent. */
  readonly depth: number;
}

/** What stands above a run that this one starts. */
function parentFor(run: Pick<RunFacts, "id" | "depth">): ParentRun {
  return { runId: run.id, depth: run.depth + 1 };
}

/** What tells a called tool which run and step it is called by. */
export function runHeaders(run: Pick<RunFacts, "id" | "depth">, path: string): Headers {
  return new Headers({
    "x-correlation-id": correlationId(run.id, path),
    [RUN_HEADER]: run.id,
    [RUN_DEPTH_HEADER]: String(run.depth),
  });
}

/**
 * What stands above a run that is started by a call with these headers; undefined: no run made the call, or they are not
 * as a run writes them. Anybody can send such headers: whoever decides something by them has to look the run up.
 */
export function parentOf(headers: Headers): ParentRun | undefined {
  const runId = headers.get(RUN_HEADER) ?? "";
  const depth = headers.get(RUN_DEPTH_HEADER) ?? "";
  return /^[A-Za-z0-9_-]{1,64}$/.test(runId) && /^[0-9]{1,4}$/.test(depth)
    ? parentFor({ id: runId, depth: Number(depth) })
    : undefined;
}

/** `run/fetch`, or `run/notify:3:` for `notify[3]`; the end of a long path gives way to a hash of the whole. */
function correlationId(runId: string, path: string): string {
  const whole = `${runId}/${path}`;
  const fit = whole.replaceAll(UNFIT_FOR_CORRELATION, ":");
  if (fit.length <= MAX_CORRELATION_ID) {
    return fit;
  }
  const hash = createHash("sha256").update(whole).digest("hex").slice(0, HASH_LENGTH);
  return `${fit.slice(0, MAX_CORRELATION_ID - HASH_LENGTH - 1)}:${hash}`;
}
