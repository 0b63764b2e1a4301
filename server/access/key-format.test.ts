import fc from "fast-check";
import { expect, test } from "vitest";
import { createKey, hashSecret, parseKey } from "./key-format.ts";

test("a key has the form that scanners are told to look for, and is read back as it was made", () => {
  for (let made = 0; made < 1_000; made++) {
    const { id, secret, token } = createKey();
    expect(token).toMatch(/^tp_k[0-9a-z]{10}_[0-9A-Za-z]{49}$/);
    expect(parseKey(token)).toEqual({ id, secret });
  }
});

test("no two keys are alike", () => {
  const keys = Array.from({ length: 10_000 }, createKey);
  expect(new Set(keys.map(({ id }) => id)).size).toBe(keys.length);
  expect(new Set(keys.map(({ secret }) => secret)).size).toBe(keys.length);
});

test("a key with a typo, or that was cut, is known as such", () => {
  const characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.";
  fc.assert(
    fc.property(fc.nat(60), fc.constantFrom(...characters), (offset, character) => {
      const { token } = createKey();
      const at = "tp_".length + offset;
      const typo = token.slice(0, at) + character + token.slice(at + 1);
      expect(parseKey(typo) === "malformed").toBe(typo !== token);
      expect(parseKey(token.slice(0, at))).toBe("malformed");
    }),
  );
});

test("any text is read without trouble", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(parseKey(text)).toBe(text.startsWith("tp_") ? "malformed" : "foreign");
    }),
  );
});

test("what is kept of a secret says nothing of it", () => {
  const { secret } = createKey();
  expect(hashSecret(secret)).toHaveLength(32);
  expect(hashSecret(secret).toString("latin1")).not.toContain(secret.slice(0, 8));
});
