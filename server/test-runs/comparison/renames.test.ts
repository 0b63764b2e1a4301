import { describe, expect, it } from "vitest";
import { alignTests } from "./aligned-test.ts";
import { proposeRenames } from "./renames.ts";
import { type SampleResult, sampleRun } from "./test-support/sample-runs.ts";

function propose(gone: readonly SampleResult[], fresh: readonly SampleResult[]) {
  const aligned = (results: readonly SampleResult[]) => alignTests([sampleRun(results)], []);
  return proposeRenames(aligned(gone), aligned(fresh));
}

function pairs(gone: readonly SampleResult[], fresh: readonly SampleResult[]): string[] {
  return propose(gone, fresh).map(({ from, to }) => `${from.name} → ${to.name}`);
}

describe("proposeRenames", () => {
  it("pairs similar names of one file, the best match for each", () => {
    expect(
      pairs(
        [{ name: "reads a small file" }, { name: "reads a large file" }],
        [{ name: "reads a large file at once" }, { name: "reads a small file at once" }],
      ).sort(),
    ).toEqual([
      "reads a large file → reads a large file at once",
      "reads a small file → reads a small file at once",
    ]);
  });

  it("does not pair what only looks a little alike", () => {
    expect(pairs([{ name: "opens the door" }], [{ name: "counts all the sheep" }])).toEqual([]);
    expect(pairs([{ name: "reads", file: "a.test.ts" }], [{ name: "reads it", file: "b.test.ts" }])).toEqual(
      [],
    );
  });

  it("pairs equal names in two files, and says how many moved together", () => {
    const names = ["opens", "reads", "closes"];
    const moved = propose(
      names.map((name) => ({ name, file: "server/old-name.test.ts" })),
      names.map((name) => ({ name, file: "server/new-name.test.ts" })),
    );
    expect(moved).toHaveLength(3);
    expect(moved[0]?.similarity).toBeGreaterThan(0.8);
    expect(moved[0]?.evidence).toBe(
      "same name in another file; 3 of the 3 tests that server/old-name.test.ts lost are there",
    );
  });

  it("keeps cases of one test apart by their parameters", () => {
    expect(
      propose(
        [
          { name: "adds", parameters: "1-2" },
          { name: "adds", parameters: "3-4" },
        ],
        [
          { name: "adds up", parameters: "3-4" },
          { name: "adds up", parameters: "1-2" },
        ],
      ).every(({ from, to }) => from.parameters === to.parameters),
    ).toBe(true);
  });

  it("finds a thousand renamed tests among five thousand of one file", () => {
    const names = Array.from({ length: 5_000 }, (_, index) => `case ${index * 7919} of the great table`);
    const found = propose(
      names.map((name) => ({ name })),
      names.map((name) => ({ name: name.replace("great", "big") })),
    );
    expect(found).toHaveLength(1_000);
    expect(found.filter(({ from, to }) => from.name.replace("great", "big") !== to.name)).toEqual([]);
  });
});
