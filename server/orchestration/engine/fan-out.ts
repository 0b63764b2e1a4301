import type { JsonValue } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type Status, StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import type { Scope } from "../expressions/expression.ts";
import type { PlanFanOut } from "../plan.ts";
import { evaluateField, typeName } from "./scope.ts";
import type { StepEnd } from "./step.ts";

export const MAX_ITEMS = 10_000;

/** The items of a fan-out. Throws INVALID_ARGUMENT when they are no list, or too many. */
export function evaluateItems(fanOut: PlanFanOut, scope: Scope): readonly JsonValue[] {
  const items = evaluateField("for_each.items", fanOut.items, scope);
  if (!Array.isArray(items)) {
    throw badItems(`is ${typeName(items)}, and must be a list`, fanOut);
  }
  if (items.length > MAX_ITEMS) {
    throw badItems(`has ${items.length} items, and ${MAX_ITEMS} is the limit: divide it`, fanOut);
  }
  return items;
}

function badItems(what: string, { items }: PlanFanOut): DomainError {
  return new DomainError({
    code: Code.InvalidArgument,
    reason: "BAD_ITEMS",
    message: `for_each.items: \${${items.source}} ${what}`,
    fields: [{ field: "for_each.items", description: what }],
    metadata: { field: "for_each.items", expression: items.source },
  });
}

/** What the items of a fan-out have come to so far. */
export interface ItemResults {
  note(index: number, path: string, end: StepEnd): void;
  /** When all have ended. */
  end(): StepEnd;
}

export function collectItems(count: number, { continueOnFailure }: PlanFanOut): ItemResults {
  const outputs = new Array<JsonValue>(count).fill(null);
  let failed = 0;
  let first: { readonly index: number; readonly path: string; readonly error: Status } | undefined;
  return {
    note(index, path, end) {
      if (end.state === "succeeded") {
        outputs[index] = end.output;
      } else if (end.state === "failed") {
        failed += 1;
        if (first === undefined || index < first.index) {
          first = { index, path, error: end.error };
        }
      }
    },
    end() {
      if (first === undefined || continueOnFailure) {
        return { state: "succeeded", output: outputs };
      }
      const message = `${failed} of ${count} items failed; the first is ${first.path}: ${first.error.message}`;
      return { state: "failed", error: create(StatusSchema, { ...first.error, message }) };
    },
  };
}
