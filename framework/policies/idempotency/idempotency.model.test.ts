import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createIdempotency, IdempotencyError } from "./idempotency.ts";
import { createMemoryIdempotencyStore } from "./memory-store.ts";
import type { IdempotentOutcome } from "./store.ts";

const LEASE_MS = 300;
const REPLICAS = 3;

type Step =
  | { readonly kind: "call"; readonly replica: number; readonly id: string; readonly fingerprint: string }
  | { readonly kind: "leave"; readonly call: number }
  | { readonly kind: "end"; readonly work: number; readonly how: "success" | "failure" | "transient" }
  /** The process dies: nothing that it does reaches the store any more. */
  | { readonly kind: "kill"; readonly replica: number }
  /** The store fails for one replica, or is back. */
  | { readonly kind: "cut"; readonly replica: number; readonly down: boolean }
  | { readonly kind: "wait"; readonly ms: number };

const replica = fc.nat(REPLICAS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("call" as const),
      replica,
      id: fc.constantFrom("1", "1", "2"),
      fingerprint: fc.constantFrom("a", "a", "a", "b"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("leave" as const), call: fc.nat(30) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("end" as const),
      work: fc.nat(20),
      how: fc.constantFrom(
        "success" as const,
        "failure" as const,
        "transient" as const,
        "transient" as const,
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("kill" as const), replica }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("cut" as const), replica, down: fc.boolean() }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 400 }) }),
  },
);

async function settle(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) {
    await Promise.resolve();
  }
}

/** A replica whose process and whose way to the store can fail. */
function createReplica(
  shared: ReturnType<typeof createMemoryIdempotencyStore>,
  clock: ReturnType<typeof createFakeClock>,
) {
  const state = { dead: false, down: false };
  const reach = <T>(operation: () => Promise<T>): Promise<T> =>
    state.dead ? new Promise(() => {}) : state.down ? Promise.reject(new Error("down")) : operation();
  const idempotency = createIdempotency({
    clock,
    leaseMs: LEASE_MS,
    workTimeoutMs: 5_000,
    store: {
      ...shared,
      claim: (request) => reach(() => shared.claim(request)),
      renew: (claim, leaseMs) => reach(() => shared.renew(claim, leaseMs)),
      complete: (claim, outcome, ms) => reach(() => shared.complete(claim, outcome, ms)),
      release: (claim) => reach(() => shared.release(claim)),
    },
  });
  return { state, idempotency };
}

test("whatever fails when, an id has one outcome, belongs to one request, and work runs twice only where its owner seemed dead", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (steps) => {
      const clock = createFakeClock();
      const shared = createMemoryIdempotencyStore({ clock });
      const replicas = Array.from({ length: REPLICAS }, () => createReplica(shared, clock));
      const works: {
        readonly id: string;
        readonly fingerprint: string;
        readonly replica: number;
        readonly signal: AbortSignal;
        /** Whether its replica was healthy from its begin to its end. */
        healthy: boolean;
        over: boolean;
        end: (how: "success" | "failure" | "transient") => void;
      }[] = [];
      const leavers: AbortController[] = [];
      const violations: string[] = [];
      /** What callers were told, by id. */
      const told = new Map<
        string,
        { readonly fingerprint: string; readonly text: string; certain: boolean }[]
      >();

      function unhealthy(index: number): void {
        for (const work of works.filter((one) => one.replica === index && !one.over)) {
          work.healthy = false;
        }
      }

      function call({ replica: index, id, fingerprint }: Extract<Step, { kind: "call" }>): void {
        const controller = new AbortController();
        leavers.push(controller);
        let own: (typeof works)[number] | undefined;
        replicas[index]?.idempotency
          .run(
            { scope: "test", requestId: id, fingerprint },
            (signal) => {
              const { promise, resolve, reject } = Promise.withResolvers<IdempotentOutcome>();
              const number = works.length;
              own = {
                id,
                fingerprint,
                replica: index,
                signal,
                healthy: replicas[index]?.state.down === false,
                over: false,
                end(how) {
                  this.over = true;
                  if (how === "transient") {
                    reject(new Error("transient"));
                  } else {
                    resolve({ kind: how, bytes: Buffer.from(`${how} of work ${number}`) });
                  }
                },
              };
              // While another one works, a second may begin only if the first seemed dead or was stopped.
              for (const other of works.filter((one) => one.id === id && !one.over)) {
                if (other.healthy && !other.signal.aborted) {
                  violations.push(
                    `work ${works.length} began while work ${works.indexOf(other)} was being done`,
                  );
                }
              }
              works.push(own);
              return promise;
            },
            { signal: controller.signal },
          )
          .then(
            ({ outcome, replayed }) => {
              const text = Buffer.from(outcome.bytes).toString();
              const certain = replayed || own?.healthy === true;
              told.set(id, [...(told.get(id) ?? []), { fingerprint, text, certain }]);
            },
            (error: unknown) => {
              if (error instanceof IdempotencyError && error.reason === "LEASE_LOST") {
                violations.push("a caller was told what only the work should know");
              }
            },
          );
      }

      for (const one of steps) {
        switch (one.kind) {
          case "call":
            call(one);
            break;
          case "leave":
            leavers[one.call]?.abort("left");
            break;
          case "end": {
            const work = works[one.work];
            if (work !== undefined && !work.over) {
              work.end(one.how);
            }
            break;
          }
          case "kill": {
            const killed = replicas[one.replica];
            if (killed !== undefined) {
              killed.state.dead = true;
              unhealthy(one.replica);
              replicas[one.replica] = createReplica(shared, clock);
            }
            break;
          }
          case "cut": {
            const cut = replicas[one.replica];
            if (cut !== undefined) {
              cut.state.down = one.down;
            }
            if (one.down) {
              unhealthy(one.replica);
            }
            break;
          }
          case "wait":
            for (let passed = 0; passed < one.ms; passed += 25) {
              clock.advance(25);
              await settle();
            }
            break;
        }
        await settle();
      }

      for (const answers of told.values()) {
        // What was recorded is the one outcome, told to everyone from then on.
        const certain = answers.filter((answer) => answer.certain);
        expect(
          new Set(certain.map(({ text, fingerprint }) => `${text} for ${fingerprint}`)).size,
        ).toBeLessThanOrEqual(1);
      }
      expect(violations).toEqual([]);
      // All that is left ends: nobody waits for ever.
      for (const { state } of replicas) {
        state.down = false;
      }
      for (let round = 0; round < 40; round++) {
        for (const work of works.filter(({ over }) => !over)) {
          work.end("success");
        }
        for (let passed = 0; passed < 1_000; passed += 50) {
          clock.advance(50);
          await settle();
        }
        if (replicas.every(({ idempotency }) => idempotency.stats().inFlight === 0)) {
          break;
        }
      }
      for (const { idempotency } of replicas) {
        expect(idempotency.stats().inFlight).toBe(0);
      }
    }),
    { numRuns: 500 },
  );
});
