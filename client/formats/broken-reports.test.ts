import { ProblemSeverity } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readReport } from "../testing/read-report.ts";
import { reports } from "../testing/reports.ts";
import { parseReport } from "./index.ts";

describe("a report that breaks off", () => {
  it.each(Object.entries(reports))("at any byte keeps what stands before: %s", async (_, text) => {
    const bytes = Buffer.from(text);
    const whole = await readReport(bytes);
    const kept = new Set(whole.results.map(identityOf));
    const fileNames = new Set(whole.files.map(({ file }) => file));
    let before = 0;
    for (let length = 0; length < bytes.length; length++) {
      const { results, files, outcome, problems } = await readReport(bytes.subarray(0, length), {
        format: whole.outcome.format,
      });
      const read = results.length + files.length;
      expect(read).toBeGreaterThanOrEqual(before);
      before = read;
      expect(results.map(identityOf).filter((identity) => !kept.has(identity))).toEqual([]);
      expect(files.filter(({ file }) => !fileNames.has(file) && file !== "acme.com/shop/item.go")).toEqual(
        [],
      );
      if (read < whole.results.length + whole.files.length && !mayEndAnywhere(whole.outcome.format)) {
        expect(outcome.failure, `at byte ${length}`).toBeDefined();
        expect(problems.some(({ severity }) => severity === ProblemSeverity.ERROR)).toBe(true);
      }
    }
  });

  it("names the place and the test that was open", async () => {
    const report = '<testsuite>\n<testcase name="a"/>\n<testcase name="b"><failure message="x">';
    const { results, outcome } = await readReport(report);
    expect(results.map(({ test }) => test?.name)).toEqual(["a"]);
    expect(outcome.failure).toMatchObject({
      message: expect.stringContaining('inside of the test "b"'),
      place: "line 3, column 40",
    });
  });
});

/** Nothing tells that a list of blocks or of records has ended. */
function mayEndAnywhere(format: ReportFormat): boolean {
  return [ReportFormat.GO_COVER, ReportFormat.LCOV].includes(format);
}

function identityOf({ test }: Awaited<ReturnType<typeof readReport>>["results"][number]): string {
  return JSON.stringify(test);
}

describe("what go test wrote until it was killed", () => {
  it("is not complete while a package has not ended", async () => {
    const lines = reports.goTest.split("\n");
    for (let count = 1; count < 4; count++) {
      const { outcome } = await readReport(`${lines.slice(0, count).join("\n")}\n`);
      expect(outcome.failure).toMatchObject({
        message: expect.stringContaining("acme.com/shop has not ended"),
        place: `line ${count}`,
      });
    }
    expect((await readReport(reports.goTest)).outcome.failure).toBeUndefined();
  });
});

describe("a hostile report", () => {
  it("of entities that multiply is refused, and nothing is expanded", async () => {
    const levels = Array.from({ length: 10 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`);
    const { outcome, results } = await readReport(
      `<?xml version="1.0"?><!DOCTYPE t [<!ENTITY l0 "lol">${levels.join("")}]><testsuite><testcase name="&l10;"/></testsuite>`,
    );
    expect(results).toEqual([]);
    expect(outcome.failure).toMatchObject({
      message: expect.stringContaining("declares entities"),
      place: expect.stringMatching(/^line 1, column /),
    });
  });

  it("with an entity of a file shows nothing of it", async () => {
    const { events } = await readReport(
      '<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&x;"/></testsuite>',
    );
    expect(JSON.stringify(events.map(({ kind }) => kind))).not.toContain("root:");
  });

  it("with an unknown entity is read past it", async () => {
    const { results, problems } = await readReport('<testsuite><testcase name="a&nbsp;b"/></testsuite>');
    expect(results[0]?.test?.name).toBe("a&nbsp;b");
    expect(problems).toMatchObject([{ severity: ProblemSeverity.WARNING, place: "line 1, column 34" }]);
  });

  it("that is nested too deeply is refused", async () => {
    const { outcome } = await readReport("<testsuite>".repeat(10_000));
    expect(outcome.failure?.message).toContain("nested more than 256 deep");
  });

  it("of deeply nested JSON is refused", async () => {
    const { outcome } = await readReport("[".repeat(1_000_000), { format: ReportFormat.CTRF });
    expect(outcome.failure).toBeDefined();
  });

  it("whose tag never ends is refused", async () => {
    const chunk = Buffer.from(" a1=''".repeat(10_000));
    const { outcome } = await readReport([Buffer.from("<testsuite"), ...Array(100).fill(chunk)]);
    expect(outcome.failure?.message).toContain("a tag is too long");
  });

  it("of JSON beyond the limit names it", async () => {
    const { outcome } = await readReport(reports.ctrf, { limits: { maxJsonBytes: 100 } });
    expect(outcome.failure).toMatchObject({
      message: expect.stringContaining("100 bytes"),
      place: "byte 100",
    });
  });

  it("of any bytes in any format never throws", async () => {
    const formats = [0, 1, 2, 3, 4, 5, 6, 7] as const;
    const pieces = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc
        .array(fc.constantFrom(...Object.values(reports).flatMap((text) => text.split(/(?<=[>\n,{])/))), {
          maxLength: 60,
        })
        .map((parts) => Buffer.from(parts.join(""))),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(pieces, { maxLength: 4 }),
        fc.constantFrom(...formats),
        async (chunks, format) => {
          await readReport(chunks, { format, root: "/repo" });
        },
      ),
      { numRuns: 400 },
    );
  });
});

describe("a report of 100 MB", () => {
  it.each([
    [
      "many tests",
      (i: number) =>
        `<testcase name="t${i % 1000}" classname="c"><system-out>${"x".repeat(4000)}</system-out></testcase>\n`,
    ],
    ["one endless text", () => `${"y".repeat(4000)}\n`],
  ])("is read in bounded memory: %s", { timeout: 120_000 }, async (name, part) => {
    const isEndless = name === "one endless text";
    async function* source(): AsyncGenerator<Uint8Array> {
      yield Buffer.from(`<testsuite name="s">${isEndless ? '<testcase name="a"><system-out><![CDATA[' : ""}`);
      let sent = 0;
      for (let i = 0; sent < 100_000_000; i += 16) {
        const bytes = Buffer.from(Array.from({ length: 16 }, (_, j) => part(i + j)).join(""));
        sent += bytes.length;
        yield bytes;
      }
      yield Buffer.from(`${isEndless ? "]]></system-out></testcase>" : ""}</testsuite>`);
    }
    const before = process.memoryUsage().heapUsed;
    let most = before;
    let events = 0;
    const reading = parseReport(source());
    let next = await reading.next();
    for (; !next.done; next = await reading.next()) {
      events++;
      if (events % 500 === 0) {
        most = Math.max(most, process.memoryUsage().heapUsed);
      }
    }
    most = Math.max(most, process.memoryUsage().heapUsed);
    expect(next.value).toMatchObject({ tests: isEndless ? 1 : expect.any(Number), failure: undefined });
    expect(most - before).toBeLessThan(64 * 1024 * 1024);
  });
});
