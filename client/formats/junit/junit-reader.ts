import { BoundedText } from "../../runners/bounded-text.ts";
import { boundedFailure, MAX } from "../limits.ts";
import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import { type ReportSink, readableText } from "../report-sink.ts";
import { createPathRule } from "../text/paths.ts";
import { createXmlReader, type Place, type XmlAttributes, type XmlHandler } from "../xml/xml-reader.ts";
import { identityOf, type Producer, producerOf } from "./identity.ts";
import { parseCount } from "./numbers.ts";
import { type FailureElement, resultOf, type TestCase } from "./test-case.ts";

/** A `<testsuites>` or `<testsuite>` while it is read. */
interface Suite {
  readonly element: string;
  readonly name: string;
  readonly file: string;
  readonly attributes: XmlAttributes;
  readonly properties: Set<string>;
  /** In the suite itself, and in it with its suites. */
  readonly direct: Counts;
  readonly nested: Counts;
}

interface Counts {
  tests: number;
  failed: number;
  failures: number;
}

/** What an open element gathers. */
interface Frame {
  readonly element: string;
  readonly text: BoundedText | undefined;
  readonly close: (() => void) | undefined;
}

const FAILURES = new Set(["failure", "error", "rerunFailure", "rerunError", "flakyFailure", "flakyError"]);
/** Kept of a test; the contract has room for fewer. */
const MAX_ELEMENTS = 200;

/** Reads JUnit XML as its many producers write it; see `identityOf` for what they call a test. */
export function createJunitReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  return createXmlReader((place) => createJunitHandler(options, sink, place), sink, limits);
}

function createJunitHandler(options: ParseReportOptions, sink: ReportSink, place: Place): XmlHandler {
  const relative = createPathRule(options.root);
  const frames: Frame[] = [];
  const suites: Suite[] = [];
  let test: TestCase | undefined;
  let failure: FailureElement | undefined;

  function openSuite(element: string, attributes: XmlAttributes): Frame {
    const file = attributes["file"] ?? attributes["filepath"];
    const suite: Suite = {
      element,
      name: attributes["name"] ?? "",
      file: file === undefined ? (suites.at(-1)?.file ?? "") : relative(file),
      attributes,
      properties: new Set(),
      direct: { tests: 0, failed: 0, failures: 0 },
      nested: { tests: 0, failed: 0, failures: 0 },
    };
    suites.push(suite);
    return { element, text: undefined, close: () => closeSuite(suite) };
  }

  function closeSuite(suite: Suite): void {
    suites.pop();
    checkTotals(suite);
    const outer = suites.at(-1);
    if (outer !== undefined) {
      add(outer.nested, suite.nested);
    }
  }

  /** Producers count with or without suites inside, and tests or failures of tests. */
  function checkTotals({ element, name, attributes, direct, nested }: Suite): void {
    const called = name === "" ? `<${element}>` : `<${element}> "${name}"`;
    const tests = parseCount(attributes["tests"]);
    if (tests !== undefined && tests !== nested.tests && tests !== direct.tests) {
      sink.warning(`${called} says that it has ${tests} tests, and has ${nested.tests}`, place());
    }
    if (attributes["failures"] === undefined && attributes["errors"] === undefined) {
      return;
    }
    const failed = (parseCount(attributes["failures"]) ?? 0) + (parseCount(attributes["errors"]) ?? 0);
    if (![nested.failed, nested.failures, direct.failed, direct.failures].includes(failed)) {
      sink.warning(`${called} says that ${failed} tests failed, and ${nested.failed} did`, place());
    }
  }

  function openTest(attributes: XmlAttributes): Frame {
    const producer = producerFor(attributes);
    const own = attributes["file"] ?? attributes["filepath"];
    const inner = suites.filter(({ element }) => element === "testsuite").map(({ name }) => name);
    const opened: TestCase = {
      attributes,
      producer,
      identity: identityOf(producer, options.framework || producer, {
        name: attributes["name"] ?? "",
        classname: attributes["classname"] ?? attributes["class"] ?? "",
        file: own === undefined ? (suites.at(-1)?.file ?? "") : relative(own),
        suites: inner.filter((name) => name !== ""),
      }),
      failures: [],
      skipped: undefined,
      properties: [],
      stdout: new BoundedText(),
      stderr: new BoundedText(),
    };
    test = opened;
    return { element: "testcase", text: undefined, close: () => closeTest(opened) };
  }

  function producerFor(attributes: XmlAttributes): Producer {
    return producerOf({
      names: suites.map(({ name }) => name),
      properties: new Set(suites.flatMap(({ properties }) => [...properties])),
      attributes,
    });
  }

  function closeTest(closed: TestCase): void {
    test = undefined;
    const failures = closed.failures.filter(({ element }) => element === "failure" || element === "error");
    const counts = { tests: 1, failed: failures.length > 0 ? 1 : 0, failures: failures.length };
    const suite = suites.at(-1);
    if (suite !== undefined) {
      add(suite.direct, counts);
      add(suite.nested, counts);
    }
    sink.result(resultOf(closed));
  }

  /** An element inside of a test. */
  function openInTest(inside: TestCase, element: string, attributes: XmlAttributes): Frame {
    if (FAILURES.has(element)) {
      return openFailure(attributes, element, (closed) => {
        if (inside.failures.length < MAX_ELEMENTS) {
          inside.failures.push(closed);
        }
      });
    }
    switch (element) {
      case "skipped": {
        const body = new BoundedText();
        inside.skipped = { type: attributes["type"] ?? "", message: attributes["message"] ?? "", body };
        return { element, text: body, close: undefined };
      }
      case "system-out":
        return { element, text: failure?.stdout ?? inside.stdout, close: undefined };
      case "system-err":
        return { element, text: failure?.stderr ?? inside.stderr, close: undefined };
      case "stackTrace":
        return { element, text: failure?.body, close: undefined };
      case "property":
        return openProperty(attributes, (name, value) => {
          if (inside.properties.length < MAX_ELEMENTS) {
            inside.properties.push([name, value]);
          }
        });
      default:
        return { element, text: undefined, close: undefined };
    }
  }

  function openFailure(
    attributes: XmlAttributes,
    element: string,
    closed: (failure: FailureElement) => void,
  ): Frame {
    const opened: FailureElement = {
      element,
      attributes,
      body: new BoundedText(),
      stdout: new BoundedText(),
      stderr: new BoundedText(),
    };
    failure = opened;
    return {
      element,
      text: opened.body,
      close() {
        failure = undefined;
        closed(opened);
      },
    };
  }

  function openProperty(attributes: XmlAttributes, set: (name: string, value: string) => void): Frame {
    const body = new BoundedText();
    return {
      element: "property",
      text: body,
      close: () => set(attributes["name"] ?? "", attributes["value"] ?? body.toString()),
    };
  }

  /** An element of a suite that is neither a suite nor a test. */
  function openInSuite(element: string, attributes: XmlAttributes): Frame {
    const suite = suites.at(-1);
    switch (element) {
      case "system-out":
      case "system-err": {
        const text = new BoundedText();
        const stderr = element === "system-err";
        return { element, text, close: () => sink.output(text.toString(), stderr) };
      }
      case "property":
        if (suite !== undefined && suite.properties.size < MAX_ELEMENTS) {
          suite.properties.add(attributes["name"] ?? "");
        }
        return { element, text: undefined, close: undefined };
      case "failure":
      case "error":
        return openFailure(attributes, element, (closed) => suiteFailed(suite, closed));
      default:
        return { element, text: undefined, close: undefined };
    }
  }

  /** Something besides the tests failed: a file could not be loaded, a set-up threw. */
  function suiteFailed(suite: Suite | undefined, { attributes, body }: FailureElement): void {
    const file = readableText(suite?.file || suite?.name || "").slice(0, MAX.file) || "(unknown)";
    sink.event({
      kind: {
        case: "fileEnded",
        value: {
          file: file.toWellFormed(),
          failures: [
            boundedFailure({
              message: attributes["message"],
              type: attributes["type"],
              stack: body.toString(),
            }),
          ],
        },
      },
    });
  }

  function opened(element: string, attributes: XmlAttributes): Frame {
    if (test !== undefined) {
      return openInTest(test, element, attributes);
    }
    switch (element) {
      case "testsuites":
      case "testsuite":
        return openSuite(element, attributes);
      case "testcase":
        return openTest(attributes);
      default:
        return openInSuite(element, attributes);
    }
  }

  return {
    open(element, attributes) {
      if (frames.length === 0 && !/^test(suites?|case)$/.test(element)) {
        sink.error(
          `this is not JUnit XML: it begins with <${element.slice(0, 100)}> instead of <testsuites> or <testsuite>`,
          place(),
        );
      }
      frames.push(opened(element, attributes));
    },
    text(text) {
      frames.at(-1)?.text?.append(text);
    },
    close() {
      frames.pop()?.close?.();
    },
    context() {
      return test === undefined ? "" : `inside of the test "${(test.identity.name ?? "").slice(0, 200)}"`;
    },
  };
}

function add(to: Counts, counts: Readonly<Counts>): void {
  to.tests += counts.tests;
  to.failed += counts.failed;
  to.failures += counts.failures;
}
