import { goIdentity } from "../../runners/go-test-name.ts";
import { boundedIdentity } from "../limits.ts";
import { type IdentityInit, readableText } from "../report-sink.ts";

/** What wrote a report, as far as names are put together differently. */
export type Producer =
  | "vitest"
  | "jest"
  | "node-test"
  | "pytest"
  | "go-test"
  | "mocha"
  | "phpunit"
  | "ctest"
  | "junit";

/** What a report says of the name of a test. */
export interface CaseNames {
  readonly name: string;
  readonly classname: string;
  /** Of the case, or else of the nearest suite that has one, relative to the root. Empty: none. */
  readonly file: string;
  /** The names of the suites around it, from the outside in, without `<testsuites>`. */
  readonly suites: readonly string[];
}

interface Names {
  readonly file: string;
  readonly suitePath: string[];
  readonly name: string;
  readonly parameters?: string;
}

/**
 * What identifies a test, by the rules of what wrote the report:
 *
 * | producer | file | suites | name |
 * |---|---|---|---|
 * | Vitest | classname | the parts of the name before the last ` > ` | what follows it |
 * | Jest (jest-junit) | `file` | the classname, unless it is the name itself, which then has all parts | name |
 * | node:test | `file` | the suites around it | name |
 * | pytest | `file`, or the classname's modules | classes in the classname | name; `[...]` are parameters |
 * | gotestsum, go-junit-report | the package: classname | the parts of the name before the last `/` | what follows it |
 * | Mocha | `file` of the suite | the full title before the test's own | the test's own title |
 * | PHPUnit | `file` | the class | name; the data set is the parameters |
 * | CTest | none | the classname, unless it is the name | name |
 * | Surefire, Gradle and others | `file` | the classname, or else the suites | name; `[...]` are parameters |
 */
export function identityOf(producer: Producer, framework: string, names: CaseNames): IdentityInit {
  if (producer === "go-test") {
    return {
      ...goIdentity(readableText(names.classname || names.suites.join("/")), readableText(names.name)),
      framework,
    };
  }
  return boundedIdentity({ framework, ...byProducer(producer, names) });
}

function byProducer(producer: Exclude<Producer, "go-test">, names: CaseNames): Names {
  const { name, classname, file, suites } = names;
  switch (producer) {
    case "vitest": {
      const parts = name.split(" > ");
      return { file: file || classname, suitePath: parts.slice(0, -1), name: parts.at(-1) || name };
    }
    case "jest":
      return { file, suitePath: classname === name || classname === "" ? [] : [classname], name };
    case "node-test":
      return { file, suitePath: [...suites], name };
    case "pytest":
      return pytest(names);
    case "mocha":
      return mocha(names);
    case "phpunit":
      return phpunit(names);
    case "ctest":
      return { file, suitePath: classname === name || classname === "" ? [] : [classname], name };
    case "junit":
      return { file, suitePath: classname === "" ? [...suites] : [classname], ...withParameters(name) };
  }
}

/** `tests.unit.test_io.TestRead` is the class `TestRead` in `tests/unit/test_io.py`: classes begin with a capital. */
function pytest({ name, classname, file }: CaseNames): Names {
  const parts = classname === "" ? [] : classname.split(".");
  const known = file.replace(/\.py$/, "").replaceAll("/", ".");
  const isBelowFile = known !== "" && (classname === known || classname.startsWith(`${known}.`));
  const capital = parts.findIndex((part) => /^_*\p{Lu}/u.test(part));
  const modules = isBelowFile ? known.split(".").length : capital === -1 ? parts.length : capital;
  return {
    file: file || (modules > 0 ? `${parts.slice(0, modules).join("/")}.py` : ""),
    suitePath: parts.slice(modules),
    ...withParameters(name),
  };
}

/**
 * mocha-junit-reporter writes the full title as name and the test's own as classname, Mocha's own `xunit` reporter the
 * title of the suites as classname and the test's own as name.
 */
function mocha({ name, classname, file }: CaseNames): Names {
  if (classname !== "" && name.endsWith(` ${classname}`)) {
    return { file, suitePath: [name.slice(0, -classname.length - 1)], name: classname };
  }
  return { file, suitePath: classname === name || classname === "" ? [] : [classname], name };
}

function phpunit({ name, classname, file, suites }: CaseNames): Names {
  const match = /^(\S+) with data set (.+)$/s.exec(name);
  const suitePath = classname === "" ? suites.slice(-1) : [classname];
  return match?.[1] === undefined || match[2] === undefined
    ? { file, suitePath, name }
    : { file, suitePath, name: match[1], parameters: match[2] };
}

/** `reads[3-utf8]` is `reads` with parameters; `works [sometimes]` is a name. */
function withParameters(name: string): Pick<Names, "name" | "parameters"> {
  const match = /^([^\s[\](){}]+(?:[({][^[\]]*[)}])?)\[(.*)\]$/s.exec(name);
  return match?.[1] === undefined || !match[2] ? { name } : { name: match[1], parameters: match[2] };
}

/** What tells producers apart, as far as it is known when a test begins. */
export interface ProducerSigns {
  /** The names of `<testsuites>` and of the suites around, from the outside in. */
  readonly names: readonly string[];
  /** The names of the properties of the suites around. */
  readonly properties: ReadonlySet<string>;
  readonly attributes: Readonly<Record<string, string | undefined>>;
}

const BY_NAME: readonly (readonly [RegExp, Producer])[] = [
  [/^vitest tests$/i, "vitest"],
  [/^jest tests$/i, "jest"],
  [/^pytest( tests)?$/i, "pytest"],
  [/^mocha tests$/i, "mocha"],
];

/** What wrote the report; `junit` when nothing tells. */
export function producerOf({ names, properties, attributes }: ProducerSigns): Producer {
  for (const [pattern, producer] of BY_NAME) {
    if (names.some((name) => pattern.test(name))) {
      return producer;
    }
  }
  if (properties.has("go.version")) {
    return "go-test";
  }
  if (attributes["assertions"] !== undefined || /\.php$/.test(attributes["file"] ?? "")) {
    return "phpunit";
  }
  const { classname, name, status } = attributes;
  if (classname === "test" || classname === "suite") {
    return "node-test";
  }
  if (classname !== undefined && classname === name && /^(run|fail|disabled|notrun)$/.test(status ?? "")) {
    return "ctest";
  }
  return "junit";
}
