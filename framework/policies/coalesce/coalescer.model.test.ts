import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createCoalescer } from "./coalescer.ts";

const WINDOW_MS = 50;
const MAX_IN_FLIGHT = 2;
const OUTLIVE_MS = 10;

type Step =
  | { readonly kind: "call"; readonly key: string; readonly timeoutMs: number | undefined }
  | { readonly kind: "leave"; readonly caller: number }
  | { readonly kind: "end"; readonly execution: number; readonly how: "succeed" | "fail" | "time out" }
  | { readonly kind: "wait"; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("call" as const),
      key: fc.constantFrom("a", "b", "c"),
      timeoutMs: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("leave" as const), caller: fc.nat(30) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("end" as const),
      execution: fc.nat(30),
      how: fc.constantFrom("succeed" as const, "fail" as const, "time out" as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 60 }) }),
  },
);

/** An execution as it should be: everything is found by looking through lists. */
interface ModelExecution {
  readonly id: number;
  readonly key: string;
  readonly since: number;
  readonly leaderDeadline: number | undefined;
  present: number[];
  /** Whether newcomers look at it. */
  findable: boolean;
  state: "running" | "over" | "cancelled";
}

function createModel() {
  const executions: ModelExecution[] = [];
  const outcomes = new Map<number, string>();
  const deadlines = new Map<number, number | undefined>();
  let now = 0;

  function begin(key: string, present: number[], findable: boolean) {
    const leaderDeadline = deadlines.get(present[0] ?? -1);
    const id = executions.length;
    executions.push({ id, key, since: now, present, leaderDeadline, findable, state: "running" });
  }
  const findable = () => executions.filter((one) => one.findable && one.state === "running");

  function leave(caller: number, reason: string) {
    const found = executions.find(({ present, state }) => state === "running" && present.includes(caller));
    if (found !== undefined) {
      found.present = found.present.filter((one) => one !== caller);
      outcomes.set(caller, reason);
      if (found.present.length === 0) {
        found.state = "cancelled";
      }
    }
  }

  return {
    executions,
    outcomes,
    leave,
    call(caller: number, key: string, deadline: number | undefined) {
      deadlines.set(caller, deadline);
      const found = findable().find((one) => one.key === key);
      if (found !== undefined && now - found.since <= WINDOW_MS) {
        found.present.push(caller);
        return;
      }
      begin(key, [caller], found !== undefined || findable().length < MAX_IN_FLIGHT);
      if (found !== undefined) {
        found.findable = false;
      }
    },
    end(execution: ModelExecution, how: "succeed" | "fail" | "time out") {
      execution.state = "over";
      const limit = execution.leaderDeadline;
      const outlives = (caller: number) =>
        how === "time out" &&
        limit !== undefined &&
        (deadlines.get(caller) ?? Number.POSITIVE_INFINITY) >= limit + OUTLIVE_MS;
      for (const caller of execution.present.filter((one) => !outlives(one))) {
        outcomes.set(caller, `${how} ${execution.id}`);
      }
      const outliving = execution.present.filter(outlives);
      if (outliving.length > 0) {
        begin(execution.key, outliving, execution.findable);
      }
    },
    moveTo(time: number) {
      now = time;
    },
  };
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 12; turn++) {
    await Promise.resolve();
  }
}

test("random calls, departures, ends and timeouts leave everyone with what the model says", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (steps) => {
      const clock = createFakeClock();
      const model = createModel();
      const outcomes = new Map<number, string>();
      const running: { signal: AbortSignal; end: (how: string) => void }[] = [];
      const leavers: ((reason: string) => void)[] = [];
      const coalescer = createCoalescer<{ text: string }>({
        windowMs: WINDOW_MS,
        maxInFlight: MAX_IN_FLIGHT,
        outliveMs: OUTLIVE_MS,
        clock,
        mayOutlive: (error) => String(error).startsWith("time out"),
      });
      const work = (signal: AbortSignal) => {
        const { promise, resolve, reject } = Promise.withResolvers<{ text: string }>();
        const text = (how: string) => `${how} ${running.indexOf(entry)}`;
        const entry = {
          signal,
          end: (how: string) => (how === "succeed" ? resolve({ text: text(how) }) : reject(text(how))),
        };
        running.push(entry);
        return promise;
      };

      for (const one of steps) {
        switch (one.kind) {
          case "call": {
            const caller = leavers.length;
            const controller = new AbortController();
            const leave = (reason: string) => {
              controller.abort(reason);
              model.leave(caller, reason);
            };
            leavers.push(leave);
            const deadline = one.timeoutMs === undefined ? undefined : clock.monotonic() + one.timeoutMs;
            model.call(caller, one.key, deadline);
            coalescer
              .run(one.key, work, { signal: controller.signal, deadline, copy: structuredClone })
              .then(({ text }) => text, String)
              .then((outcome) => outcomes.set(caller, outcome));
            if (one.timeoutMs !== undefined) {
              clock.after(one.timeoutMs, () => {
                model.moveTo(clock.monotonic());
                leave(`deadline of ${caller}`);
              });
            }
            break;
          }
          case "leave":
            leavers[one.caller]?.(`${one.caller} left`);
            break;
          case "end": {
            const execution = model.executions[one.execution];
            if (execution?.state === "running") {
              running[one.execution]?.end(one.how);
              model.end(execution, one.how);
            }
            break;
          }
          case "wait":
            clock.advance(one.ms);
            model.moveTo(clock.monotonic());
            break;
        }
        await settle();
        expect(running.map(({ signal }) => signal.aborted)).toEqual(
          model.executions.map(({ state }) => state === "cancelled"),
        );
        expect(coalescer.stats().inFlight).toBe(
          model.executions.filter(({ state }) => state === "running").length,
        );
      }
      expect(outcomes).toEqual(new Map([...model.outcomes].sort()));
    }),
    { numRuns: 1_000 },
  );
});
