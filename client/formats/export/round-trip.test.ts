import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import {
  type TestResult,
  TestResultSchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { isValid } from "ctrf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readReport } from "../../testing/read-report.ts";
import { writeReport } from "../index.ts";

const text = fc.string({ unit: "binary", maxLength: 30 }).map((value) => value.replaceAll("\0", "0"));
const name = text.filter((value) => value !== "");
const status = fc.constantFrom(
  TestStatus.PASSED,
  TestStatus.FAILED,
  TestStatus.SKIPPED,
  TestStatus.TODO,
  TestStatus.EXPECTED_FAILURE,
  TestStatus.UNEXPECTED_PASS,
  TestStatus.ERROR,
  TestStatus.INTERRUPTED,
  TestStatus.NOT_RUN,
);
const duration = fc.record({
  seconds: fc.bigInt(0n, 100_000n),
  nanos: fc.integer({ min: 0, max: 999_999_999 }),
});
const attempt = fc.record({
  status,
  duration,
  failures: fc.array(fc.record({ message: text, type: text, stack: text }), { maxLength: 2 }),
  stdout: text,
  stderr: text,
});
const anyResult: fc.Arbitrary<TestResult> = fc
  .record({
    test: fc.record({
      framework: name,
      file: text,
      suitePath: fc.array(text, { maxLength: 3 }),
      name,
      parameters: text,
      variant: text,
      occurrence: fc.integer({ min: 0, max: 1_000_000 }),
    }),
    status,
    duration,
    attempts: fc.array(attempt, { maxLength: 3 }),
    tags: fc.uniqueArray(name, { maxLength: 3 }),
    message: text,
  })
  .map((init) => create(TestResultSchema, init));

async function written(
  format: ReportFormat,
  results: readonly TestResult[],
  framework = "any",
): Promise<string> {
  const run = create(TestRunSchema, { id: "0123456789", project: "shop & co", framework });
  const report = writeReport(format, {
    run,
    async *results() {
      yield* results;
    },
    async *coverage() {},
  });
  let all = "";
  for await (const part of report.text) {
    all += part;
  }
  return all;
}

function essence({ test, status: ended, duration: took }: TestResult) {
  return { test, status: TestStatus[ended], duration: took };
}

describe("a run that is exported and imported", () => {
  it.each([ReportFormat.JUNIT_XML, ReportFormat.CTRF])(
    "has the same identities, statuses and durations: format %i",
    async (format) => {
      await fc.assert(
        fc.asyncProperty(fc.array(anyResult, { maxLength: 5 }), async (results) => {
          const report = await written(format, results);
          const read = await readReport(report);
          expect(read.problems).toEqual([]);
          expect(read.results.map(essence)).toEqual(results.map(essence));
        }),
        { numRuns: 50 },
      );
    },
  );

  it("is valid CTRF, whatever its tests are called", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyResult, { maxLength: 3 }), async (results) => {
        expect(isValid(JSON.parse(await written(ReportFormat.CTRF, results)))).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it("is what go test writes, for runs of it", async () => {
    const goResult = fc
      .record({
        test: fc.record({
          framework: fc.constant("go-test"),
          file: fc.constantFrom("acme.com/a", "acme.com/b"),
          suitePath: fc.array(fc.stringMatching(/^Test[A-Z][a-z_0-9]{0,8}$/), { maxLength: 2 }),
          name: fc.stringMatching(/^Test[A-Z][a-z_0-9]{0,8}$/),
        }),
        status: fc.constantFrom(TestStatus.PASSED, TestStatus.FAILED, TestStatus.SKIPPED),
        duration: fc.integer({ min: 0, max: 100_000 }).map((ms) => ({
          seconds: BigInt(Math.floor(ms / 1000)),
          nanos: (ms % 1000) * 1_000_000,
        })),
      })
      .map((init) => create(TestResultSchema, init));
    const named = (result: TestResult) =>
      JSON.stringify([result.test?.file, result.test?.suitePath, result.test?.name]);
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(goResult, { maxLength: 6, selector: named }), async (results) => {
        fc.pre(results.length > 0);
        const read = await readReport(await written(ReportFormat.GO_TEST_JSON, results, "go-test"));
        const brief = (result: TestResult) =>
          `${named(result)} ${result.status} ${result.duration && durationMs(result.duration)}`;
        expect(read.results.map(brief).sort()).toEqual(results.map(brief).sort());
      }),
    );
  });

  it("is refused in a format that it does not fit, with what to do", async () => {
    await expect(written(ReportFormat.GO_TEST_JSON, [])).rejects.toThrow("use JUnit XML or CTRF");
    await expect(written(ReportFormat.ISTANBUL_JSON, [])).rejects.toThrow("use lcov or Cobertura");
    await expect(written(ReportFormat.LCOV, [])).rejects.toThrow("the run has no coverage");
  });
});

describe("coverage that is exported and imported", () => {
  it.each([ReportFormat.LCOV, ReportFormat.COBERTURA])("has the same lines: format %i", async (format) => {
    const files = [
      {
        file: "src/a & b.ts",
        lines: [
          { line: 1, hits: 4_294_967_295 },
          { line: 7, hits: 0 },
        ],
      },
      { file: "src/c.ts", lines: [{ line: 2, hits: 1 }] },
    ];
    const { files: measured } = await readReport(
      files
        .map(
          ({ file, lines }) =>
            `SF:${file}\n${lines.map(({ line, hits }) => `DA:${line},${hits}\n`).join("")}BRF:4\nBRH:1\nend_of_record\n`,
        )
        .join(""),
    );
    const run = create(TestRunSchema, { id: "0123456789", project: "shop", coverage: {} });
    let report = "";
    const { text: parts } = writeReport(format, {
      run,
      async *results() {},
      async *coverage() {
        yield* measured;
      },
    });
    for await (const part of parts) {
      report += part;
    }
    const read = await readReport(report);
    expect(read.problems).toEqual([]);
    expect(read.files).toMatchObject(files);
    if (format === ReportFormat.LCOV) {
      expect(read.files).toEqual(measured);
    }
  });
});
