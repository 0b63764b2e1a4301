import fc from "fast-check";
import { expect, test } from "vitest";
import { globMatches } from "./glob.ts";

test.each([
  ["weather.*", "weather.GetForecast", true],
  ["weather.*", "weather.", true],
  ["weather.*", "weathers.GetForecast", false],
  ["*.Get*", "weather.v1.GetForecast", true],
  ["*", "", true],
  ["", "", true],
  ["", "a", false],
  ["a*b*c", "a-b-b-c", true],
  ["a*b*c", "a-c-b", false],
  ["Get.orecast", "GetForecast", false],
])("%s and %s: %s", (pattern, name, matches) => {
  expect(globMatches(pattern, name)).toBe(matches);
});

test("matches what a regular expression with .* in place of * matches", () => {
  const texts = fc.string({ unit: fc.constantFrom("a", "b", ".", "*"), maxLength: 12 });
  const names = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 16 });
  fc.assert(
    fc.property(texts, names, (pattern, name) => {
      const expression = pattern.split("*").map(RegExp.escape).join(".*");
      expect(globMatches(pattern, name)).toBe(new RegExp(`^${expression}$`, "s").test(name));
    }),
  );
});

test("a pattern that has regular expressions try for ages takes no time", () => {
  expect(globMatches(`${"*a".repeat(500)}b`, "a".repeat(1_000))).toBe(false);
});
