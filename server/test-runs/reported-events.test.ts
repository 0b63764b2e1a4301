import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, test } from "vitest";
import { limitEvents } from "./reported-events.ts";
import { createRunState } from "./run-state.ts";
import { ended, event, found, identity, started, wrote } from "./test-support/events.ts";

const name = fc.constantFrom("a", "b", "c");
const fileStarted = (file: string) => event({ case: "fileStarted", value: { file } });
const fileEnded = (file: string) => event({ case: "fileEnded", value: { file } });
const tried = (each: string) =>
  event({ case: "attemptEnded", value: { test: identity(each), result: { status: 2 } } });

test("what is kept in mind of tests and files goes with their ends", () => {
  const kinds = [started, tried, ended, fileStarted, fileEnded, (each: string) => found(each, each)];
  const anyEvent = fc.tuple(fc.constantFrom(...kinds), name).map(([make, each]) => make(each));
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 60 }), (events) => {
      const state = createRunState();
      const last = ["a", "b", "c"].flatMap((each) => [ended(each), fileEnded(each)]);
      for (const [index, each] of [...events, ...last].entries()) {
        state.apply(each, index + 1, 100);
        expect(state.heldBytes).toBeGreaterThanOrEqual(0);
      }
      expect(state.heldBytes).toBe(0);
    }),
  );
});

test("a run that announces without end is refused more, and may still report ends", () => {
  const state = Object.assign(createRunState(), { heldBytes: 2 ** 30 });
  for (const opening of [found("a"), started("a"), tried("a"), fileStarted("a")]) {
    expect(() => limitEvents([opening], state, 1_000)).toThrow(
      expect.objectContaining({
        init: expect.objectContaining({ code: Code.ResourceExhausted, reason: "TOO_MANY_OPEN_TESTS" }),
      }),
    );
  }
  const closing = [ended("a"), fileEnded("a"), wrote("x")];
  expect(limitEvents(closing, state, 1_000)).toEqual(closing);
});
