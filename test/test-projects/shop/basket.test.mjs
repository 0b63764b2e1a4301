// Not a test of Toolplane: what its tests have its servers run. Environment variables decide how it ends.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";

/** A file that has to be there before a test can end. */
const { GATE: gate, PRICES: prices } = process.env;

describe("a basket", () => {
  it("counts its items", () => {
    assert.equal(["tea", "cake"].length, 2);
  });
  it("adds its prices", () => {
    assert.equal(2 + 3, prices === "wrong" ? 6 : 5);
  });
  it.skip("knows discounts", () => {});
  it("is ordered", async () => {
    while (gate !== undefined && !existsSync(gate)) {
      await setTimeout(10);
    }
  });
});
