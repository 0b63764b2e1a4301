import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type FileEndedSchema, ProblemSeverity } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { BoundedText, boundedName } from "./bounded-text.ts";
import { goFailure, goSkipReason, isVerdict, packageFramed, testFramed } from "./go-test-failure.ts";
import { goIdentity, isBenchmark } from "./go-test-name.ts";
import { createOccurrences, type TestIdentityInit } from "./occurrences.ts";
import type { OutputParser, TestEventInit } from "./runner.ts";

export interface GoTestParserOptions {
  /** Whether what tests write also becomes events at once, for those who watch. Default true. */
  readonly liveOutput?: boolean;
}

/** One line of `go test -json`; see `go doc test2json`. */
interface GoEvent {
  readonly Action: string;
  readonly Time?: unknown;
  readonly Package?: unknown;
  readonly ImportPath?: unknown;
  readonly Test?: unknown;
  readonly Elapsed?: unknown;
  readonly Output?: unknown;
  readonly FailedBuild?: unknown;
  readonly Key?: unknown;
  readonly Value?: unknown;
}

interface RunningTest {
  readonly name: string;
  readonly identity: TestIdentityInit;
  readonly startTime: Timestamp | undefined;
  readonly output: BoundedText;
  readonly properties: Record<string, string>;
}

interface RunningPackage {
  readonly name: string;
  /** By name, in the order in which they began. */
  readonly tests: Map<string, RunningTest>;
  readonly passed: Set<string>;
  /** What was written outside of tests. */
  readonly output: BoundedText;
  /** Tests that failed, by the test around them; those of no test by the empty name. */
  readonly failed: Map<string, string[]>;
  /** The last line of `go test`'s own, such as `ok  \texample.com/text\t(cached)`. */
  verdict: string;
}

/** Builds that failed, of which the words are kept until the packages that need them are named. */
const MAX_BUILDS = 1000;
const MAX_PROPERTIES = 64;

/** Makes events of what `go test -json` writes. Lines that it did not write are output. */
export function createGoTestParser(options: GoTestParserOptions = {}): OutputParser {
  const liveOutput = options.liveOutput ?? true;
  const occurrenceOf = createOccurrences();
  const packages = new Map<string, RunningPackage>();
  const builds = new Map<string, BoundedText>();
  let cachedPackages = 0;

  function packageOf(name: string): RunningPackage {
    let found = packages.get(name);
    if (found === undefined) {
      found = {
        name,
        tests: new Map(),
        passed: new Set(),
        failed: new Map(),
        output: new BoundedText(),
        verdict: "",
      };
      packages.set(name, found);
    }
    return found;
  }

  function startTest(inside: RunningPackage, name: string, time: Timestamp | undefined): RunningTest {
    const identity = goIdentity(inside.name, name);
    const test: RunningTest = {
      name,
      identity: { ...identity, occurrence: occurrenceOf(identity) },
      startTime: time,
      output: new BoundedText(),
      properties: {},
    };
    inside.tests.set(name, test);
    return test;
  }

  function testEvent(inside: RunningPackage, name: string, event: GoEvent, time: Timestamp | undefined) {
    const events: TestEventInit[] = [];
    let test = inside.tests.get(name);
    if (test === undefined) {
      test = startTest(inside, name, time);
      events.push({ time, kind: { case: "testStarted", value: { test: test.identity, attempt: 1 } } });
    }
    switch (event.Action) {
      case "pass":
      case "bench":
        events.push(endTest(inside, test, TestStatus.PASSED, event, time));
        break;
      case "fail":
        events.push(endTest(inside, test, TestStatus.FAILED, event, time));
        break;
      case "skip":
        events.push(endTest(inside, test, TestStatus.SKIPPED, event, time));
        break;
      case "output": {
        const text = String(event.Output ?? "");
        if (!testFramed(text)) {
          test.output.append(text);
          events.push(...written(text, time, test.identity));
        } else if (isVerdict(text)) {
          events.push(...written(text, time));
        }
        break;
      }
      case "attr":
        if (Object.keys(test.properties).length < MAX_PROPERTIES) {
          test.properties[boundedName(String(event.Key), 256)] = boundedName(String(event.Value), 4096);
        }
        break;
    }
    return events;
  }

  function endTest(
    inside: RunningPackage,
    test: RunningTest,
    status: TestStatus,
    event: GoEvent,
    time: Timestamp | undefined,
  ): TestEventInit {
    inside.tests.delete(test.name);
    if (status === TestStatus.PASSED) {
      inside.passed.add(test.name);
    } else if (status === TestStatus.FAILED) {
      const around = test.name.slice(0, Math.max(0, test.name.lastIndexOf("/")));
      const parts = inside.failed.get(around) ?? [];
      inside.failed.set(around, parts);
      parts.push(test.name);
    }
    const stdout = test.output.toString();
    const failed = status === TestStatus.FAILED;
    const duration = elapsed(event);
    const attempt = {
      status,
      startTime: test.startTime,
      duration,
      failures: failed ? [goFailure(stdout, silentFailure(inside, test))] : [],
      stdout,
    };
    return {
      time,
      kind: {
        case: "testEnded",
        value: {
          test: test.identity,
          status,
          startTime: test.startTime,
          duration,
          attempts: failed || stdout !== "" ? [attempt] : [],
          message: status === TestStatus.SKIPPED ? goSkipReason(stdout) : "",
          properties: test.properties,
        },
      },
    };
  }

  /** Tests that did not say how they ended, although their package has ended. */
  function endRemaining(inside: RunningPackage, packageFailed: boolean, time: Timestamp | undefined) {
    // What a package says about running out of time stands in the output of only one of the tests that ran.
    const timedOut = new Set([...inside.tests.values()].flatMap(({ output }) => timedOutTests(output)));
    return [...inside.tests.values()].map((test) => {
      const status = statusOfRemaining(inside, test, packageFailed, timedOut);
      return endTest(inside, test, status, { Action: "" }, time);
    });
  }

  function packageEvent(event: GoEvent, name: string, time: Timestamp | undefined): TestEventInit[] {
    const inside = packageOf(name);
    switch (event.Action) {
      case "start":
        return [{ time, kind: { case: "fileStarted", value: { file: boundedName(name, 1024) } } }];
      case "output": {
        const text = String(event.Output ?? "");
        if (packageFramed(text)) {
          inside.verdict = text;
          return isVerdict(text) ? written(text, time) : [];
        }
        inside.output.append(text);
        return written(text, time);
      }
      case "pass":
      case "skip":
      case "fail": {
        const failed = event.Action === "fail";
        cachedPackages += /\t\(cached\)/.test(inside.verdict) ? 1 : 0;
        const events = endRemaining(inside, failed, time);
        packages.delete(name);
        const failures = failed ? packageFailures(inside, event) : [];
        const ended = { file: boundedName(name, 1024), duration: elapsed(event), failures };
        return [...events, { time, kind: { case: "fileEnded", value: ended } }];
      }
      default:
        return [];
    }
  }

  function packageFailures(
    inside: RunningPackage,
    event: GoEvent,
  ): NonNullable<MessageInitShape<typeof FileEndedSchema>["failures"]> {
    const built = typeof event.FailedBuild === "string" ? builds.get(event.FailedBuild) : undefined;
    const reason = /^FAIL\t.*\[(build failed|setup failed)\]$/m.exec(inside.verdict)?.[1];
    if (built !== undefined || reason !== undefined) {
      const message = built?.toString().trim() ?? "";
      return [
        { message: message === "" ? (reason ?? "build failed") : message, type: reason ?? "build failed" },
      ];
    }
    return inside.failed.size > 0
      ? []
      : [goFailure(inside.output.toString(), "The package failed without a message.")];
  }

  function written(text: string, time: Timestamp | undefined, test?: TestIdentityInit): TestEventInit[] {
    return liveOutput && text !== ""
      ? [
          {
            time,
            kind: {
              case: "output",
              value: { text: text.slice(0, 65_536).toWellFormed(), ...(test && { test }) },
            },
          },
        ]
      : [];
  }

  return {
    line(text) {
      const event = parseEvent(text);
      if (event === undefined) {
        return written(`${text}\n`, undefined);
      }
      const time = timestampOf(event.Time);
      if (event.Action === "build-output" && typeof event.ImportPath === "string") {
        const build = builds.get(event.ImportPath) ?? new BoundedText();
        build.append(String(event.Output ?? ""));
        if (builds.size < MAX_BUILDS) {
          builds.set(event.ImportPath, build);
        }
        return written(String(event.Output ?? ""), time);
      }
      if (typeof event.Package !== "string" || event.Package === "") {
        return [];
      }
      return typeof event.Test === "string" && event.Test !== ""
        ? testEvent(packageOf(event.Package), event.Test, event, time)
        : packageEvent(event, event.Package, time);
    },
    // Tests that still run have lost their runner, and whoever keeps the run knows which.
    end: () => (cachedPackages === 0 ? [] : [cachedProblem(cachedPackages)]),
  };
}

function silentFailure(inside: RunningPackage, test: RunningTest): string {
  const parts = inside.failed.get(test.name) ?? [];
  return parts.length === 0 ? "The test failed without a message." : `Subtests failed: ${parts.join(", ")}`;
}

function statusOfRemaining(
  inside: RunningPackage,
  test: RunningTest,
  packageFailed: boolean,
  timedOut: ReadonlySet<string>,
): TestStatus {
  const text = test.output.toString();
  if (timedOut.has(test.name) || /^(panic|fatal error): /m.test(text)) {
    return TestStatus.FAILED;
  }
  // Benchmarks never say that they ended, and a line that a test did not end can swallow the words of its end. A
  // benchmark that measured something got to its end.
  const root = test.name.split("/", 1)[0] ?? "";
  const measured = isBenchmark(test.name) && /\sns\/op\b/.test(text);
  return !packageFailed || measured || inside.passed.has(root) ? TestStatus.PASSED : TestStatus.INTERRUPTED;
}

/** The tests that Go names when a package runs out of time. */
function timedOutTests(output: BoundedText): string[] {
  const list =
    /^panic: test timed out after .*\n\trunning tests:\n((?:\t\t.*\n)*)/m.exec(output.toString())?.[1] ?? "";
  return list.split("\n").flatMap((line) => /^\t\t(.*) \([^()]*\)$/.exec(line)?.[1] ?? []);
}

function cachedProblem(count: number): TestEventInit {
  const packages = count === 1 ? "1 package" : `${count} packages`;
  return {
    kind: {
      case: "problem",
      value: {
        severity: ProblemSeverity.WARNING,
        message: `Results of ${packages} come from Go's cache, with durations of an earlier run. -count=1 runs the tests.`,
      },
    },
  };
}

function parseEvent(line: string): GoEvent | undefined {
  if (!line.startsWith("{")) {
    return undefined;
  }
  try {
    const parsed: unknown = JSON.parse(line);
    return isEvent(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function isEvent(value: unknown): value is GoEvent {
  return typeof value === "object" && value !== null && "Action" in value && typeof value.Action === "string";
}

function timestampOf(time: unknown): Timestamp | undefined {
  const ms = typeof time === "string" ? Date.parse(time) : Number.NaN;
  return Number.isNaN(ms) ? undefined : timestampFromMs(ms);
}

function elapsed(event: GoEvent) {
  const seconds = event.Elapsed;
  return typeof seconds === "number" && seconds >= 0 && seconds < 1e9
    ? durationFromMs(Math.round(seconds * 1000))
    : undefined;
}
