import { assert, property, string, stringMatching } from "fast-check";
import { expect, test } from "vitest";
import { compareVersions } from "./version-order.ts";

test("versions are ordered as semver.org lists them", () => {
  const ordered = [
    "latest",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.0+build.5",
    "1.2",
    "1.10.0",
    "2.0.0-20991231235959123456789",
    "2.0.0-20991231235959123456790",
    "2",
  ];
  expect([...ordered].reverse().sort(compareVersions)).toEqual(ordered);
});

test("every two versions have an order, whatever they look like", () => {
  const version = stringMatching(/^v?\d{1,3}(\.\d{1,3}){0,2}(-[a-c0-9.]{1,5})?(\+[a-c]{1,2})?$/);
  for (const any of [version, string()]) {
    assert(
      property(any, any, any, (a, b, c) => {
        expect(Math.sign(compareVersions(a, b))).toBe(-Math.sign(compareVersions(b, a)) || 0);
        expect(compareVersions(a, b) === 0).toBe(a === b);
        if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) {
          expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
        }
      }),
    );
  }
});
