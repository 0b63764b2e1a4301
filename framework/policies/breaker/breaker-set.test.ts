import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { type BreakerSetOptions, createBreakerSet } from "./breaker-set.ts";

function setUp(options: BreakerSetOptions = {}) {
  const clock = createFakeClock();
  const set = createBreakerSet({ ...options, defaults: { clock, consecutiveFailures: 1 } });
  const trip = (name: string) => {
    const permit = set.get(name).tryAcquire();
    if (permit.allowed) {
      permit.record("failure", "down");
    }
  };
  return { clock, set, trip };
}

test("a name has one breaker, with the options of that name", () => {
  const { set, trip } = setUp({
    optionsFor: (name) => (name === "lenient" ? { consecutiveFailures: 2 } : undefined),
  });
  trip("strict");
  trip("lenient");
  expect(set.get("strict")).toBe(set.get("strict"));
  expect(set.list().map(({ name, state }) => [name, state.kind])).toEqual([
    ["strict", "open"],
    ["lenient", "closed"],
  ]);
});

test("a call needs the leave of all: when one refuses, the others' probes are given back", () => {
  const { set, clock, trip } = setUp();
  const names = ["service", "instance", "method"];
  names.forEach(trip);
  clock.advance(30_000);
  set.isolate("method");
  for (let call = 0; call < 10; call++) {
    expect(set.acquire(names)).toMatchObject({ allowed: false, name: "method", state: "isolated" });
  }
  expect(set.get("service").snapshot().state).toMatchObject({ kind: "half-open", probing: 0 });
  set.reset("method");
  for (let probe = 0; probe < 2; probe++) {
    const permit = set.acquire(names);
    expect(permit).toMatchObject({ allowed: true, probe: true });
    if (permit.allowed) {
      permit.record("success");
      permit.record("failure");
    }
  }
  expect(set.list().map(({ state }) => state.kind)).toEqual(["closed", "closed", "closed"]);
});

test("what is not in use makes room; open and isolated breakers stay", () => {
  const { set, trip } = setUp({ maxBreakers: 10 });
  trip("open");
  set.isolate("isolated");
  set.get("busy");
  for (let index = 0; index < 1_000; index++) {
    set.get(`idle ${index}`);
    set.get("busy");
  }
  expect(set.size).toBe(10);
  expect(set.dropped).toBe(993);
  const names = set.list().map(({ name }) => name);
  expect(names.slice(0, 2)).toEqual(["isolated", "open"]);
  expect(names).toContain("busy");
});

test("when all are open, further ones are handed out and not kept", () => {
  const { set, trip } = setUp({ maxBreakers: 100 });
  for (let index = 0; index < 100; index++) {
    trip(`open ${index}`);
  }
  expect(set.get("another").tryAcquire().allowed).toBe(true);
  expect(set.size).toBe(100);
  expect(set.unkept).toBe(1);
});

test("a set of one works", () => {
  const { set } = setUp({ maxBreakers: 1 });
  set.get("a");
  set.get("a");
  set.get("b");
  expect(set.list().map(({ name }) => name)).toEqual(["b"]);
});

test("a breaker is reset and removed by name; unknown names say so", () => {
  const { set, trip } = setUp();
  trip("a");
  expect(set.reset("a")).toBe(true);
  expect(set.get("a").state).toBe("closed");
  expect(set.reset("b")).toBe(false);
  expect(set.remove("a")).toBe(true);
  expect(set.remove("a")).toBe(false);
  expect(set.size).toBe(0);
});

test("what was never used can be isolated, even when the set is full", () => {
  const { set, trip } = setUp({ maxBreakers: 2 });
  trip("a");
  trip("b");
  set.isolate("c", "maintenance");
  expect(set.get("c").tryAcquire()).toMatchObject({ allowed: false, state: "isolated" });
});
