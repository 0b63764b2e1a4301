import type { TestEventInit } from "./runner.ts";

/** More than this in waiting makes those who push wait. */
const MAX_WAITING_EVENTS = 5_000;
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/** Hands events of several sources on, one batch after another: what comes while one is on its way is the next. */
export interface EventSink {
  /** Takes the events at once; resolves when there is room for more. Never rejects. `bytes` is their rough size. */
  push(events: readonly TestEventInit[], bytes: number): Promise<void>;
  /** True while events wait or are on their way. */
  readonly busy: boolean;
  /** Resolves when everything was handed on. Rejects with what `deliver` failed with, after which nothing is. */
  end(): Promise<void>;
}

export function createEventSink(
  deliver: (events: TestEventInit[]) => Promise<void>,
  onFailure: () => void,
): EventSink {
  let waiting: TestEventInit[] = [];
  let waitingBytes = 0;
  let delivering: Promise<void> | undefined;
  let failure: { readonly cause: unknown } | undefined;

  async function deliverAll(): Promise<void> {
    while (waiting.length > 0 && !failure) {
      const batch = waiting;
      waiting = [];
      waitingBytes = 0;
      try {
        await deliver(batch);
      } catch (cause) {
        failure = { cause };
        waiting = [];
        waitingBytes = 0;
        onFailure();
      }
    }
    delivering = undefined;
  }

  const isFull = () => waiting.length > MAX_WAITING_EVENTS || waitingBytes > MAX_WAITING_BYTES;

  return {
    async push(events, bytes) {
      if (failure || events.length === 0) {
        return;
      }
      waiting.push(...events);
      waitingBytes += bytes;
      delivering ??= deliverAll();
      while (isFull()) {
        await delivering;
      }
    },
    get busy() {
      return delivering !== undefined;
    },
    async end() {
      await delivering;
      if (failure) {
        throw failure.cause;
      }
    },
  };
}
