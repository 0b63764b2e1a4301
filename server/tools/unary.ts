import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import type { Coalescer, ResponseCache } from "@toolplane/framework/policies";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Output } from "../backends/invocation.ts";
import { createTimeout } from "../timeout.ts";
import { callKey } from "./call-key.ts";
import type { Dispatch, Dispatcher } from "./dispatch.ts";
import type { IdempotentCalls } from "./idempotent-calls.ts";
import { abandoned, judged, judgementOf } from "./judge.ts";
import { type Throttles, throttledOutcome } from "./throttle.ts";

/** What came of a call of a tool that answers with one result. */
export interface Outcome {
  readonly output: Output;
  /** Who answered; empty when nobody was asked. */
  readonly instanceId: string;
  readonly source: ResultSource;
  /** The age of a result that was kept, in milliseconds. */
  readonly ageMs?: number;
  readonly stale?: boolean;
}

export interface UnaryOptions {
  readonly dispatcher: Dispatcher;
  readonly throttles: Throttles;
  readonly coalescer: Coalescer<Outcome> | undefined;
  readonly cache: ResponseCache | undefined;
  /** Undefined: a request id is only passed on. */
  readonly idempotent: IdempotentCalls | undefined;
  readonly clock: Clock;
}

/** Calls tools that answer with one result, so that it can be shared and kept. */
export interface UnaryCaller {
  call(call: Dispatch): Promise<Outcome>;
}

export function createUnaryCaller(options: UnaryOptions): UnaryCaller {
  const { dispatcher, throttles, coalescer, cache, idempotent, clock } = options;

  function send(call: Dispatch): Promise<Outcome> {
    return throttles.run(
      { policy: call.plan.policy, signal: call.signal, deadline: call.deadline },
      () => receive(call),
      throttledOutcome,
    );
  }

  async function receive(call: Dispatch): Promise<Outcome> {
    const answering = await dispatcher.open(call);
    try {
      for await (const output of answering.results()) {
        return { output, instanceId: answering.instanceId, source: ResultSource.BACKEND };
      }
    } finally {
      answering.close();
    }
    const error = new DomainError({
      code: Code.Internal,
      reason: "INVALID_RESULT",
      message: `${call.tool.name} ended without a result`,
      metadata: { instance_id: answering.instanceId },
    });
    throw judged(error, { ...abandoned, answered: true, text: error.message });
  }

  /**
   * The call as it is made for several callers, for as long as any of them waits. A backend is told the deadline of the
   * first; when that fails those who have more time, it is made once more for them.
   */
  function forAll(call: Dispatch, signal: AbortSignal, deadline = call.deadline): Dispatch {
    return { ...call, signal, deadline };
  }

  async function cached(kept: ResponseCache, call: Dispatch): Promise<Outcome> {
    let loaded: Outcome | undefined;
    const answer = await kept
      .getOrLoad(
        callKey(call),
        async (signal, { deadline }) => {
          if (deadline === undefined) {
            return { value: (await inBackground(call, signal)).output.bytes() };
          }
          loaded = await send(forAll(call, signal, deadline));
          return { value: loaded.output.bytes() };
        },
        {
          ttlMs: call.plan.cacheTtlMs,
          tags: [call.tool.name],
          signal: call.signal,
          deadline: call.deadline,
        },
      )
      .catch((error: unknown) => {
        throw copyError(error);
      });
    if (answer.source === "load" && loaded) {
      return loaded;
    }
    return {
      output: call.invoker.restore(answer.value),
      instanceId: "",
      source: answer.source === "load" ? ResultSource.SHARED : ResultSource.CACHE,
      ...(answer.source === "load" ? {} : { ageMs: answer.ageMs, stale: answer.state === "stale" }),
    };
  }

  /** Makes the call to renew a kept answer: for nobody in particular, and for no longer than the tool's own time. */
  async function inBackground(call: Dispatch, signal: AbortSignal): Promise<Outcome> {
    const { timeoutMs } = call.plan;
    const timeout = createTimeout(clock, timeoutMs, signal);
    try {
      return await send({
        ...call,
        signal: timeout.signal,
        deadline: clock.now() + timeoutMs,
        onSent: undefined,
      });
    } finally {
      timeout.clear();
    }
  }

  async function shared(flights: Coalescer<Outcome>, call: Dispatch): Promise<Outcome> {
    return flights.run(callKey(call), (signal, { deadline }) => send(forAll(call, signal, deadline)), {
      signal: call.signal,
      deadline: call.deadline,
      copy: (outcome) => ({ ...outcome, source: ResultSource.SHARED }),
      copyError,
    });
  }

  return {
    call(call) {
      const { plan } = call;
      if (call.requestId) {
        return idempotent ? idempotent.run(call, (signal) => send(forAll(call, signal))) : send(call);
      }
      if (cache && plan.cacheTtlMs > 0) {
        return cached(cache, call);
      }
      return coalescer && plan.shared ? shared(coalescer, call) : send(call);
    },
  };
}

/** Errors are changed while they are sent, so nobody shares one. */
function copyError(error: unknown): unknown {
  if (!(error instanceof ConnectError)) {
    return error;
  }
  const copy = new ConnectError(error.rawMessage, error.code, error.metadata, undefined, error.cause);
  copy.details = [...error.details];
  const judgement = judgementOf(error);
  return judgement ? judged(copy, judgement) : copy;
}
