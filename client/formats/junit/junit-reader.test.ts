import { durationMs } from "@bufbuild/protobuf/wkt";
import { ProblemSeverity } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestResult, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { describe, expect, it } from "vitest";
import { readReport } from "../../testing/read-report.ts";
import { reports } from "../../testing/reports.ts";

/** What a person would call the result: identity, status, milliseconds. */
function brief({ test, status, duration }: TestResult): string {
  const parameters = test?.parameters ? `[${test.parameters}]` : "";
  const name = [...(test?.suitePath ?? []), `${test?.name}${parameters}`].join(" > ");
  const time = duration === undefined ? "-" : `${durationMs(duration)}`;
  return `${test?.framework} ${test?.file || "-"}: ${name}: ${TestStatus[status]} ${time}`;
}

async function briefly(report: string | Uint8Array, root?: string): Promise<string[]> {
  const { results, problems } = await readReport(report, { root });
  expect(problems).toEqual([]);
  return results.map(brief);
}

describe("JUnit XML", () => {
  it("of Surefire has reruns as attempts", async () => {
    expect(await briefly(reports.surefire)).toEqual([
      "junit -: com.acme.CartTest > adds: PASSED 1234500",
      "junit -: com.acme.CartTest > sometimes: PASSED 20",
      "junit -: com.acme.CartTest > never: ERROR 30",
      "junit -: com.acme.CartTest > counts(int)[2]: SKIPPED 0",
    ]);
    const { results } = await readReport(reports.surefire);
    expect(results.map(({ attempts }) => attempts.map(({ status }) => TestStatus[status]))).toEqual([
      [],
      ["FAILED", "ERROR", "PASSED"],
      ["FAILED", "ERROR"],
      [],
    ]);
    expect(results[1]?.attempts[0]).toMatchObject({
      failures: [{ message: "expected 1", type: "AssertionError", stack: "at CartTest:7" }],
      stdout: "first try",
    });
  });

  it("of pytest tells modules, classes and parameters apart", async () => {
    expect(await briefly(reports.pytest)).toEqual([
      "pytest tests/unit/test_io.py: TestRead > test_read[3-utf8]: PASSED 1",
      "pytest tests/unit/test_io.py: test_known: EXPECTED_FAILURE 2",
      "pytest tests/unit/test_io.py: test_strict: UNEXPECTED_PASS 2",
      "pytest tests/unit/test_io.py: test_setup: ERROR 3",
      "pytest tests/unit/test_io.py: test_later: SKIPPED 0",
    ]);
    const { results } = await readReport(reports.pytest);
    expect(results[0]).toMatchObject({ line: 12, properties: { owner: "ada" } });
    expect(results[4]?.message).toBe("not on this machine");
  });

  it("of Vitest, Jest, node:test, Mocha, PHPUnit, gotestsum, CTest and Gradle is named as they name tests", async () => {
    expect(await briefly(reports.vitest)).toEqual(["vitest src/a.test.ts: cart > adds: PASSED 5"]);
    expect(await briefly(reports.jest)).toEqual([
      "jest src/b.test.js: cart adds: FAILED 7",
      "jest src/b.test.js: cart > is empty: PASSED 1",
    ]);
    expect(await briefly(reports.nodeTest, "/repo")).toEqual([
      "node-test a.test.js: outer > inner: PASSED 2",
      "node-test a.test.js: outer > later: TODO 0",
    ]);
    expect(await briefly(reports.mocha)).toEqual(["mocha test/a.js: Cart when empty > adds: PASSED 4"]);
    expect(await briefly(reports.phpunit, "/app")).toEqual([
      'phpunit tests/CartTest.php: Tests.CartTest > testAdds["two items"]: PASSED 9',
    ]);
    expect(await briefly(reports.gotestsum)).toEqual([
      "go-test acme.com/shop/cart: TestAdd > two: PASSED 10",
    ]);
    expect(await briefly(reports.ctest)).toEqual([
      "ctest -: unit: PASSED 500",
      "ctest -: off: SKIPPED 0",
      "ctest -: broken: FAILED 100",
    ]);
    expect(await briefly(reports.gradle)).toEqual(["junit -: com.acme.FooTest > works(): PASSED 1"]);
  });

  it("keeps what the suites wrote, and files that a test names", async () => {
    const { events, results } = await readReport(
      `<testsuite name="s"><testcase name="a"><system-out>[[ATTACHMENT|shots/a.png]]</system-out></testcase>
       <system-err>careful</system-err></testsuite>`,
    );
    expect(events.at(-1)?.kind).toMatchObject({ case: "output", value: { text: "careful", stderr: true } });
    expect(results[0]?.attachments[0]).toMatchObject({ name: "a.png", source: { value: "shots/a.png" } });
  });

  it("numbers tests that are otherwise identical", async () => {
    const { results } = await readReport('<testsuite><testcase name="a"/><testcase name="a"/></testsuite>');
    expect(results.map(({ test }) => test?.occurrence)).toEqual([0, 1]);
  });

  it("warns of totals that disagree with the tests", async () => {
    const { problems, outcome } = await readReport(
      '<testsuites>\n<testsuite name="s" tests="3" failures="1"><testcase name="a"/></testsuite></testsuites>',
    );
    expect(problems).toMatchObject([
      {
        severity: ProblemSeverity.WARNING,
        message: '<testsuite> "s" says that it has 3 tests, and has 1',
        place: "line 2, column 75",
      },
      { message: '<testsuite> "s" says that 1 tests failed, and 0 did' },
    ]);
    expect(outcome.failure).toBeUndefined();
  });

  it("cuts names that are too long, so that they still differ", async () => {
    const long = "x".repeat(5000);
    const { results } = await readReport(
      `<testsuite><testcase name="${long}1" classname="${long}"/><testcase name="${long}2"/></testsuite>`,
    );
    expect(results.map(({ test }) => test?.name.length)).toEqual([4096, 4096]);
    expect(results[0]?.test?.name).not.toBe(results[1]?.test?.name);
  });

  it("tells a suite's own failure as the end of its file", async () => {
    const { events } = await readReport(
      '<testsuite name="s" file="a.js"><error message="cannot load" type="SyntaxError"/></testsuite>',
    );
    expect(events[0]?.kind).toMatchObject({
      case: "fileEnded",
      value: { file: "a.js", failures: [{ message: "cannot load" }] },
    });
  });

  it("which is something else is refused by its root element", async () => {
    const { outcome } = await readReport("<html><body/></html>", { fileName: "a.xml" });
    expect(outcome.failure).toMatchObject({
      message: expect.stringContaining("begins with <html>"),
      place: "line 1, column 6",
    });
  });
});
