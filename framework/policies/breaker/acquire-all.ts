import type { Breaker } from "./breaker.ts";
import type { BreakerPermit, BreakerRefusal, Outcome } from "./state.ts";

/** Leave of several breakers to make one call. */
export interface CombinedPermit extends BreakerPermit {
  /** True: whether one of the breakers closes depends on this call. */
  readonly probe: boolean;
  /** One for each breaker, in the order given: for results that mean different things to them. */
  readonly permits: readonly BreakerPermit[];
}

/**
 * Asks several breakers for leave to make one call, such as those of a service, an instance and a method: all or none.
 * When one refuses, the places that were taken at the others are given back.
 */
export function acquireAll(breakers: readonly Breaker[]): CombinedPermit | BreakerRefusal {
  const permits: BreakerPermit[] = [];
  let probe = false;
  for (const breaker of breakers) {
    const permit = breaker.tryAcquire();
    if (!permit.allowed) {
      for (const granted of permits) {
        granted.record("ignored");
      }
      return permit;
    }
    probe ||= permit.probe;
    permits.push(permit);
  }
  return {
    allowed: true,
    probe,
    permits,
    record(outcome: Outcome, failure?: string, durationMs?: number) {
      for (const permit of permits) {
        permit.record(outcome, failure, durationMs);
      }
    },
  };
}
