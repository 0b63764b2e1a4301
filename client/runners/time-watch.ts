import { type Clock, MAX_TIMER_MS } from "@toolplane/framework";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { StopReason } from "./runner-end.ts";

export interface TimeWatchOptions {
  readonly clock: Clock;
  /** How long the runner may take. Undefined: as long as it likes. */
  readonly timeoutMs: number | undefined;
  /** How long it may say nothing. Undefined: as long as it likes. */
  readonly silenceMs: number | undefined;
  /** While this is true, silence does not count. */
  readonly isExcused: () => boolean;
  readonly stop: (reason: StopReason) => void;
}

export interface TimeWatch {
  /** The runner said something. */
  onActivity(): void;
  close(): void;
}

/** Stops a runner that takes too long, or says nothing for too long. */
export function watchTime({ clock, timeoutMs, silenceMs, isExcused, stop }: TimeWatchOptions): TimeWatch {
  let lastActivity = clock.monotonic();
  const cancels: (() => void)[] = [];
  let cancelSilence: (() => void) | undefined;

  function watchSilence(limitMs: number): void {
    if (isExcused()) {
      lastActivity = clock.monotonic();
    }
    const restMs = lastActivity + limitMs - clock.monotonic();
    if (restMs > 0) {
      cancelSilence = clock.after(restMs, () => watchSilence(limitMs));
      return;
    }
    stop({
      reason: TestRunEndReason.SILENT,
      message:
        `the runner neither reported nor wrote anything for ${seconds(limitMs)} and was stopped: ` +
        "a test hangs, or the silence timeout is too short",
    });
  }

  if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
    const message = `the runner took longer than ${seconds(timeoutMs)} and was stopped: a test hangs, or the timeout is too short`;
    cancels.push(clock.after(timeoutMs, () => stop({ reason: TestRunEndReason.TIMEOUT, message })));
  }
  if (silenceMs !== undefined && silenceMs <= MAX_TIMER_MS) {
    watchSilence(silenceMs);
  }

  return {
    onActivity() {
      lastActivity = clock.monotonic();
    },
    close() {
      cancelSilence?.();
      for (const cancel of cancels) {
        cancel();
      }
    },
  };
}

function seconds(ms: number): string {
  return `${ms / 1_000} s`;
}
