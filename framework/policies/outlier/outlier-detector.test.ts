import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import type { Outcome } from "../breaker/state.ts";
import type { OutlierOptions } from "./options.ts";
import { createOutlierDetector } from "./outlier-detector.ts";
import type { InstanceCall, OutlierEvent } from "./state.ts";

function setUp(options: OutlierOptions = {}, instances: readonly string[] = ["a", "b", "c"]) {
  const clock = createFakeClock();
  const events: OutlierEvent[] = [];
  const detector = createOutlierDetector({ clock, onEvent: (event) => events.push(event), ...options });
  detector.setInstances(instances);
  return {
    clock,
    events,
    detector,
    /** Ends `count` calls one after the other, without time passing. */
    calls(instance: string, outcome: Outcome, count: number, durationMs = 10) {
      for (let call = 0; call < count; call++) {
        detector.record(instance, outcome, durationMs);
      }
    },
    eligible: (candidates = instances) => detector.eligible(candidates),
  };
}

describe("an instance is ejected", () => {
  test("when three calls in a row have failed", () => {
    const { calls, eligible, events, clock } = setUp();
    calls("a", "failure", 2);
    calls("a", "ignored", 5);
    expect(eligible()).toEqual(["a", "b", "c"]);
    calls("a", "failure", 1);
    expect(eligible()).toEqual(["b", "c"]);
    expect(events).toEqual([
      {
        kind: "ejected",
        instance: "a",
        at: clock.now(),
        reason: "consecutive-failures",
        detail: "3 calls failed in a row",
        ejections: 1,
        forMs: 30_000,
      },
    ]);
  });

  test("when it succeeds far less often than its peers, also where there are only three", () => {
    const { calls, eligible, events, clock } = setUp();
    for (let round = 0; round < 20; round++) {
      calls("a", round % 2 === 0 ? "success" : "failure", 1);
      calls("b", "success", 1);
      calls("c", round % 10 === 0 ? "failure" : "success", 1);
    }
    expect(eligible()).toEqual(["a", "b", "c"]);
    clock.advance(1_000);
    expect(eligible()).toEqual(["b", "c"]);
    expect(events).toMatchObject([{ instance: "a", reason: "success-rate" }]);
    expect(events).toHaveProperty("0.detail", "50 % of 20 calls succeeded where peers reach at least 62 %");
  });

  test("not when all do equally badly", () => {
    const { calls, clock, eligible } = setUp();
    for (let round = 0; round < 50; round++) {
      for (const instance of ["a", "b", "c"]) {
        calls(instance, round % 2 === 0 ? "success" : "failure", 1);
      }
      clock.advance(100);
    }
    expect(eligible()).toEqual(["a", "b", "c"]);
  });

  test("when it answers many times slower than its peers", () => {
    const { calls, clock, eligible, events } = setUp();
    calls("a", "success", 1_000, 20);
    calls("b", "success", 1_000, 20);
    calls("c", "success", 1_000, 20);
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "b", "c"]);
    calls("b", "success", 5, 2_000);
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "c"]);
    expect(events).toMatchObject([{ instance: "b", reason: "latency" }]);
  });

  test("not for a slow call now and then, nor for milliseconds", () => {
    const { calls, clock, eligible } = setUp();
    for (let round = 0; round < 20; round++) {
      calls("a", "success", 19, 10);
      calls("a", "success", 1, 5_000);
      calls("b", "success", 20, 10);
      calls("c", "success", 20, 0.5);
      clock.advance(1_000);
      expect(eligible()).toEqual(["a", "b", "c"]);
    }
  });

  test("when its calls are given up after a time in which its peers have long answered", () => {
    const { calls, clock, eligible } = setUp();
    calls("a", "success", 5);
    calls("b", "success", 5);
    clock.advance(1_000);
    calls("c", "ignored", 5, 5);
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "b", "c"]);
    calls("c", "ignored", 5, 200);
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "b"]);
  });

  test("when it does not answer at all, before any call has ended", () => {
    const { detector, calls, clock, eligible, events } = setUp();
    const hanging = [1, 2, 3].map(() => detector.begin("a"));
    calls("b", "success", 5);
    calls("c", "success", 5);
    clock.advance(1_999);
    expect(eligible()).toEqual(["a", "b", "c"]);
    expect(detector.list()).toMatchObject([{ instance: "a", inFlight: 3, oldestMs: 1_999 }, {}, {}]);
    clock.advance(1_000);
    expect(eligible()).toEqual(["b", "c"]);
    expect(events).toMatchObject([{ instance: "a", reason: "hanging" }]);
    expect(events).toHaveProperty("0.detail", "no answer for 2999 ms where peers take 10 ms");
    // They give up in the end, which is no news.
    hanging.forEach((call) => {
      call.end("failure");
    });
    expect(detector.list()).toMatchObject([{ instance: "a", consecutiveFailures: 0, inFlight: 0 }, {}, {}]);
  });

  test("not for long calls while it answers others, nor while nobody answers", () => {
    const { detector, calls, clock, eligible } = setUp();
    for (let call = 0; call < 10; call++) {
      detector.begin("a");
    }
    clock.advance(60_000);
    expect(eligible()).toEqual(["a", "b", "c"]);
    calls("a", "success", 1);
    calls("b", "success", 5);
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "b", "c"]);
  });
});

describe("what is ejected", () => {
  test("is at most half, and never the last one", () => {
    for (const [count, most] of [
      [1, 0],
      [2, 1],
      [3, 1],
      [4, 2],
      [11, 5],
    ] as const) {
      const names = Array.from({ length: count }, (_, index) => `i${index}`);
      const { detector, calls, eligible } = setUp({}, names);
      for (const name of names) {
        calls(name, "failure", 10);
      }
      expect(eligible()).toHaveLength(count - most);
      expect(detector.spared > 0).toBe(true);
    }
  });

  test("is the worst of them where there is not room for all", () => {
    const options = { consecutiveFailures: 1_000, maxEjectedPercent: 30 };
    const { calls, clock, eligible } = setUp(options, ["a", "b", "c", "d", "e"]);
    for (const [instance, failures] of Object.entries({ a: 8, b: 0, c: 20, d: 0, e: 0 })) {
      calls(instance, "success", 20 - failures);
      calls(instance, "failure", failures);
    }
    clock.advance(1_000);
    expect(eligible()).toEqual(["a", "b", "d", "e"]);
  });

  test("is offered all the same when there is nothing else", () => {
    const { calls, eligible } = setUp();
    calls("a", "failure", 3);
    expect(eligible(["a"])).toEqual(["a"]);
    expect(eligible([])).toEqual([]);
  });

  test("returns on probation: one call at a time, until three are well", () => {
    const { detector, calls, clock, eligible, events } = setUp();
    calls("a", "failure", 3);
    clock.advance(29_999);
    expect(eligible()).toEqual(["b", "c"]);
    clock.advance(1_000);
    for (let trial = 0; trial < 3; trial++) {
      expect(eligible()).toEqual(["a", "b", "c"]);
      const call = detector.begin("a");
      expect(eligible()).toEqual(["b", "c"]);
      call.end("success");
      call.end("failure");
    }
    expect(detector.list()).toMatchObject([{ state: { kind: "healthy" } }, {}, {}]);
    expect(events.map(({ kind }) => kind)).toEqual(["ejected", "probation", "returned"]);
  });

  test("goes again for longer when a call fails on probation, up to five minutes", () => {
    const { calls, clock, events, eligible } = setUp();
    calls("a", "failure", 3);
    for (const seconds of [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300]) {
      expect(events.at(-1)).toMatchObject({ kind: "ejected", forMs: seconds * 1_000 });
      clock.advance(seconds * 1_000);
      expect(eligible()).toContain("a");
      calls("a", "failure", 1);
    }
  });

  test("goes again when a call is slow on probation, or is not answered", () => {
    const { detector, calls, clock, events, eligible } = setUp();
    calls("a", "failure", 3);
    const passed = (ms: number) => {
      clock.advance(ms);
      calls("b", "success", 10);
      calls("c", "success", 10);
      eligible();
      clock.advance(1_000);
      eligible();
    };
    passed(30_000);
    calls("a", "success", 1, 3_000);
    expect(events.at(-1)).toMatchObject({ kind: "ejected", reason: "latency", ejections: 2 });
    passed(60_000);
    detector.begin("a");
    passed(2_000);
    expect(events.at(-1)).toMatchObject({ kind: "ejected", reason: "hanging", ejections: 3 });
  });

  test("is not kept out by a trial call that was lost", () => {
    const { detector, calls, clock, eligible } = setUp();
    calls("a", "failure", 3);
    clock.advance(31_000);
    expect(eligible()).toContain("a");
    detector.begin("a");
    clock.advance(29_999);
    expect(eligible()).not.toContain("a");
    clock.advance(1);
    expect(eligible()).toContain("a");
  });

  test("is ejected for as short as the first time once it was well for long enough", () => {
    const { calls, clock, eligible, events } = setUp();
    calls("a", "failure", 3);
    clock.advance(30_000);
    eligible();
    calls("a", "success", 3);
    calls("a", "failure", 3);
    expect(events.at(-1)).toMatchObject({ kind: "ejected", ejections: 2 });
    clock.advance(60_000);
    eligible();
    calls("a", "success", 3);
    clock.advance(60_000);
    calls("a", "failure", 3);
    expect(events.at(-1)).toMatchObject({ kind: "ejected", ejections: 1 });
  });

  test("comes back by hand at once", () => {
    const { detector, calls, eligible, events } = setUp();
    calls("a", "failure", 3);
    expect(detector.reset("a")).toBe(true);
    expect(eligible()).toEqual(["a", "b", "c"]);
    expect(events.at(-1)).toMatchObject({ kind: "returned", by: "reset" });
    expect(detector.reset("nobody")).toBe(false);
  });
});

test("instances that have gone are forgotten, and their late calls with them", () => {
  const { detector, calls, eligible } = setUp();
  const call = detector.begin("a");
  calls("a", "failure", 3);
  detector.setInstances(["b", "c"]);
  call.end("failure");
  expect(detector.list().map(({ instance }) => instance)).toEqual(["b", "c"]);
  expect(eligible(["a", "b"])).toEqual(["a", "b"]);
});

test("without being told, it forgets what has no calls, and never knows more than it may", () => {
  const clock = createFakeClock();
  const detector = createOutlierDetector({ clock, maxInstances: 10 });
  for (let index = 0; index < 1_000; index++) {
    detector.record(`i${index}`, "failure", 1);
  }
  expect(detector.list()).toHaveLength(10);
  clock.advance(600_000);
  detector.record("new", "success", 1);
  expect(detector.list().map(({ instance }) => instance)).toEqual(["new"]);
});

test("candidates may be more than names", () => {
  const { detector, calls } = setUp();
  calls("b", "failure", 3);
  const candidates = ["a", "b", "c"].map((id) => ({ id }));
  expect(detector.eligible(candidates, ({ id }) => id)).toEqual([{ id: "a" }, { id: "c" }]);
});

test("a listener that throws changes nothing", () => {
  const { calls, eligible } = setUp({
    onEvent() {
      throw new Error("listener");
    },
  });
  calls("a", "failure", 3);
  expect(eligible()).toEqual(["b", "c"]);
});

test("an impossible option is named", () => {
  expect(() => createOutlierDetector({ hangingMs: -1 })).toThrow("hangingMs");
  expect(() => createOutlierDetector({ probationCalls: 0 })).toThrow("probationCalls");
});

type Step =
  | { readonly do: "begin" | "reset"; readonly instance: string }
  | { readonly do: "end"; readonly which: number; readonly outcome: Outcome }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "leave" | "join"; readonly instance: string };

const names = ["a", "b", "c", "d", "e"];
const instance = fc.constantFrom(...names);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ do: fc.constant("begin" as const), instance }) },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant("end" as const),
      which: fc.nat(30),
      outcome: fc.constantFrom<Outcome>("success", "failure", "failure", "ignored"),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 50, 1_000, 5_000, 40_000, 1e8),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom("reset" as const, "leave" as const, "join" as const),
      instance,
    }),
  },
);

test("whatever happens, more than half stay, counts hold, and healthy traffic brings all back", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150, size: "max" }), (steps) => {
      const { clock, detector } = setUp({}, names);
      const present = new Set(names);
      // Those that leave may leave behind what was ejected when there were more.
      const nobodyLeaves = !steps.some((step) => step.do === "leave");
      const flying: { readonly instance: string; readonly call: InstanceCall }[] = [];
      for (const current of steps) {
        switch (current.do) {
          case "begin":
            if (present.has(current.instance)) {
              flying.push({ instance: current.instance, call: detector.begin(current.instance) });
            }
            break;
          case "end":
            flying.splice(current.which, 1)[0]?.call.end(current.outcome);
            break;
          case "wait":
            clock.advance(current.ms);
            break;
          case "reset":
            detector.reset(current.instance);
            break;
          case "leave":
          case "join":
            present[current.do === "leave" ? "delete" : "add"](current.instance);
            detector.setInstances(present);
            break;
        }
        if (nobodyLeaves) {
          const ejected = detector.list().filter(({ state }) => state.kind === "ejected");
          expect(ejected.length).toBeLessThanOrEqual(Math.floor(names.length / 2));
        }
        const candidates = [...present];
        const eligible = detector.eligible(candidates);
        expect(eligible.length > 0).toBe(candidates.length > 0);
        expect(candidates).toEqual(expect.arrayContaining([...eligible]));
      }

      for (const { call } of flying) {
        call.end("ignored");
      }
      expect(
        detector.list().every(({ inFlight, oldestMs }) => inFlight === 0 && oldestMs === undefined),
      ).toBe(true);
      clock.advance(300_000);
      for (let round = 0; round < 20; round++) {
        for (const chosen of detector.eligible([...present])) {
          const call = detector.begin(chosen);
          clock.advance(1);
          call.end("success");
        }
        clock.advance(1_000);
      }
      expect(detector.list().every(({ state }) => state.kind === "healthy")).toBe(true);
    }),
    { numRuns: 300 },
  );
});
