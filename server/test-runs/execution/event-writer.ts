import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { Code } from "@connectrpc/connect";
import type { TestEventInit } from "@toolplane/client/runners";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  ProblemSeverity,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { OWNER_LEASE_MS } from "../leases.ts";
import type { Runs } from "../runs.ts";

/** Under this name the server reports what its own runners say. */
const REPORTER = "server";
/** What is appended at once. */
const MAX_BATCH = 2_000;
/** How long the store may be away: as long as the run is certain to be this replica's. */
const MAX_TROUBLE_MS = OWNER_LEASE_MS;
const MAX_PAUSE_MS = 2_000;

export interface EventWriterOptions {
  readonly runs: Pick<Runs, "append">;
  readonly runId: string;
  readonly clock: Clock;
}

/**
 * Appends events of a run in order, again where the store was away: what it had taken is recognised by its position. That
 * somebody cancelled the run is heard from its lease.
 */
export function createEventWriter({ runs, runId, clock }: EventWriterOptions) {
  let position = 0;
  return {
    async write(events: readonly TestEventInit[]): Promise<void> {
      for (let start = 0; start < events.length; start += MAX_BATCH) {
        const batch = events.slice(start, start + MAX_BATCH).map(reportable);
        await withPatience(clock, () => runs.append(runId, REPORTER, position + 1, batch));
        position += batch.length;
      }
    },
  };
}

/** The event, or a problem in the place of one that makes no sense or that only the server may write. */
function reportable(init: TestEventInit): TestEvent {
  const event = create(TestEventSchema, init);
  const mistake = mistakeIn(event);
  return mistake === undefined
    ? event
    : create(TestEventSchema, {
        kind: {
          case: "problem",
          value: {
            severity: ProblemSeverity.ERROR,
            message: `what the reporter sent as "${event.kind.case ?? "nothing"}" was left out: ${mistake}`,
          },
        },
      });
}

const validator = createValidator();

function mistakeIn(event: TestEvent): string | undefined {
  switch (event.kind.case) {
    case "created":
    case "started":
    case "ended":
      return "only the server says that";
    case undefined:
      return "it is of no known kind";
    default: {
      const result = validator.validate(TestEventSchema, event);
      return result.kind === "valid" ? undefined : result.error.message.slice(0, 2_000);
    }
  }
}

/** Tries again for a while when the store fails; what it refuses, it refuses. */
export async function withPatience<T>(clock: Clock, work: () => Promise<T>): Promise<T> {
  const deadline = clock.monotonic() + MAX_TROUBLE_MS;
  for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS)) {
    try {
      return await work();
    } catch (error) {
      if (isRefusal(error) || clock.monotonic() >= deadline) {
        throw error;
      }
      await new Promise<void>((resolve) => {
        clock.after(pauseMs, resolve);
      });
    }
  }
}

function isRefusal(error: unknown): boolean {
  return (
    error instanceof DomainError && error.init.code !== Code.Unavailable && error.init.code !== Code.Aborted
  );
}
