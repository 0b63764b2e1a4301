import type { ActionKind } from "../plan.ts";
import type { RunControl } from "./engine.ts";

/** Knows whether all that a run does at the moment is to wait for what it has started elsewhere. */
export interface Idling {
  during<T>(kind: ActionKind, work: () => Promise<T>): Promise<T>;
}

export function createIdling(onIdle: RunControl["onIdle"] = () => {}): Idling {
  let working = 0;
  let waiting = 0;
  let isIdle = false;

  function tell(): void {
    // Steps that wait for room, for a person or for a time do nothing either.
    const now = waiting > 0 && working === 0;
    if (now !== isIdle) {
      isIdle = now;
      onIdle(now);
    }
  }

  return {
    async during(kind, work) {
      const waits = kind === "workflow" || kind === "test_run" ? 1 : 0;
      waiting += waits;
      working += 1 - waits;
      tell();
      try {
        return await work();
      } finally {
        waiting -= waits;
        working -= 1 - waits;
        tell();
      }
    },
  };
}
