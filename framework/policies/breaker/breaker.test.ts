import { describe, expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { type Breaker, createBreaker } from "./breaker.ts";
import type { BreakerOptions } from "./options.ts";
import type { BreakerEvent, BreakerPermit, Outcome } from "./state.ts";

function setUp(options: BreakerOptions = {}) {
  const clock = createFakeClock();
  const events: BreakerEvent[] = [];
  const breaker = createBreaker({ name: "b", clock, onEvent: (event) => events.push(event), ...options });
  return { clock, events, breaker };
}

function admitted(breaker: Breaker): BreakerPermit {
  const permit = breaker.tryAcquire();
  if (!permit.allowed) {
    throw new Error(`refused: ${permit.state}`);
  }
  return permit;
}

function report(breaker: Breaker, ...outcomes: Outcome[]): void {
  for (const outcome of outcomes) {
    admitted(breaker).record(outcome, outcome === "failure" ? "it broke" : undefined);
  }
}

describe("closed", () => {
  test("it opens with the third failure in a row, not with three among successes", () => {
    const { breaker, events, clock } = setUp();
    report(breaker, "failure", "failure", "success", "failure", "failure");
    expect(breaker.snapshot()).toMatchObject({ state: { kind: "closed" }, consecutiveFailures: 2 });
    report(breaker, "failure");
    expect(breaker.tryAcquire()).toEqual({ allowed: false, name: "b", state: "open", retryAfterMs: 30_000 });
    expect(events).toEqual([
      {
        kind: "opened",
        name: "b",
        at: clock.now(),
        from: "closed",
        cause: "consecutive-failures",
        openMs: 30_000,
        lastFailure: "it broke",
      },
    ]);
  });

  test("ignored calls neither count as failures nor end a row of them", () => {
    const { breaker } = setUp();
    report(breaker, ...Array<Outcome>(100).fill("ignored"));
    expect(breaker.snapshot()).toMatchObject({ consecutiveFailures: 0, window: { calls: 0 } });
    report(breaker, "failure", "ignored", "failure", "ignored", "failure");
    expect(breaker.state).toBe("open");
  });

  test("it opens when half of at least ten calls in a minute have failed", () => {
    const { breaker, events } = setUp();
    for (let pair = 0; pair < 4; pair++) {
      report(breaker, "success", "failure");
    }
    report(breaker, "success");
    expect(breaker.state).toBe("closed");
    report(breaker, "failure");
    expect(events).toMatchObject([{ kind: "opened", cause: "failure-rate" }]);
  });

  test("failures that are older than the window are forgotten", () => {
    const { breaker, clock } = setUp();
    for (let pair = 0; pair < 4; pair++) {
      report(breaker, "success", "failure");
    }
    clock.advance(60_000);
    expect(breaker.snapshot().window).toEqual({ calls: 0, failures: 0, slowCalls: 0 });
    report(breaker, "success", "failure");
    expect(breaker.state).toBe("closed");
  });

  test("it opens when four of five calls are slow, though they succeed", () => {
    const { breaker, clock, events } = setUp({ slowCallMs: 500 });
    const call = (ms: number) => {
      const permit = admitted(breaker);
      clock.advance(ms);
      permit.record("success");
    };
    [499, 499, 500, 500, 500, 500, 500, 500, 500].forEach(call);
    expect(breaker.snapshot().window).toEqual({ calls: 9, failures: 0, slowCalls: 7 });
    call(500);
    expect(events).toMatchObject([{ kind: "opened", cause: "slow-call-rate", lastFailure: undefined }]);
  });

  test("no call is slow unless it is said what slow means", () => {
    const { breaker, clock } = setUp();
    for (let call = 0; call < 20; call++) {
      const permit = admitted(breaker);
      clock.advance(600_000);
      permit.record("success");
    }
    expect(breaker.state).toBe("closed");
  });

  test("a call reports once, whatever it says afterwards", () => {
    const { breaker } = setUp();
    const permit = admitted(breaker);
    for (let time = 0; time < 5; time++) {
      permit.record("failure");
    }
    expect(breaker.snapshot()).toMatchObject({ state: { kind: "closed" }, consecutiveFailures: 1 });
  });
});

describe("open", () => {
  test("it refuses until its time is over, then lets two probes through and refuses the rest", () => {
    const { breaker, clock, events } = setUp();
    report(breaker, "failure", "failure", "failure");
    clock.advance(29_999);
    expect(breaker.tryAcquire()).toMatchObject({ allowed: false, state: "open", retryAfterMs: 1 });
    clock.advance(1);
    const [one, two] = [admitted(breaker), admitted(breaker)];
    expect([one.probe, two.probe]).toEqual([true, true]);
    expect(breaker.tryAcquire()).toMatchObject({ allowed: false, state: "half-open" });
    one.record("success");
    expect(breaker.tryAcquire()).toMatchObject({ allowed: false, state: "half-open" });
    two.record("success");
    expect(admitted(breaker).probe).toBe(false);
    expect(events.map(({ kind }) => kind)).toEqual(["opened", "half-opened", "closed"]);
    expect(breaker.snapshot()).toMatchObject({ rejected: 3, timesOpened: 1, consecutiveFailures: 0 });
  });

  test("without calls it stays open, and says when it may be tried", () => {
    const { breaker, clock } = setUp();
    report(breaker, "failure", "failure", "failure");
    const since = clock.now();
    clock.advance(3_600_000);
    expect(breaker.snapshot().state).toEqual({
      kind: "open",
      since,
      retryAt: since + 30_000,
      cause: "consecutive-failures",
    });
  });

  test("each probing that fails doubles the time, up to five minutes, and closing starts over", () => {
    const { breaker, clock, events } = setUp();
    report(breaker, "failure", "failure", "failure");
    for (const openMs of [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
      expect(events.at(-1)).toMatchObject({ kind: "opened", openMs });
      clock.advance(openMs);
      report(breaker, "failure");
    }
    clock.advance(300_000);
    report(breaker, "success", "success", "failure", "failure", "failure");
    expect(events.at(-1)).toMatchObject({ kind: "opened", from: "closed", openMs: 30_000 });
  });

  test("jitter lengthens the time, never shortens it", () => {
    const { breaker, events } = setUp({ jitter: 0.2, random: () => 0.5 });
    report(breaker, "failure", "failure", "failure");
    expect(events).toMatchObject([{ openMs: 33_000 }]);
  });

  test("calls that were let through before say nothing about it now", () => {
    const { breaker, clock } = setUp();
    const early = Array.from({ length: 6 }, () => admitted(breaker));
    early.slice(0, 3).forEach((permit) => {
      permit.record("failure");
    });
    const opened = breaker.snapshot();
    early[3]?.record("failure");
    expect(breaker.snapshot()).toEqual({ ...opened, late: 1 });
    clock.advance(30_000);
    const probe = admitted(breaker);
    early[4]?.record("success");
    early[5]?.record("failure");
    expect(breaker.snapshot()).toMatchObject({ state: { kind: "half-open", succeeded: 0 }, late: 3 });
    probe.record("success");
    expect(breaker.snapshot().state).toMatchObject({ kind: "half-open", probing: 0, succeeded: 1 });
  });
});

describe("half-open", () => {
  function halfOpen(options: BreakerOptions = {}) {
    const parts = setUp(options);
    report(parts.breaker, "failure", "failure", "failure");
    parts.clock.advance(30_000);
    return parts;
  }

  test("a probe that says nothing about the backend gives its place to another", () => {
    const { breaker } = halfOpen();
    for (let probe = 0; probe < 10; probe++) {
      const [one, two] = [admitted(breaker), admitted(breaker)];
      expect(breaker.tryAcquire().allowed).toBe(false);
      one.record("ignored");
      two.record("ignored");
    }
    report(breaker, "success", "success");
    expect(breaker.state).toBe("closed");
  });

  test("probes that never report lose their places after a while", () => {
    const { breaker, clock } = halfOpen({ probeTimeoutMs: 10_000 });
    admitted(breaker);
    clock.advance(5_000);
    admitted(breaker);
    clock.advance(4_999);
    expect(breaker.tryAcquire().allowed).toBe(false);
    clock.advance(1);
    expect(breaker.tryAcquire().allowed).toBe(true);
    expect(breaker.tryAcquire().allowed).toBe(false);
  });

  test("probes that take longer than their places are kept still close it", () => {
    const { breaker, clock } = halfOpen({ probeTimeoutMs: 10_000 });
    const slow = [admitted(breaker), admitted(breaker)];
    clock.advance(15_000);
    expect(breaker.tryAcquire().allowed).toBe(true);
    slow.forEach((probe) => {
      probe.record("success");
    });
    expect(breaker.state).toBe("closed");
  });

  test("a failed probe opens it at once, and the other one is late", () => {
    const { breaker, events } = halfOpen();
    const [one, two] = [admitted(breaker), admitted(breaker)];
    one.record("failure", "still broken");
    two.record("success");
    expect(breaker.snapshot()).toMatchObject({
      state: { kind: "open", cause: "probe-failed" },
      late: 1,
      lastFailure: { text: "still broken" },
    });
    expect(events.at(-1)).toMatchObject({ kind: "opened", from: "half-open", openMs: 60_000 });
  });

  test("probes that succeed slowly do not close it where slow calls open it", () => {
    const { breaker, clock, events } = halfOpen({ slowCallMs: 500 });
    const [one, two] = [admitted(breaker), admitted(breaker)];
    clock.advance(500);
    one.record("success");
    two.record("success");
    expect(events.at(-1)).toMatchObject({ kind: "opened", cause: "probes-slow", openMs: 60_000 });
  });
});

describe("by hand", () => {
  test("an isolated breaker refuses until it is reset, and knows of no time", () => {
    const { breaker, clock, events } = setUp();
    const before = admitted(breaker);
    breaker.isolate("maintenance");
    before.record("success");
    clock.advance(86_400_000);
    expect(breaker.tryAcquire()).toEqual({
      allowed: false,
      name: "b",
      state: "isolated",
      retryAfterMs: undefined,
    });
    expect(breaker.snapshot().state).toMatchObject({ kind: "isolated", reason: "maintenance" });
    breaker.reset();
    report(breaker, "success");
    expect(events).toMatchObject([
      { kind: "isolated", from: "closed", reason: "maintenance" },
      { kind: "closed", from: "isolated", by: "reset" },
    ]);
  });

  test("a reset closes an open breaker and forgets what opened it and how long it was open", () => {
    const { breaker, clock, events } = setUp();
    report(breaker, "failure", "failure", "failure");
    clock.advance(30_000);
    report(breaker, "failure");
    breaker.reset();
    report(breaker, "failure", "failure");
    expect(breaker.state).toBe("closed");
    report(breaker, "failure");
    expect(events.at(-1)).toMatchObject({ kind: "opened", openMs: 30_000 });
  });
});

test("failures in a row can be all that counts, and be without meaning", () => {
  const row = setUp({ failureRate: Number.POSITIVE_INFINITY }).breaker;
  for (let call = 0; call < 20; call++) {
    report(row, "success", "failure", "failure");
  }
  expect(row.snapshot()).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
  report(row, "failure");
  expect(row.state).toBe("open");

  const rate = setUp({ consecutiveFailures: Number.POSITIVE_INFINITY }).breaker;
  report(rate, ...Array<Outcome>(9).fill("failure"));
  expect(rate.state).toBe("closed");
  report(rate, "failure");
  expect(rate.snapshot().state).toMatchObject({ kind: "open", cause: "failure-rate" });
});

test("a listener that throws does not keep a breaker from its next state", () => {
  const { breaker, clock } = setUp({
    onEvent() {
      throw new Error("listener");
    },
  });
  report(breaker, "failure", "failure", "failure");
  expect(breaker.state).toBe("open");
  clock.advance(30_000);
  report(breaker, "success", "success");
  expect(breaker.state).toBe("closed");
});

test("a listener may reset the breaker that it hears of", () => {
  const clock = createFakeClock();
  const breaker: Breaker = createBreaker({
    clock,
    onEvent: ({ kind }) => kind === "half-opened" && breaker.reset(),
  });
  report(breaker, "failure", "failure", "failure");
  clock.advance(30_000);
  admitted(breaker).record("failure");
  expect(breaker.snapshot()).toMatchObject({ state: { kind: "closed" }, consecutiveFailures: 0, late: 1 });
});

test("the text of a failure is kept in part", () => {
  const { breaker } = setUp();
  admitted(breaker).record("failure", "x".repeat(100_000));
  expect(breaker.snapshot().lastFailure?.text).toHaveLength(300);
});

test.each<[string, BreakerOptions]>([
  ["consecutiveFailures", { consecutiveFailures: 0 }],
  ["windowMs", { windowMs: 0 }],
  ["failureRate", { failureRate: 50 }],
  ["slowCallRate", { slowCallRate: 0 }],
  ["slowCallMs", { slowCallMs: 0 }],
  ["minimumCalls", { minimumCalls: Number.NaN }],
  ["openMs", { openMs: -1 }],
  ["maxOpenMs", { openMs: 1_000, maxOpenMs: 999 }],
  ["backoffFactor", { backoffFactor: 0.5 }],
  ["jitter", { jitter: 2 }],
  ["probes", { probes: 1.5 }],
  ["probeTimeoutMs", { probeTimeoutMs: 0 }],
])("an impossible %s is named", (option, options) => {
  expect(() => createBreaker(options)).toThrow(option);
});

test.each([{ maxOpenMs: Number.POSITIVE_INFINITY }, { backoffFactor: Number.POSITIVE_INFINITY }])(
  "no option keeps a breaker open for ever: %o",
  (options) => {
    expect(() => createBreaker(options)).toThrow(RangeError);
  },
);
