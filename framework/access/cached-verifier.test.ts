import { expect, test } from "vitest";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { cachedVerifier } from "./cached-verifier.ts";
import type { Verdict, Verifier } from "./verifier.ts";

const good: Verdict = { kind: "accepted", identity: { id: "user:ada", role: "caller" } };
const bad: Verdict = { kind: "refused", reason: "CREDENTIALS_INVALID", message: "not right" };

/** Counts how often it is asked. */
function counting(verdictOf: (token: string) => Verdict): Verifier & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    verify(token) {
      asked.push(token);
      return verdictOf(token);
    },
  };
}

test("a good token is looked at once a minute", async () => {
  const clock = createFakeClock();
  const inner = counting(() => good);
  const cached = cachedVerifier(inner, { clock });
  for (let second = 0; second < 60; second++) {
    expect(await cached.verify("a")).toBe(good);
    clock.advance(1_000);
  }
  expect(inner.asked).toHaveLength(1);
  await cached.verify("a");
  expect(inner.asked).toHaveLength(2);
});

test("a token is looked at again when it expires, and a bad one after 5 s", async () => {
  const clock = createFakeClock();
  const expiring: Verdict = { ...good, expiresAt: clock.now() + 2_000 };
  const inner = counting((token) => (token === "expiring" ? expiring : bad));
  const cached = cachedVerifier(inner, { clock });
  const ask = async () => {
    await cached.verify("expiring");
    await cached.verify("bad");
  };
  await ask();
  clock.advance(1_999);
  await ask();
  expect(inner.asked).toEqual(["expiring", "bad"]);
  clock.advance(1);
  await ask();
  expect(inner.asked).toEqual(["expiring", "bad", "expiring"]);
  clock.advance(3_000);
  await ask();
  expect(inner.asked).toEqual(["expiring", "bad", "expiring", "expiring", "bad"]);
});

test("guesses without end take no more memory, and do not push out tokens that are good", async () => {
  const clock = createFakeClock();
  const inner = counting((token) => (token === "good" ? good : bad));
  const cached = cachedVerifier(inner, { clock, capacity: 100 });
  await cached.verify("good");
  for (let guess = 0; guess < 1_000; guess++) {
    await cached.verify(`guess-${guess}`);
  }
  await cached.verify("guess-999");
  await cached.verify("good");
  expect(inner.asked).toHaveLength(1_001);
  await cached.verify("guess-0");
  expect(inner.asked).toHaveLength(1_002);
});

test("what could not be found out, and what is for other verifiers, is not remembered", async () => {
  const clock = createFakeClock();
  let failing = true;
  const inner = counting((token) => {
    if (failing) {
      throw new Error("not now");
    }
    return token === "foreign" ? { kind: "foreign" } : good;
  });
  const cached = cachedVerifier(inner, { clock });
  await expect(cached.verify("a")).rejects.toThrow("not now");
  failing = false;
  expect(await cached.verify("a")).toBe(good);
  await cached.verify("foreign");
  await cached.verify("foreign");
  expect(inner.asked).toEqual(["a", "a", "foreign", "foreign"]);
});
