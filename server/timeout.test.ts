import { getEventListeners } from "node:events";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { expect, test } from "vitest";
import { createFakeClock } from "../framework/test-support/fake-clock.ts";
import { createTimeout, isTimeout } from "./timeout.ts";

function setUp(caller = new AbortController()) {
  const clock = createFakeClock();
  return { clock, caller, timeout: createTimeout(clock, 1_000, caller.signal) };
}

test("a call ends at its deadline", () => {
  const { clock, timeout } = setUp();
  clock.advance(999);
  expect(timeout.signal.aborted).toBe(false);
  clock.advance(1);
  expect(timeout.signal.reason).toMatchObject({ code: Code.DeadlineExceeded });
});

test("a call ends with its caller, with the caller's reason where that is one for callers", () => {
  const { caller, timeout } = setUp();
  const reason = new ConnectError("the connection is gone", Code.Unavailable);
  caller.abort(reason);
  expect(timeout.signal.reason).toBe(reason);
  const other = setUp();
  other.caller.abort();
  expect(other.timeout.signal.reason).toMatchObject({ code: Code.Canceled });
  const gone = new AbortController();
  gone.abort();
  expect(setUp(gone).timeout.signal.aborted).toBe(true);
});

test("a call that is over lets go of clock and caller", () => {
  const { clock, caller, timeout } = setUp();
  timeout.clear();
  expect(clock.pending).toBe(0);
  expect(getEventListeners(caller.signal, "abort")).toEqual([]);
  timeout.leave();
  expect(timeout.signal.reason).toMatchObject({ code: Code.Canceled });
});

test("time that is up is known by its code, whoever says so", () => {
  expect(isTimeout(new ConnectError("x", Code.DeadlineExceeded))).toBe(true);
  expect(isTimeout(new DomainError({ code: Code.DeadlineExceeded, reason: "X", message: "x" }))).toBe(true);
  expect(isTimeout(new ConnectError("x", Code.Canceled))).toBe(false);
  expect(isTimeout(new Error("x"))).toBe(false);
});
