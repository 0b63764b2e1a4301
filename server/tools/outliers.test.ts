import { expect, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { createOutliers } from "./outliers.ts";

const instances = [{ id: "a" }, { id: "b" }, { id: "c" }];

function setUp() {
  const clock = createFakeClock();
  const outliers = createOutliers({ clock, ejectionTimeMs: 30_000, maxEjectedPercent: 50 });
  const eligible = (group: string) => outliers.eligible(group, instances).map(({ id }) => id);
  for (const { id } of instances) {
    for (let call = 0; call < 10; call++) {
      const one = outliers.begin("read", id);
      clock.advance(5);
      one.end("success", 5);
    }
  }
  return { clock, outliers, eligible };
}

test("calls that an instance does not answer are told, although no further call comes", () => {
  const { clock, outliers, eligible } = setUp();
  let told = 0;
  const calls = Array.from({ length: 3 }, () => outliers.begin("read", "a"));
  const stops = calls.map(() => outliers.onSlow("read", "a", () => told++));
  const [stop] = stops;
  stop?.();
  clock.advance(5_000);
  expect(told).toBe(2);
  expect(eligible("read")).toEqual(["b", "c"]);
  expect(outliers.total).toBe(1);
  for (const [index, call] of calls.entries()) {
    call.end("failure");
    call.end("success");
    stops[index]?.();
  }
  expect(outliers.list().find(({ instance }) => instance === "a")).toMatchObject({
    group: "read",
    inFlight: 0,
  });
  clock.advance(1_000);
  expect(clock.pending).toBe(0);
});

test("calls of an instance that fails are not told: they end by themselves", () => {
  const { outliers, eligible } = setUp();
  let told = 0;
  outliers.onSlow("read", "a", () => told++);
  for (let call = 0; call < 3; call++) {
    outliers.begin("read", "a").end("failure", 5);
  }
  expect(eligible("read")).toEqual(["b", "c"]);
  expect(told).toBe(0);
});

test("an instance is left out for one tool and goes on with the others, until it is let back in", () => {
  const { outliers, eligible } = setUp();
  for (const { id } of instances) {
    outliers.begin("write", id).end("success", 5);
  }
  for (let call = 0; call < 3; call++) {
    outliers.begin("write", "a").end("failure", 5);
  }
  expect(eligible("write")).toEqual(["b", "c"]);
  expect(eligible("read")).toEqual(["a", "b", "c"]);
  expect(outliers.restore("a")).toBe(true);
  expect(outliers.restore("unknown")).toBe(false);
  expect(eligible("write")).toEqual(["a", "b", "c"]);
});
