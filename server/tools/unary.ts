import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { Coalescer, ResponseCache } from "@toolplane/framework/policies";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Output } from "../backends/invocation.ts";
import { callKey } from "./call-key.ts";
import type { Dispatch, Dispatcher } from "./dispatch.ts";
import type { IdempotentCalls } from "./idempotent-calls.ts";
import { type Throttles, throttledOutcome } from "./throttle.ts";

/** What came of a call of a tool that answers with one result. */
export interface Outcome {
  readonly output: Output;
  /** Who answered; empty when nobody was asked. */
  readonly instanceId: string;
  /** How often it was sent for this call. */
  readonly attempts: number;
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
}

/** Calls tools that answer with one result, so that it can be shared and kept. */
export interface UnaryCaller {
  call(call: Dispatch): Promise<Outcome>;
}

export function createUnaryCaller(options: UnaryOptions): UnaryCaller {
  const { dispatcher, throttles, coalescer, cache, idempotent } = options;

  function send(call: Dispatch): Promise<Outcome> {
    return throttles.run(
      { policy: call.plan.policy, signal: call.signal },
      () => receive(call),
      throttledOutcome,
    );
  }

  async function receive(call: Dispatch): Promise<Outcome> {
    const answering = await dispatcher.open(call);
    try {
      for await (const output of answering.results()) {
        const { instanceId, attempts } = answering;
        return { output, instanceId, attempts, source: ResultSource.BACKEND };
      }
    } finally {
      answering.close();
    }
    throw new DomainError({
      code: Code.Internal,
      reason: "INVALID_RESULT",
      message: `${call.tool.name} ended without a result`,
    });
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
    const answer = await kept.getOrLoad(
      callKey(call),
      async (signal, { deadline }) => {
        loaded = await send(forAll(call, signal, deadline));
        return { value: loaded.output.bytes() };
      },
      {
        ttlMs: call.plan.cacheTtlMs,
        tags: [call.tool.name],
        signal: call.signal,
        deadline: call.deadline,
      },
    );
    if (answer.source === "load" && loaded) {
      return loaded;
    }
    return {
      output: call.invoker.restore(answer.value),
      instanceId: "",
      attempts: 0,
      source: answer.source === "load" ? ResultSource.SHARED : ResultSource.CACHE,
      ...(answer.source === "load" ? {} : { ageMs: answer.ageMs, stale: answer.state === "stale" }),
    };
  }

  async function shared(flights: Coalescer<Outcome>, call: Dispatch): Promise<Outcome> {
    return flights.run(callKey(call), (signal, { deadline }) => send(forAll(call, signal, deadline)), {
      signal: call.signal,
      deadline: call.deadline,
      copy: (outcome) => ({ ...outcome, attempts: 0, source: ResultSource.SHARED }),
      copyError: (error) => (error instanceof ConnectError ? copyConnectError(error) : error),
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
function copyConnectError(error: ConnectError): ConnectError {
  const copy = new ConnectError(error.rawMessage, error.code, error.metadata, undefined, error.cause);
  copy.details = [...error.details];
  return copy;
}
