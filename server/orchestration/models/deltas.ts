import { create } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { ModelDeltaSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { StepContext } from "../engine/step.ts";
import type { Redactor } from "../store/redact.ts";

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

/** What may be the beginning of a secret waits for the rest, so that none is told in two halves. */
export function createDeltas(
  step: Pick<StepContext, "tell">,
  { clock, redactor }: { readonly clock: Clock; readonly redactor: Pick<Redactor, "text" | "unfinished"> },
): Deltas {
  let text = "";
  let reasoning = "";
  let cancel: (() => void) | undefined;
  let isClosed = false;

  function flush(): void {
    cancel?.();
    cancel = undefined;
    const [toldText, nextText] = split(text);
    const [toldReasoning, nextReasoning] = split(reasoning);
    if (toldText !== "" || toldReasoning !== "") {
      const value = create(ModelDeltaSchema, { text: toldText, reasoning: toldReasoning });
      step.tell({ case: "modelDelta", value });
      text = nextText;
      reasoning = nextReasoning;
    }
  }

  /** What is told now, and what waits for what comes next. */
  function split(gathered: string): readonly [string, string] {
    const masked = redactor.text(gathered);
    const end = masked.length - (isClosed ? 0 : redactor.unfinished(masked));
    return [masked.slice(0, end), masked.slice(end)];
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
