import type { Clock } from "@toolplane/framework";
import {
  type BreakerEvent,
  type BreakerSet,
  type Coalescer,
  createBreakerSet,
  createCoalescer,
  type OutlierEvent,
  type ResponseCache,
} from "@toolplane/framework/policies";
import type { OutboundSettings } from "../config/outbound.ts";
import type { Registry } from "../registry/registry.ts";
import { isTimeout } from "../timeout.ts";
import { createInstanceChooser } from "./choose-instance.ts";
import { type Answering, createDispatcher, type Dispatch, type Dispatcher } from "./dispatch.ts";
import { createFallbacks, type Fallbacks, type FallbacksOptions } from "./fallback.ts";
import type { IdempotentCalls } from "./idempotent-calls.ts";
import { createOutliers, type Outliers } from "./outliers.ts";
import { createPlans, type Plans } from "./plan.ts";
import { createRepetition, type Repetition } from "./repetition.ts";
import { createThrottles, type Throttles, throttledOutcome } from "./throttle.ts";
import { createUnaryCaller, type Outcome } from "./unary.ts";

/** The most breakers that are kept: about a kilobyte each. */
const MAX_BREAKERS = 20_000;

export interface OutboundOptions {
  readonly settings: OutboundSettings;
  /** The deadline of a call that names none, in milliseconds. */
  readonly defaultTimeoutMs: number;
  readonly registry: Pick<Registry, "reportUnreachable">;
  /** Undefined: answers are not kept. */
  readonly cache: ResponseCache | undefined;
  /** Undefined: a request id is only passed on. */
  readonly idempotent: IdempotentCalls | undefined;
  readonly clock: Clock;
  readonly random?: (() => number) | undefined;
  /** Told of every transition of a breaker. */
  readonly onBreakerChange?: ((event: BreakerEvent) => void) | undefined;
  /** Told of every change of an instance for one tool, which `group` names. */
  readonly onOutlierChange?: ((event: OutlierEvent, group: string) => void) | undefined;
  /** Told when what was configured as a tool's fallback cannot be one. */
  readonly onUnfitFallback?: FallbacksOptions["onUnfit"];
}

/** Everything that protects backends, and callers from backends. */
export interface Outbound {
  readonly plans: Plans;
  /** Calls a tool that answers with a stream, or takes one. */
  open(dispatch: Dispatch): Promise<Answering>;
  /** Calls a tool that answers with one result. */
  readonly unary: Fallbacks;
  readonly breakers: BreakerSet | undefined;
  readonly outliers: Outliers | undefined;
  readonly coalescer: Coalescer<Outcome> | undefined;
  readonly throttles: Throttles;
  readonly repetition: Repetition;
  close(): Promise<void>;
}

export function createOutbound(options: OutboundOptions): Outbound {
  const { settings, registry, cache, idempotent, clock, random = Math.random } = options;
  const { breaker, outliers: outlierSettings, deduplication } = settings;
  const breakers =
    breaker &&
    createBreakerSet({
      defaults: { ...breaker, clock, random, onEvent: options.onBreakerChange },
      maxBreakers: MAX_BREAKERS,
    });
  const outliers =
    outlierSettings && createOutliers({ ...outlierSettings, clock, onEvent: options.onOutlierChange });
  const coalescer =
    deduplication && createCoalescer<Outcome>({ ...deduplication, clock, mayOutlive: isTimeout });
  const throttles = createThrottles(settings.tools, clock);
  const repetition = createRepetition(settings.retry, clock, random);
  const chooser = createInstanceChooser(random);
  const dispatcher = createDispatcher({ registry, chooser, repetition, breakers, outliers, clock });
  const unary = createUnaryCaller({ dispatcher, throttles, coalescer, cache, idempotent, clock });
  return {
    plans: createPlans(settings, options.defaultTimeoutMs),
    unary: createFallbacks({
      call: (dispatch) => unary.call(dispatch),
      cache,
      clock,
      onUnfit: options.onUnfitFallback,
    }),
    open: (dispatch) => openThrottled(dispatcher, throttles, dispatch),
    breakers,
    outliers,
    coalescer,
    throttles,
    repetition,
    async close() {
      throttles.close();
    },
  };
}

/** Keeps the place of a stream among the calls at once until it is closed, and tells the limits how it went. */
function openThrottled(dispatcher: Dispatcher, throttles: Throttles, dispatch: Dispatch): Promise<Answering> {
  const { signal, deadline, plan } = dispatch;
  const opened = Promise.withResolvers<Answering>();
  const closed = Promise.withResolvers<void>();
  async function open(): Promise<void> {
    const { instanceId, results, close } = await dispatcher.open(dispatch);
    opened.resolve({
      instanceId,
      async *results() {
        try {
          yield* results();
        } catch (error) {
          closed.reject(error);
          throw error;
        }
      },
      close() {
        close();
        closed.resolve();
      },
    });
    await closed.promise;
  }
  throttles.run({ policy: plan.policy, signal, deadline }, open, throttledOutcome).catch(opened.reject);
  return opened.promise;
}
