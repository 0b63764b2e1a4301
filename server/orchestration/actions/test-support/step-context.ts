import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { anonymous } from "@toolplane/framework";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { StepContext, ToldKind } from "../../engine/step.ts";

/** A step that takes note of what it is told. */
export interface NotedContext extends StepContext {
  readonly told: readonly ToldKind[];
}

export function stepContext(overrides: Partial<StepContext> = {}): NotedContext {
  const told: ToldKind[] = [];
  return {
    run: {
      id: "run-1",
      title: "A run",
      principal: anonymous,
      depth: 0,
      deadline: Date.now() + 3_600_000,
    },
    path: "step",
    attempt: 1,
    idempotencyKey: randomUUID(),
    signal: new AbortController().signal,
    startTime: Date.now(),
    timeoutMs: 20_000,
    tell: (kind) => told.push(kind),
    use: () => create(UsageSchema),
    nested: () => Promise.reject(new Error("this work has no parts")),
    recorded: () => undefined,
    ...overrides,
    told,
  };
}
