import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { createByteLru, type ResponseCache } from "@toolplane/framework/policies";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { FallbackSettings, ToolPolicySettings } from "../config/outbound.ts";
import { codeOf } from "../error-code.ts";
import { callKey } from "./call-key.ts";
import { type Dispatch, isRepeatable } from "./dispatch.ts";
import { judgementOf } from "./judge.ts";
import type { Outcome } from "./unary.ts";

/** What last good answers may take in memory. */
const MAX_BYTES = 32 * 1024 * 1024;
/** What an entry takes besides the answer. */
const ENTRY_BYTES = 300;

export interface FallbacksOptions {
  /** Makes the call. */
  readonly call: (dispatch: Dispatch) => Promise<Outcome>;
  /** Has the answers of tools whose answers are kept anyway. */
  readonly cache: ResponseCache | undefined;
  readonly clock: Clock;
  /** Told once for each policy whose fixed result does not fit a tool, or whose version does not exist. */
  readonly onUnfit?: ((policy: ToolPolicySettings, tool: string, error: unknown) => void) | undefined;
}

/** Answers calls that fail with something else, where an operator has said with what. */
export interface Fallbacks {
  /**
   * Makes the call, and if the tool cannot answer it, takes its fallback. Throws the call's own error when there is none.
   * Another version is not asked to do what this one may have done already.
   *
   * @param otherVersion the same call of another version of its service; throws when that does not exist
   */
  call(dispatch: Dispatch, otherVersion: (version: string) => Promise<Dispatch>): Promise<Outcome>;
}

export function createFallbacks({ call, cache, clock, onUnfit }: FallbacksOptions): Fallbacks {
  const lastGood = createByteLru<{ readonly bytes: Uint8Array; readonly keptAt: number }>({
    maxBytes: MAX_BYTES,
  });
  const unfit = new WeakSet<ToolPolicySettings>();

  async function recall(
    dispatch: Dispatch,
    maxAgeMs: number,
  ): Promise<{ readonly value: Uint8Array; readonly ageMs: number } | undefined> {
    const key = callKey(dispatch);
    if (isKeptAnyway(dispatch)) {
      return cache?.lastGood(key, { maxAgeMs });
    }
    const kept = lastGood.get(key);
    const ageMs = kept === undefined ? Number.POSITIVE_INFINITY : clock.monotonic() - kept.keptAt;
    return kept && ageMs <= maxAgeMs ? { value: kept.bytes, ageMs } : undefined;
  }

  function reportUnfit({ plan: { policy }, tool }: Dispatch, error: unknown): void {
    if (policy && !unfit.has(policy)) {
      unfit.add(policy);
      onUnfit?.(policy, tool.name, error);
    }
  }

  /** What the operator has chosen; undefined when it does not fit. */
  async function chosen<T>(dispatch: Dispatch, make: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await make();
    } catch (error) {
      reportUnfit(dispatch, error);
      return undefined;
    }
  }

  function isKeptAnyway({ plan, requestId }: Dispatch): boolean {
    return cache !== undefined && plan.cacheTtlMs > 0 && requestId === "";
  }

  async function replace(
    fallback: FallbackSettings,
    dispatch: Dispatch,
    otherVersion: (version: string) => Promise<Dispatch>,
  ): Promise<Outcome | undefined> {
    const { invoker } = dispatch;
    const elsewhere = { instanceId: "", source: ResultSource.FALLBACK };
    switch (fallback.kind) {
      case "last-good": {
        const kept = await recall(dispatch, fallback.maxAgeMs);
        return kept && { ...elsewhere, output: invoker.restore(kept.value), ageMs: kept.ageMs, stale: true };
      }
      case "result": {
        const output = await chosen(dispatch, () => invoker.resultOf(JSON.parse(fallback.json)));
        return output && { ...elsewhere, output };
      }
      case "version": {
        const other = await chosen(dispatch, () => otherVersion(fallback.version));
        return other && { ...(await call(other)), source: ResultSource.FALLBACK };
      }
    }
  }

  return {
    async call(dispatch, otherVersion) {
      const { fallback } = dispatch.plan;
      if (!fallback) {
        return call(dispatch);
      }
      try {
        const outcome = await call(dispatch);
        if (fallback.kind === "last-good" && !isKeptAnyway(dispatch)) {
          const bytes = outcome.output.bytes();
          lastGood.set(
            callKey(dispatch),
            { bytes, keptAt: clock.monotonic() - (outcome.ageMs ?? 0) },
            bytes.byteLength + ENTRY_BYTES,
          );
        }
        return outcome;
      } catch (error) {
        if (!isFailureOfTool(error)) {
          throw error;
        }
        // What keeps the fallback from answering is of no interest beside what kept the tool.
        const outcome =
          fallback.kind === "version" && mayHaveActed(error) && !isRepeatable(dispatch)
            ? undefined
            : await replace(fallback, dispatch, otherVersion).catch(() => undefined);
        if (outcome === undefined) {
          throw error;
        }
        return outcome;
      }
    },
  };
}

/** Whether another call of the same kind may fare better, so that it is not the caller's mistake. */
function isFailureOfTool(error: unknown): boolean {
  switch (codeOf(error)) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.ResourceExhausted:
    case Code.Aborted:
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      return true;
    default:
      return false;
  }
}

/** Whether the tool may have done what it was asked to, all the same. */
function mayHaveActed(error: unknown): boolean {
  const judgement = judgementOf(error);
  if (!judgement) {
    // Our own refusals are domain errors; anything else is the end of the wait for a call that goes on elsewhere.
    return !(error instanceof DomainError);
  }
  return !(judgement.retry.kind === "transient" && judgement.retry.unsent);
}
