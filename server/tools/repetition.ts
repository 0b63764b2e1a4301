import type { Clock } from "@toolplane/framework";
import {
  createByteLru,
  createHedger,
  createRetrier,
  createRetryBudget,
  type Failure,
  type GiveUpReason,
  type HedgeEvent,
  type Hedger,
  type Retrier,
  type RetryEvent,
} from "@toolplane/framework/policies";
import type { OutboundSettings } from "../config/outbound.ts";
import { AttemptFailure } from "./attempt.ts";

/** Services whose budgets are remembered. */
const REMEMBERED = 5_000;

/** The circumstances of a call. */
export interface RepeatedCall {
  /** Whether it may reach a backend twice. */
  readonly repeatable: boolean;
  readonly signal: AbortSignal;
  /** In milliseconds since 1970. */
  readonly deadline: number;
  /** How often it is tried in all. */
  readonly attempts: number;
  /** When a second attempt starts beside the first, in milliseconds; undefined: never. */
  readonly hedgeDelayMs: number | undefined;
}

/** Attempts after and beside the first. */
export interface Repetition {
  /**
   * Makes attempts until one succeeds or there is no point in another. Each service has a budget of its own, so that one
   * in trouble does not use up what the others may need.
   */
  run<T>(service: string, attempt: AttemptWork<T>, call: RepeatedCall): Promise<T>;
  stats(): RepetitionStats;
}

/** Counted since the start. */
export interface RepetitionStats {
  /** Calls that were not tried again although they had failed, by why. */
  readonly gaveUp: ReadonlyMap<GiveUpReason, number>;
  /** Second attempts that the budget did not have room for. */
  readonly hedgesDenied: number;
}

/**
 * Makes one attempt.
 *
 * @param lost aborted when another attempt was faster, even if this one has succeeded too; undefined: there is no other
 */
export type AttemptWork<T> = (signal: AbortSignal, lost?: AbortSignal) => Promise<T>;

/** There is nothing left that another attempt could be sent to. */
export class NothingLeftError extends Error {
  override readonly name = "NothingLeftError";

  constructor() {
    super("no instance is left to try");
  }
}

/** What is kept of one service. */
interface Repeaters {
  readonly retrier: Retrier;
  hedger(delayMs: number): Hedger;
}

export function createRepetition(
  settings: OutboundSettings["retry"],
  clock: Clock,
  random: () => number,
): Repetition {
  const services = createByteLru<Repeaters>({ maxEntries: REMEMBERED });
  const gaveUp = new Map<GiveUpReason, number>();
  let hedgesDenied = 0;

  function onRetry(event: RetryEvent): void {
    if (event.kind === "gave-up") {
      gaveUp.set(event.reason, (gaveUp.get(event.reason) ?? 0) + 1);
    }
  }

  function onHedge({ kind }: HedgeEvent): void {
    hedgesDenied += kind === "denied" ? 1 : 0;
  }

  function repeatersOf(service: string): Repeaters {
    const found = services.get(service);
    if (found) {
      return found;
    }
    const budget = createRetryBudget({ ratio: settings.budget, clock });
    const hedgers = new Map<number, Hedger>();
    const made: Repeaters = {
      retrier: createRetrier({
        classify,
        attempts: settings.attempts,
        baseDelayMs: settings.baseDelayMs,
        maxDelayMs: settings.maxDelayMs,
        budget,
        clock,
        random,
        onEvent: onRetry,
      }),
      hedger(delayMs) {
        // Delays come from the configuration, so there are few of them.
        const hedger =
          hedgers.get(delayMs) ?? createHedger({ classify, delayMs, budget, clock, onEvent: onHedge });
        hedgers.set(delayMs, hedger);
        return hedger;
      },
    };
    services.set(service, made);
    return made;
  }

  return {
    run(service, attempt, { hedgeDelayMs, attempts, ...call }) {
      const repeaters = repeatersOf(service);
      return repeaters.retrier.run(
        () =>
          hedgeDelayMs === undefined
            ? attempt(call.signal)
            : repeaters
                .hedger(hedgeDelayMs)
                .run((_number, lost) => attempt(AbortSignal.any([call.signal, lost]), lost), call),
        { ...call, attempts },
      );
    },
    stats: () => ({ gaveUp, hedgesDenied }),
  };
}

function classify(error: unknown): Failure {
  if (error instanceof AttemptFailure) {
    return error.judgement.retry;
  }
  // A running attempt beside it may yet succeed.
  return { kind: error instanceof NothingLeftError ? "forbidden" : "permanent" };
}
