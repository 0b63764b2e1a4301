import { durationMs } from "@bufbuild/protobuf/wkt";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { describe, expect, it } from "vitest";
import { readReport } from "../testing/read-report.ts";
import { reports } from "../testing/reports.ts";
import { coverageTotals, detectFormat, mergeCoverage } from "./index.ts";

describe("the format of a report", () => {
  it.each([
    ["surefire", ReportFormat.JUNIT_XML],
    ["ctrf", ReportFormat.CTRF],
    ["goTest", ReportFormat.GO_TEST_JSON],
    ["lcov", ReportFormat.LCOV],
    ["istanbul", ReportFormat.ISTANBUL_JSON],
    ["cobertura", ReportFormat.COBERTURA],
    ["goCover", ReportFormat.GO_COVER],
  ] as const)("is found out from the content: %s", (name, format) => {
    expect(detectFormat(Buffer.from(reports[name]))).toBe(format);
    expect(detectFormat(Buffer.from(`\uFEFF\n${reports[name]}`, "utf16le"))).toBe(format);
  });

  it("is found out from the name of what says nothing, else it is not known", async () => {
    expect(detectFormat(Buffer.from(""), "coverage/lcov.info")).toBe(ReportFormat.LCOV);
    const { outcome } = await readReport("hello");
    expect(outcome.format).toBe(ReportFormat.UNSPECIFIED);
    expect(outcome.failure?.message).toContain("name the format");
  });
});

describe("CTRF", () => {
  it("has retries, tags, attachments and variants; steps are left out", async () => {
    const { results, problems } = await readReport(reports.ctrf);
    expect(problems).toEqual([]);
    expect(results.map(({ status }) => TestStatus[status])).toEqual(["PASSED", "FAILED", "INTERRUPTED"]);
    expect(results[0]).toMatchObject({
      test: {
        framework: "playwright",
        file: "e2e/cart.spec.ts",
        suitePath: ["cart"],
        name: "adds",
        variant: "firefox",
      },
      tags: ["fast"],
      attempts: [
        { status: TestStatus.FAILED, failures: [{ message: "timeout" }] },
        { status: TestStatus.PASSED },
      ],
      attachments: [{ name: "shot", mediaType: "image/png", source: { value: "out/shot.png" } }],
    });
    expect(results[1]?.attempts[0]?.failures[0]).toMatchObject({ message: "boom", stack: "at x" });
  });

  it("of a future version is read as far as it is known", async () => {
    const { results, problems, outcome } = await readReport(
      reports.ctrf.replace('"0.0.0"', '"2.1.0"').replace('"steps"', '"unheardOf"'),
    );
    expect(results).toHaveLength(3);
    expect(problems).toMatchObject([{ message: expect.stringContaining("future version 2.1.0") }]);
    expect(outcome.failure).toBeUndefined();
  });

  it("names tests that it cannot read by their place", async () => {
    const { results, problems } = await readReport(
      reports.ctrf.replace('"status": "failed", "duration": 3', '"duration": "x"'),
    );
    expect(results).toHaveLength(2);
    expect(problems.map(({ place }) => place)).toContain('test 2 "breaks"');
  });
});

describe("what go test writes", () => {
  it("becomes results", async () => {
    const { results } = await readReport(reports.goTest, { project: "shop" });
    expect(results).toMatchObject([
      { test: { file: "acme.com/shop", name: "TestAdd", project: "shop" }, status: TestStatus.PASSED },
    ]);
    expect(results[0]?.duration && durationMs(results[0].duration)).toBe(500);
  });
});

describe("coverage", () => {
  it("of lcov is relative to the root, with hits that fit", async () => {
    const { files, problems } = await readReport(reports.lcov, { root: "/repo/" });
    expect(problems).toEqual([]);
    expect(files).toMatchObject([
      {
        file: "src/a.ts",
        lines: [
          { line: 1, hits: 3 },
          { line: 2, hits: 2 ** 32 - 1 },
          { line: 3, hits: 0 },
        ],
        branchesTotal: 2,
        branchesCovered: 1,
        functionsTotal: 1,
        functionsCovered: 1,
      },
      { file: "src/b.ts", lines: [{ line: 1, hits: 0 }] },
    ]);
  });

  it("of Istanbul has lines, branches and functions", async () => {
    const { files } = await readReport(reports.istanbul, { root: "/repo" });
    expect(files).toMatchObject([
      {
        file: "src/a.ts",
        lines: [
          { line: 1, hits: 4 },
          { line: 2, hits: 0 },
        ],
        branchesTotal: 2,
        branchesCovered: 1,
        functionsTotal: 1,
        functionsCovered: 1,
      },
    ]);
  });

  it("of Cobertura knows its document type, its source folder and the methods of classes", async () => {
    const { files, problems } = await readReport(reports.cobertura, { root: "/repo" });
    expect(problems).toEqual([]);
    expect(files).toMatchObject([
      {
        file: "src/cart.py",
        lines: [
          { line: 1, hits: 2 },
          { line: 2, hits: 0 },
        ],
        branchesTotal: 2,
        branchesCovered: 1,
        functionsTotal: 1,
        functionsCovered: 1,
      },
      { file: "src/item.py", lines: [{ line: 5, hits: 1 }] },
    ]);
  });

  it("of Go has the lines of blocks, and the larger number where blocks meet", async () => {
    const { files } = await readReport(reports.goCover, { root: "acme.com/shop" });
    expect(files).toMatchObject([
      {
        file: "cart.go",
        lines: [
          { line: 3, hits: 7 },
          { line: 4, hits: 7 },
          { line: 5, hits: 7 },
          { line: 6, hits: 0 },
        ],
      },
      { file: "item.go", lines: [{ line: 1, hits: 1 }] },
    ]);
  });

  it("of one file measured twice has every line once, with the larger number of hits", async () => {
    const { files } = await readReport(
      "SF:a\nDA:1,2\nDA:3,0\nend_of_record\nSF:a\nDA:1,1\nDA:2,5\nDA:3,1\nend_of_record\n",
    );
    const [a, b] = files;
    const merged = a && b && mergeCoverage(a, b);
    expect(merged?.lines).toMatchObject([
      { line: 1, hits: 2 },
      { line: 2, hits: 5 },
      { line: 3, hits: 1 },
    ]);
    expect(merged && coverageTotals([merged])).toMatchObject({ files: 1, linesTotal: 3n, linesCovered: 3n });
  });
});
