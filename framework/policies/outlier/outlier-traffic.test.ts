import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import type { Outcome } from "../breaker/state.ts";
import { createOutlierDetector } from "./outlier-detector.ts";

const INSTANCES = ["a", "b", "c"];
const CALLS_PER_SECOND = 100;
const SECONDS = 180;
const HEALTHY_MS = 20;
const DEADLINE_MS = 10_000;
/** What the detector has to find out in. */
const FIRST_SECONDS = 5;

interface Fault {
  readonly outcome: Outcome;
  readonly ms: number;
}

/** Steady traffic to three instances, the less busy of two random ones each time; "c" has the fault from the start. */
function simulate(fault: Fault, random: () => number) {
  const clock = createFakeClock();
  const detector = createOutlierDetector({ clock });
  detector.setInstances(INSTANCES);
  const busy = new Map(INSTANCES.map((instance) => [instance, 0]));
  const load = (instance: string) => busy.get(instance) ?? 0;
  const later: { readonly good: boolean; readonly ms: number }[] = [];

  function call() {
    const eligible = detector.eligible(INSTANCES);
    const draw = () => eligible[Math.floor(random() * eligible.length)] ?? "a";
    const [one, other] = [draw(), draw()];
    const chosen = load(one) <= load(other) ? one : other;
    const { outcome, ms } = chosen === "c" ? fault : { outcome: "success" as const, ms: HEALTHY_MS };
    const isLater = clock.monotonic() >= FIRST_SECONDS * 1_000;
    const started = detector.begin(chosen);
    busy.set(chosen, load(chosen) + 1);
    clock.after(ms, () => {
      busy.set(chosen, load(chosen) - 1);
      started.end(outcome);
      if (isLater) {
        later.push({ good: outcome === "success", ms });
      }
    });
  }

  for (let count = 0; count < SECONDS * CALLS_PER_SECOND; count++) {
    call();
    clock.advance(1_000 / CALLS_PER_SECOND);
  }
  const latencies = later.map(({ ms }) => ms).sort((one, other) => one - other);
  return {
    detector,
    successRate: later.filter(({ good }) => good).length / later.length,
    p99: latencies[Math.floor(latencies.length * 0.99)],
  };
}

/** Mulberry32: the same numbers each time. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test.each<[string, Fault, successRate: number]>([
  ["fails", { outcome: "failure", ms: 1 }, 0.999],
  ["hangs", { outcome: "failure", ms: DEADLINE_MS }, 0.999],
  ["crawls", { outcome: "success", ms: 1_000 }, 1],
])("with one of three that %s, hardly any call suffers after the first seconds", (_, fault, least) => {
  for (let seed = 1; seed <= 3; seed++) {
    const { detector, successRate, p99 } = simulate(fault, seeded(seed));
    expect(successRate).toBeGreaterThanOrEqual(least);
    expect(p99).toBe(HEALTHY_MS);
    const [worst] = detector.list();
    expect(worst).toMatchObject({ instance: "c", state: { kind: "ejected" } });
  }
});

test("instances that are all well share the calls", () => {
  const { detector } = simulate({ outcome: "success", ms: HEALTHY_MS }, seeded(1));
  const calls = detector.list().map(({ state, window }) => {
    expect(state.kind).toBe("healthy");
    return window.calls;
  });
  expect(Math.min(...calls)).toBeGreaterThan(Math.max(...calls) / 2);
});
