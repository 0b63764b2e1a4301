import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createRetrier, type RetrierOptions, type RetryEvent } from "./retrier.ts";
import { createRetryBudget } from "./retry-budget.ts";
import type { Failure } from "./retry-decision.ts";

/** An error that says itself what it means. */
class Failed extends Error {
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.kind);
    this.failure = failure;
  }
}

const transient = new Failed({ kind: "transient" });

function setUp(options: Partial<RetrierOptions> = {}) {
  const clock = createFakeClock();
  const events: RetryEvent[] = [];
  const retrier = createRetrier({
    classify: (error) => (error instanceof Failed ? error.failure : { kind: "permanent" }),
    clock,
    random: () => 0.5,
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { clock, events, retrier };
}

/** Work that fails as told and then succeeds; it notes its attempts. */
function failing(...failures: Error[]) {
  const attempts: number[] = [];
  const work = async (attempt: number) => {
    attempts.push(attempt);
    const failure = failures[attempt - 1];
    if (failure) {
      throw failure;
    }
    return `result of ${attempt}`;
  };
  return { attempts, work };
}

/** Lets everything happen that does not wait for the clock. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

test("work that succeeds is done once", async () => {
  const { retrier, events, clock } = setUp();
  const { work, attempts } = failing();
  await expect(retrier.run(work, { repeatable: true })).resolves.toBe("result of 1");
  expect(attempts).toEqual([1]);
  expect(events).toEqual([]);
  expect(clock.pending).toBe(0);
});

test("a transient failure is followed by another attempt, after a wait", async () => {
  const { retrier, events, clock } = setUp();
  const { work, attempts } = failing(transient, transient);
  const result = retrier.run(work, { repeatable: true });
  await settled();
  expect(attempts).toEqual([1]);
  clock.advance(49);
  await settled();
  expect(attempts).toEqual([1]);
  clock.advance(1);
  await settled();
  expect(attempts).toEqual([1, 2]);
  clock.advance(100);
  await expect(result).resolves.toBe("result of 3");
  expect(events).toEqual([
    { kind: "retry-scheduled", attempt: 1, delayMs: 50, error: transient },
    { kind: "retry-scheduled", attempt: 2, delayMs: 100, error: transient },
    { kind: "recovered", attempt: 3 },
  ]);
  expect(retrier.stats()).toMatchObject({ calls: 1, retries: 2, recovered: 1 });
});

test("after three attempts the last failure is the call's", async () => {
  const { retrier, events, clock } = setUp();
  const last = new Failed({ kind: "transient" });
  const result = retrier.run(failing(transient, transient, last).work, { repeatable: true });
  result.catch(() => {});
  await settled();
  clock.advance(1_000);
  await settled();
  clock.advance(1_000);
  await expect(result).rejects.toBe(last);
  expect(events.at(-1)).toEqual({ kind: "gave-up", attempt: 3, reason: "attempts", error: last });
  expect(retrier.stats().gaveUp.attempts).toBe(1);
});

test("a call can have its own number of attempts", async () => {
  const { retrier } = setUp();
  await expect(retrier.run(failing(transient).work, { repeatable: true, attempts: 1 })).rejects.toBe(
    transient,
  );
});

test.each<[string, Failure, boolean]>([
  ["permanent", { kind: "permanent" }, true],
  ["forbidden", { kind: "forbidden" }, true],
  ["not-repeatable", { kind: "transient" }, false],
  ["push-back", { kind: "transient", pushBackMs: 60_000 }, true],
])("a call that must not be repeated fails at once: %s", async (reason, failure, repeatable) => {
  const { retrier, events, clock } = setUp();
  const error = new Failed(failure);
  await expect(retrier.run(failing(error).work, { repeatable })).rejects.toBe(error);
  expect(events).toEqual([{ kind: "gave-up", attempt: 1, reason, error }]);
  expect(clock.pending).toBe(0);
});

test("a call that never reached the server is repeated even when it must not happen twice", async () => {
  const { retrier, clock } = setUp();
  const unsent = new Failed({ kind: "transient", unsent: true });
  const result = retrier.run(failing(unsent).work, { repeatable: false });
  await settled();
  clock.advance(50);
  await expect(result).resolves.toBe("result of 2");
});

test("there is no wait that could not end before the deadline", async () => {
  const { retrier, clock, events } = setUp();
  const call = { repeatable: true, deadline: clock.now() + 50 };
  await expect(retrier.run(failing(transient).work, call)).rejects.toBe(transient);
  expect(events).toMatchObject([{ kind: "gave-up", reason: "deadline" }]);

  const later = retrier.run(failing(transient).work, { repeatable: true, deadline: clock.now() + 51 });
  await settled();
  clock.advance(50);
  await expect(later).resolves.toBe("result of 2");
});

test("a caller that leaves during a wait gets its own reason, and nothing is tried any more", async () => {
  const { retrier, clock, events } = setUp();
  const { work, attempts } = failing(transient);
  const caller = new AbortController();
  const result = retrier.run(work, { repeatable: true, signal: caller.signal });
  result.catch(() => {});
  await settled();
  caller.abort(new Error("gone"));
  await expect(result).rejects.toThrow("gone");
  clock.advance(10_000);
  await settled();
  expect(attempts).toEqual([1]);
  expect(clock.pending).toBe(0);
  expect(events.at(-1)).toMatchObject({ kind: "gave-up", reason: "cancelled" });
});

test("a failure after the caller has left is not followed by anything", async () => {
  const { retrier, events } = setUp();
  const caller = new AbortController();
  const work = async () => {
    caller.abort();
    throw transient;
  };
  await expect(retrier.run(work, { repeatable: true, signal: caller.signal })).rejects.toBe(transient);
  expect(events).toMatchObject([{ kind: "gave-up", reason: "cancelled" }]);
});

test("without permission from the budget there is no second attempt", async () => {
  const clock = createFakeClock();
  const budget = createRetryBudget({ ratio: 0.2, minPerSecond: 0, clock });
  const { retrier, events } = setUp({ budget, clock });
  await expect(retrier.run(failing(transient).work, { repeatable: true })).rejects.toBe(transient);
  expect(events).toMatchObject([{ kind: "gave-up", reason: "budget" }]);
  expect(budget.stats()).toMatchObject({ calls: 1, denied: 1 });
});

test("what is given up for another reason leaves the budget alone", async () => {
  const clock = createFakeClock();
  const budget = createRetryBudget({ ratio: 1, minPerSecond: 0, clock });
  const { retrier } = setUp({ budget, clock });
  await expect(retrier.run(failing(transient).work, { repeatable: false })).rejects.toBe(transient);
  const late = { repeatable: true, deadline: clock.now() };
  await expect(retrier.run(failing(transient).work, late)).rejects.toBe(transient);
  expect(budget.stats()).toMatchObject({ calls: 2, retries: 0, denied: 0 });
});

test("a listener that throws breaks nothing", async () => {
  const { retrier, clock } = setUp({
    onEvent: () => {
      throw new Error("a broken listener");
    },
  });
  const result = retrier.run(failing(transient).work, { repeatable: true });
  await settled();
  clock.advance(50);
  await expect(result).resolves.toBe("result of 2");
});

test("a target that is down gets a fifth more calls, not three times as many", async () => {
  const clock = createFakeClock();
  const { retrier } = setUp({ clock, budget: createRetryBudget({ minPerSecond: 0, clock }) });
  let attempts = 0;
  const down = async () => {
    attempts += 1;
    throw transient;
  };
  for (let call = 0; call < 500; call++) {
    retrier.run(down, { repeatable: true }).catch(() => {});
    await settled();
    clock.advance(10);
  }
  clock.advance(10_000);
  await settled();
  expect(attempts).toBeGreaterThan(500);
  expect(attempts).toBeLessThanOrEqual(600);
});

test("whatever an attempt does, a call ends, after at most three attempts and never for a late wait", async () => {
  const failure = fc.constantFrom<Failure>(
    { kind: "transient" },
    { kind: "transient", unsent: true },
    { kind: "transient", pushBackMs: 300 },
    { kind: "permanent" },
    { kind: "forbidden" },
  );
  const attempt = fc.record({ failure: fc.option(failure), ms: fc.integer({ min: 0, max: 400 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(attempt, { minLength: 3, maxLength: 3 }),
      fc.boolean(),
      fc.option(fc.integer({ min: 1, max: 1_000 })),
      async (attempts, repeatable, timeoutMs) => {
        const { retrier, clock, events } = setUp();
        const deadline = timeoutMs === null ? undefined : clock.now() + timeoutMs;
        const starts: number[] = [];
        const result = retrier.run(
          (number) =>
            new Promise<void>((resolve, reject) => {
              starts.push(clock.now());
              const plan = attempts[number - 1];
              clock.after(plan?.ms ?? 0, () =>
                plan?.failure ? reject(new Failed(plan.failure)) : resolve(),
              );
            }),
          { repeatable, deadline },
        );
        const outcome = result.then(
          () => "ok",
          () => "failed",
        );
        while (clock.pending > 0) {
          clock.advance(50);
          await settled();
        }
        await outcome;
        expect(starts.length).toBeLessThanOrEqual(3);
        for (const start of starts.slice(1)) {
          expect(start).toBeLessThanOrEqual(deadline ?? Number.POSITIVE_INFINITY);
        }
        expect(events.filter(({ kind }) => kind === "retry-scheduled")).toHaveLength(starts.length - 1);
      },
    ),
    { numRuns: 50 },
  );
});

test("a process does not end between two attempts", () => {
  const script = `
    import { createRetrier } from ${JSON.stringify(import.meta.resolve("./retrier.ts"))};
    const retrier = createRetrier({ classify: () => ({ kind: "transient" }), baseDelayMs: 20 });
    const work = async (attempt) => { if (attempt < 3) { throw new Error("not yet"); } return "done"; };
    console.log(await retrier.run(work, { repeatable: true }));
  `;
  const cwd = fileURLToPath(new URL("../../..", import.meta.url));
  const output = execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
    cwd,
    encoding: "utf8",
  });
  expect(output).toBe("done\n");
});

test("a classifier that fails itself ends the call with the work's own error", async () => {
  const { retrier, events } = setUp({
    classify: () => {
      throw new TypeError("the classifier is broken");
    },
  });
  const { work, attempts } = failing(transient);
  await expect(retrier.run(work, { repeatable: true })).rejects.toBe(transient);
  expect(attempts).toEqual([1]);
  expect(events).toMatchObject([{ kind: "gave-up", reason: "permanent" }]);
});

test.each([
  { attempts: Number.NaN },
  { attempts: 0 },
  { attempts: 1.5 },
  { baseDelayMs: Number.NaN },
  { baseDelayMs: -1 },
  { maxDelayMs: Number.NaN },
  { maxPushBackMs: Number.NaN },
  { maxPushBackMs: -1 },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => setUp(options)).toThrow(RangeError);
});
