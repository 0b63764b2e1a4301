import { create } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { ModelDeltaSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { StepContext } from "../engine/step.ts";

/** What a model writes is told at most so often, in milliseconds, … */
const WINDOW_MS = 100;
/** … unless so many characters have come. */
const MAX_CHARACTERS = 8_192;

/** Gathers what a model writes, so that there is an event for many tokens. */
export interface Deltas {
  add(delta: { readonly text: string; readonly reasoning: string }): void;
  /** Tells what is left. Nothing may be added any more. */
  close(): void;
}

export function createDeltas(step: Pick<StepContext, "tell">, clock: Clock): Deltas {
  let text = "";
  let reasoning = "";
  let cancel: (() => void) | undefined;
  let isClosed = false;

  function flush(): void {
    cancel?.();
    cancel = undefined;
    if (text !== "" || reasoning !== "") {
      step.tell({ case: "modelDelta", value: create(ModelDeltaSchema, { text, reasoning }) });
      text = "";
      reasoning = "";
    }
  }

  return {
    add(delta) {
      if (isClosed) {
        return;
      }
      text += delta.text;
      reasoning += delta.reasoning;
      if (text.length + reasoning.length >= MAX_CHARACTERS) {
        flush();
      } else {
        cancel ??= clock.after(WINDOW_MS, flush);
      }
    },
    close() {
      isClosed = true;
      flush();
    },
  };
}
