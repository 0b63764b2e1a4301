import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createBreaker } from "./breaker.ts";
import type { BreakerPermit, Outcome } from "./state.ts";

const PROBES = 2;
const CONSECUTIVE = 3;
const MINIMUM = 6;
const WINDOW = 1_000;
const OPEN = 300;
const MAX_OPEN = 1_200;
const PROBE_TIMEOUT = 500;
const SLOW = 120;
/** The breaker's window moves on in twentieths. */
const BUCKET = WINDOW / 20;

type Step =
  | { readonly do: "acquire" }
  | { readonly do: "report"; readonly which: number; readonly outcome: Outcome }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "isolate" }
  | { readonly do: "reset" };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: fc.constant<Step>({ do: "acquire" }) },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant("report" as const),
      which: fc.nat(20),
      outcome: fc.constantFrom<Outcome>("success", "failure", "ignored"),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.oneof(fc.integer({ min: 0, max: 200 }), fc.constantFrom(300, 500, 1_000, 5_000, 1e9)),
    }),
  },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "isolate" }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "reset" }) },
);

interface Call {
  readonly permit: BreakerPermit;
  /** The number of the state that it was let through in. */
  readonly period: number;
  readonly began: number;
}

/** What a breaker must do, kept the simple way: every result with its time, no ring, no running sums. */
function createModel() {
  let kind: "closed" | "open" | "half-open" | "isolated" = "closed";
  let period = 0;
  let until = 0;
  let opens = 0;
  let row = 0;
  let results: { readonly at: number; readonly failed: boolean; readonly slow: boolean }[] = [];
  let probes: Call[] = [];
  let succeeded = 0;
  let slowProbes = 0;

  function enter(next: typeof kind) {
    kind = next;
    period++;
    probes = [];
    [succeeded, slowProbes] = [0, 0];
    if (next === "closed") {
      [opens, row, results] = [0, 0, []];
    }
  }
  function open(now: number) {
    until = now + Math.min(OPEN * 2 ** opens, MAX_OPEN);
    opens++;
    enter("open");
  }

  return {
    get kind() {
      return kind;
    },
    get period() {
      return period;
    },
    get probing() {
      return probes.length;
    },
    admits(now: number): boolean {
      if (kind === "open" && now >= until) {
        enter("half-open");
      }
      if (kind === "half-open") {
        probes = probes.filter(({ began }) => now - began < PROBE_TIMEOUT);
        return probes.length + succeeded < PROBES;
      }
      return kind === "closed";
    },
    admitted(call: Call) {
      if (kind === "half-open") {
        probes.push(call);
      }
    },
    report(call: Call, outcome: Outcome, now: number) {
      if (call.period !== period) {
        return;
      }
      probes = probes.filter((probe) => probe !== call);
      if (outcome === "ignored") {
        return;
      }
      const slow = now - call.began >= SLOW;
      if (kind === "half-open") {
        succeeded += 1;
        slowProbes += slow ? 1 : 0;
        if (outcome === "failure") {
          open(now);
        } else if (succeeded >= PROBES) {
          if (slowProbes / succeeded >= 0.8) {
            open(now);
          } else {
            enter("closed");
          }
        }
        return;
      }
      const failed = outcome === "failure";
      results.push({ at: Math.floor(now / BUCKET), failed, slow });
      results = results.filter(({ at }) => at > Math.floor(now / BUCKET) - 20);
      row = failed ? row + 1 : 0;
      const share = (which: "failed" | "slow") =>
        results.length < MINIMUM ? 0 : results.filter((result) => result[which]).length / results.length;
      if (row >= CONSECUTIVE || (failed && share("failed") >= 0.5) || (slow && share("slow") >= 0.8)) {
        open(now);
      }
    },
    isolate() {
      if (kind !== "isolated") {
        enter("isolated");
      }
    },
    reset() {
      enter("closed");
    },
  };
}

function createSubject() {
  const clock = createFakeClock();
  const breaker = createBreaker({
    clock,
    consecutiveFailures: CONSECUTIVE,
    windowMs: WINDOW,
    minimumCalls: MINIMUM,
    openMs: OPEN,
    maxOpenMs: MAX_OPEN,
    probes: PROBES,
    probeTimeoutMs: PROBE_TIMEOUT,
    slowCallMs: SLOW,
  });
  return { clock, breaker };
}

function play(steps: readonly Step[]) {
  const { clock, breaker } = createSubject();
  const model = createModel();
  const calls: Call[] = [];
  for (const current of steps) {
    const now = clock.monotonic();
    switch (current.do) {
      case "acquire": {
        const permit = breaker.tryAcquire();
        expect(permit.allowed).toBe(model.admits(now));
        if (permit.allowed) {
          const call = { permit, period: model.period, began: now };
          calls.push(call);
          model.admitted(call);
        }
        break;
      }
      case "report": {
        const call = calls[current.which % Math.max(calls.length, 1)];
        if (call !== undefined) {
          const reported = calls.indexOf(call);
          calls.splice(reported, 1);
          call.permit.record(current.outcome);
          model.report(call, current.outcome, now);
          call.permit.record("failure");
        }
        break;
      }
      case "wait":
        clock.advance(current.ms);
        break;
      case "isolate":
        breaker.isolate();
        model.isolate();
        break;
      case "reset":
        breaker.reset();
        model.reset();
        break;
    }
    const { state } = breaker.snapshot();
    expect(state.kind).toBe(model.kind);
    if (state.kind === "half-open") {
      expect(state.probing).toBe(model.probing);
      expect(state.probing).toBeLessThanOrEqual(PROBES);
    }
  }
  return { clock, breaker };
}

test("whatever calls, results, losses and jumps of time come, it does what the model does", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: "max" }), (steps) => {
      play(steps);
    }),
    { numRuns: 1_000 },
  );
});

test("from every state there is a way back to closed: by healthy calls alone, unless someone isolated it", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: "max" }), (steps) => {
      const { clock, breaker } = play(steps);
      if (breaker.state === "isolated") {
        expect(breaker.tryAcquire().allowed).toBe(false);
        breaker.reset();
      }
      // Whatever was let through until now never reports.
      clock.advance(MAX_OPEN);
      for (let call = 0; call < PROBES; call++) {
        const permit = breaker.tryAcquire();
        expect(permit.allowed).toBe(true);
        if (permit.allowed) {
          permit.record("success");
        }
      }
      expect(breaker.state).toBe("closed");
    }),
    { numRuns: 1_000 },
  );
});
