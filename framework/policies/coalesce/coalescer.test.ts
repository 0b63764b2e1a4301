import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { type CoalescerEvent, type CoalescerOptions, createCoalescer, type Flight } from "./coalescer.ts";

/** Work that ends when it is told to, and a record of every time it was begun. */
function open<T extends object = { value: number }>(options: CoalescerOptions = {}) {
  const clock = createFakeClock();
  const events: CoalescerEvent[] = [];
  const coalescer = createCoalescer<T>({ clock, onEvent: (event) => events.push(event), ...options });
  const begun: {
    readonly signal: AbortSignal;
    readonly flight: Flight;
    readonly succeed: (result: T) => void;
    readonly fail: (error: unknown) => void;
  }[] = [];
  const work = (signal: AbortSignal, flight: Flight) => {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    begun.push({ signal, flight, succeed: resolve, fail: reject });
    return promise;
  };
  return { clock, events, coalescer, begun, work };
}

/** Lets everything happen that can happen without time passing. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) {
    await Promise.resolve();
  }
}

test("a hundred callers of the same key share one execution", async () => {
  const { coalescer, begun, work } = open();
  const calls = Array.from({ length: 100 }, () => coalescer.run("key", work));
  await settle();
  expect(begun).toHaveLength(1);
  begun[0]?.succeed({ value: 7 });
  expect(await Promise.all(calls)).toEqual(Array.from({ length: 100 }, () => ({ value: 7 })));
  expect(coalescer.stats()).toEqual({
    led: 1,
    joined: 99,
    coalesceRate: 0.99,
    inFlight: 0,
    overflowed: 0,
    cancelled: 0,
    repeated: 0,
    maxPresent: 100,
  });
});

test("different keys share nothing, and nothing is kept once work is over", async () => {
  const { coalescer, begun, work } = open();
  const first = coalescer.run("a", work);
  const other = coalescer.run("b", work);
  await settle();
  begun[0]?.succeed({ value: 1 });
  begun[1]?.succeed({ value: 2 });
  expect(await Promise.all([first, other])).toEqual([{ value: 1 }, { value: 2 }]);
  const again = coalescer.run("a", work);
  await settle();
  begun[2]?.succeed({ value: 3 });
  expect(await again).toEqual({ value: 3 });
});

test("a failure goes to everyone present, as an error of their own, and is not kept", async () => {
  const { coalescer, begun, work } = open();
  const copyError = (error: unknown) => new Error("copy", { cause: error });
  const calls = [1, 2, 3].map(() =>
    coalescer.run("key", work, { copyError }).catch((error: unknown) => error),
  );
  await settle();
  const failure = new Error("no");
  begun[0]?.fail(failure);
  const [first, second, third] = await Promise.all(calls);
  expect(first).toBe(failure);
  expect(second).toMatchObject({ message: "copy", cause: failure });
  expect(third).not.toBe(second);
  void coalescer.run("key", work);
  await settle();
  expect(begun).toHaveLength(2);
});

test("work that throws before it returns a promise fails its callers", async () => {
  const { coalescer } = open();
  await expect(
    coalescer.run("key", () => {
      throw new Error("at once");
    }),
  ).rejects.toThrow("at once");
  expect(coalescer.stats().inFlight).toBe(0);
});

test("the leader's leaving does not touch the work, nor does a follower's", async () => {
  const { coalescer, begun, work } = open();
  const [leader, follower] = [new AbortController(), new AbortController()];
  const led = coalescer.run("key", work, { signal: leader.signal });
  const followed = coalescer.run("key", work, { signal: follower.signal });
  const staying = coalescer.run("key", work);
  await settle();
  leader.abort(new Error("leader left"));
  follower.abort(new Error("follower left"));
  await expect(led).rejects.toThrow("leader left");
  await expect(followed).rejects.toThrow("follower left");
  expect(begun[0]?.signal.aborted).toBe(false);
  begun[0]?.succeed({ value: 1 });
  expect(await staying).toEqual({ value: 1 });
});

test("the last one's leaving cancels the work with its reason, and a newcomer starts anew", async () => {
  const { coalescer, begun, work, events } = open();
  const [one, two] = [new AbortController(), new AbortController()];
  const calls = [one, two].map(({ signal }) => coalescer.run("key", work, { signal }));
  const outcomes = Promise.allSettled(calls);
  await settle();
  one.abort("first");
  two.abort("last");
  await outcomes;
  expect(begun[0]?.signal.reason).toBe("last");
  const newcomer = coalescer.run("key", work);
  await settle();
  expect(begun).toHaveLength(2);
  // What the cancelled work still does is nobody's business.
  begun[0]?.succeed({ value: 1 });
  begun[1]?.succeed({ value: 2 });
  expect(await newcomer).toEqual({ value: 2 });
  expect(events.map(({ kind }) => kind)).toEqual(["led", "joined", "cancelled", "led"]);
  expect(coalescer.stats()).toMatchObject({ cancelled: 1, inFlight: 0 });
});

test("a caller who has left already, or leaves at once, causes no work", async () => {
  const { coalescer, begun, work } = open();
  await expect(coalescer.run("key", work, { signal: AbortSignal.abort("gone") })).rejects.toBe("gone");
  const controller = new AbortController();
  const call = coalescer.run("key", work, { signal: controller.signal });
  controller.abort("changed my mind");
  await expect(call).rejects.toBe("changed my mind");
  expect(begun).toHaveLength(0);
});

test("work that is older than the window is not joined", async () => {
  const { coalescer, begun, work, clock } = open({ windowMs: 1_000 });
  const old = coalescer.run("key", work);
  await settle();
  clock.advance(1_000);
  const joined = coalescer.run("key", work);
  clock.advance(1);
  const young = coalescer.run("key", work);
  await settle();
  expect(begun).toHaveLength(2);
  // The old one's end must not hide the young one from others.
  begun[0]?.succeed({ value: 1 });
  expect(await Promise.all([old, joined])).toEqual([{ value: 1 }, { value: 1 }]);
  const late = coalescer.run("key", work);
  begun[1]?.succeed({ value: 2 });
  expect(await Promise.all([young, late])).toEqual([{ value: 2 }, { value: 2 }]);
  expect(begun).toHaveLength(2);
});

test("beyond the limit work runs for its caller alone", async () => {
  const { coalescer, begun, work, events } = open({ maxInFlight: 1 });
  const calls = ["a", "b", "b", "a"].map((key) => coalescer.run(key, work));
  await settle();
  expect(begun).toHaveLength(3);
  for (const { succeed } of begun) {
    succeed({ value: 0 });
  }
  await Promise.all(calls);
  expect(coalescer.stats()).toMatchObject({ led: 1, joined: 1, overflowed: 2, inFlight: 0 });
  expect(events.map(({ kind }) => kind)).toEqual(["led", "overflowed", "overflowed", "joined"]);
});

test("nobody gets an object that another one can change", async () => {
  const { coalescer, begun, work } = open();
  const caller = { copy: structuredClone<{ value: number }> };
  const calls = [1, 2, 3].map(() =>
    coalescer.run("key", work, caller).then((result) => {
      result.value++;
      return result;
    }),
  );
  await settle();
  begun[0]?.succeed({ value: 1 });
  const results = await Promise.all(calls);
  expect(results).toEqual([{ value: 2 }, { value: 2 }, { value: 2 }]);
  expect(new Set(results).size).toBe(3);
});

test("a copy that fails harms nobody else", async () => {
  const { coalescer, begun, work } = open();
  const first = coalescer.run("key", work);
  const broken = coalescer.run("key", work, {
    copy() {
      throw new Error("cannot copy");
    },
  });
  const last = coalescer.run("key", work);
  await settle();
  begun[0]?.succeed({ value: 1 });
  await expect(broken).rejects.toThrow("cannot copy");
  expect(await Promise.all([first, last])).toEqual([{ value: 1 }, { value: 1 }]);
});

test("the work's deadline is the furthest of those present", async () => {
  const { coalescer, begun, work } = open();
  const leaving = new AbortController();
  const outcomes = [
    coalescer.run("key", work, { deadline: 100 }),
    coalescer.run("key", work, { deadline: 50 }),
  ];
  await settle();
  const flight = begun[0]?.flight;
  expect(flight?.deadline).toBe(100);
  outcomes.push(coalescer.run("key", work, { deadline: 300, signal: leaving.signal }));
  expect(flight?.deadline).toBe(300);
  outcomes.push(coalescer.run("key", work));
  expect(flight?.deadline).toBeUndefined();
  const left = expect(outcomes[2]).rejects.toBe("left");
  leaving.abort("left");
  await left;
  begun[0]?.succeed({ value: 1 });
  await Promise.all([outcomes[0], outcomes[1], outcomes[3]]);
});

test("a timeout that was the leader's own does not fail those who have more time", async () => {
  const { coalescer, begun, work, events } = open({ mayOutlive: (error) => error === "too late" });
  const call = (deadline?: number) =>
    coalescer.run("key", work, { deadline }).catch((error: unknown) => error);
  const [leader, same, longer, endless] = [call(100), call(149), call(150), call()];
  await settle();
  begun[0]?.fail("too late");
  expect(await Promise.all([leader, same])).toEqual(["too late", "too late"]);
  await settle();
  expect(begun).toHaveLength(2);
  begun[1]?.fail("too late");
  expect(await longer).toBe("too late");
  await settle();
  // Who has no deadline cannot have been failed by its own.
  begun[2]?.fail("too late");
  expect(await endless).toBe("too late");
  expect(begun).toHaveLength(3);
  expect(events.filter(({ kind }) => kind === "repeated")).toHaveLength(2);
  expect(coalescer.stats()).toMatchObject({ inFlight: 0, repeated: 2 });
});

test("a listener that throws breaks nothing", async () => {
  const { coalescer, begun, work } = open({
    onEvent() {
      throw new Error("listener");
    },
  });
  const call = coalescer.run("key", work);
  await settle();
  begun[0]?.succeed({ value: 1 });
  expect(await call).toEqual({ value: 1 });
});

test("a hook that fails leaves nobody waiting", async () => {
  const { coalescer, begun, work } = open({
    mayOutlive: () => {
      throw new TypeError("the hook is broken");
    },
  });
  const calls = [coalescer.run("key", work, { deadline: 1 }), coalescer.run("key", work)];
  const outcomes = Promise.allSettled(calls);
  await settle();
  const error = new Error("failed");
  begun[0]?.fail(error);
  expect(await outcomes).toEqual(calls.map(() => ({ status: "rejected", reason: error })));
});

test("a listener may end the very call that it hears of", async () => {
  const caller = new AbortController();
  const { coalescer, begun, work } = open({ onEvent: () => caller.abort() });
  await expect(coalescer.run("key", work, { signal: caller.signal })).rejects.toBe(caller.signal.reason);
  await settle();
  expect(begun).toHaveLength(0);
  expect(coalescer.stats()).toMatchObject({ inFlight: 0, cancelled: 1 });
});

test.each([
  { windowMs: Number.NaN },
  { windowMs: -1 },
  { maxInFlight: Number.NaN },
  { outliveMs: Number.NaN },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => open(options)).toThrow(RangeError);
});
