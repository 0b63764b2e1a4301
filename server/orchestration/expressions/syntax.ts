import { CelScalar, type CelType, type CelUint, celUint, listType, mapType, parse } from "@bufbuild/cel";
import { didYouMean } from "../../schema/wording.ts";
import type { References } from "./expression.ts";
import { FUNCTION_NAMES } from "./functions.ts";
import { bracketDepth, ScanError } from "./scan.ts";

/** The longest source of an expression, in UTF-16 code units. */
export const MAX_SOURCE_LENGTH = 16_384;

/** How deep the brackets of an expression may nest. */
const MAX_BRACKETS = 100;

/** How deep the tree of an expression may be; a chain such as `a + b + c` is as deep as it is long. */
const MAX_DEPTH = 500;

/** What expressions may name, besides variables of their own and types. */
export const VARIABLES: readonly string[] = ["input", "steps", "run", "item", "index", "error"];

const TYPES: Readonly<Record<string, CelType>> = {
  bool: CelScalar.BOOL,
  int: CelScalar.INT,
  uint: CelScalar.UINT,
  double: CelScalar.DOUBLE,
  string: CelScalar.STRING,
  bytes: CelScalar.BYTES,
  list: listType(CelScalar.DYN),
  map: mapType(CelScalar.DYN, CelScalar.DYN),
  null_type: CelScalar.NULL,
  type: CelScalar.TYPE,
};

/** Macros that go through a list, or the keys of a map. */
export type Macro = "all" | "exists" | "exists_one" | "map" | "filter";

/** An expression as a tree. `offset`: where it is in the source. */
export type Node = { readonly offset: number } & (
  | {
      readonly kind: "constant";
      readonly value: null | boolean | bigint | number | string | Uint8Array | CelUint | CelType;
    }
  | { readonly kind: "variable"; readonly name: string }
  /** `steps.name`. */
  | { readonly kind: "step"; readonly id: string }
  | { readonly kind: "select"; readonly operand: Node; readonly field: string }
  | { readonly kind: "has"; readonly operand: Node; readonly field: string }
  | { readonly kind: "hasStep"; readonly id: string }
  | { readonly kind: "index"; readonly operand: Node; readonly index: Node }
  | { readonly kind: "and" | "or"; readonly left: Node; readonly right: Node }
  | { readonly kind: "conditional"; readonly test: Node; readonly yes: Node; readonly no: Node }
  | {
      readonly kind: "call";
      readonly function: string;
      readonly target: Node | undefined;
      readonly arguments: readonly Node[];
    }
  | { readonly kind: "list"; readonly elements: readonly Node[] }
  | { readonly kind: "map"; readonly entries: readonly { readonly key: Node; readonly value: Node }[] }
  | {
      readonly kind: "macro";
      readonly macro: Macro;
      readonly range: Node;
      readonly variable: string;
      /** Which elements count. Undefined: all. */
      readonly test: Node | undefined;
      /** What comes of an element; only of `map`. */
      readonly transform: Node | undefined;
    }
);

export interface ParsedSource {
  readonly node: Node;
  readonly references: References;
}

/** Parses the source of one expression. Throws a `ScanError`. */
export function parseSource(source: string): ParsedSource {
  if (source.trim() === "") throw new ScanError("the expression is empty", 0);
  if (source.length > MAX_SOURCE_LENGTH) {
    throw new ScanError(
      `the expression has ${source.length} characters, and may have ${MAX_SOURCE_LENGTH}; divide it among steps`,
      0,
    );
  }
  if (bracketDepth(source) > MAX_BRACKETS) throw tooDeep();
  return new Converter(source).convert();
}

type CelParsed = ReturnType<typeof parse>;
type CelExpr = NonNullable<CelParsed["expr"]>;
type CelCall = Extract<CelExpr["exprKind"], { case: "callExpr" }>["value"];
type CelComprehension = Extract<CelExpr["exprKind"], { case: "comprehensionExpr" }>["value"];

/** Turns the tree of the CEL library, in which macros are written out, into ours, in which they are not. */
class Converter {
  readonly #source: string;
  readonly #parsed: CelParsed;
  readonly #steps = new Set<string>();
  readonly #variables = new Set<string>();
  /** Variables of the macros around, the innermost last. */
  readonly #local: string[] = [];
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
    this.#parsed = parseCel(source);
  }

  convert(): ParsedSource {
    const node = this.#node(this.#parsed.expr);
    return { node, references: { steps: [...this.#steps], variables: this.#variables } };
  }

  #node(expr: CelExpr | undefined): Node {
    if (expr === undefined) throw new ScanError("the expression is not complete", this.#source.length);
    if (++this.#depth > MAX_DEPTH) throw tooDeep();
    const node = this.#convert(expr);
    this.#depth--;
    return node;
  }

  #convert(expr: CelExpr): Node {
    const offset = this.#parsed.sourceInfo?.positions[expr.id.toString()] ?? 0;
    const { exprKind } = expr;
    switch (exprKind.case) {
      case "constExpr":
        return { offset, kind: "constant", value: constantValue(exprKind.value.constantKind, offset) };
      case "identExpr":
        return this.#name(exprKind.value.name, offset);
      case "selectExpr": {
        const { operand, field, testOnly } = exprKind.value;
        if (this.#isSteps(operand)) return this.#step(field, offset, testOnly ? "hasStep" : "step");
        return { offset, kind: testOnly ? "has" : "select", operand: this.#node(operand), field };
      }
      case "callExpr":
        return this.#call(exprKind.value, offset);
      case "listExpr":
        return { offset, kind: "list", elements: exprKind.value.elements.map((each) => this.#node(each)) };
      case "structExpr": {
        const { messageName, entries } = exprKind.value;
        if (messageName !== "") {
          throw new ScanError(`"${messageName}{…}" makes a message; write a map, {"field": value}`, offset);
        }
        return {
          offset,
          kind: "map",
          entries: entries.map(({ keyKind, value }) => ({
            key: this.#node(keyKind.case === "mapKey" ? keyKind.value : undefined),
            value: this.#node(value),
          })),
        };
      }
      case "comprehensionExpr":
        return this.#macro(expr, exprKind.value, offset);
      case undefined:
        throw new ScanError("the expression is not complete", offset);
    }
  }

  #isSteps(expr: CelExpr | undefined): boolean {
    return (
      expr?.exprKind.case === "identExpr" &&
      bare(expr.exprKind.value.name) === "steps" &&
      !this.#local.includes("steps")
    );
  }

  #step<Kind extends "step" | "hasStep">(id: string, offset: number, kind: Kind): Node {
    this.#steps.add(id);
    return { offset, kind, id };
  }

  #name(written: string, offset: number): Node {
    const name = bare(written);
    if (this.#local.includes(name)) return { offset, kind: "variable", name };
    if (name === "steps") {
      throw new ScanError('"steps" stands before the name of a step, as in steps.name.output', offset);
    }
    if (VARIABLES.includes(name)) {
      this.#variables.add(name);
      return { offset, kind: "variable", name };
    }
    const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
    if (type !== undefined) return { offset, kind: "constant", value: type };
    const known = [...VARIABLES, ...this.#local];
    throw new ScanError(
      `"${name}" is not known here${didYouMean(name, known)}: an expression sees ${known.join(", ")}; write a text in quotes`,
      offset,
    );
  }

  #call(call: CelCall, offset: number): Node {
    const { target, args } = call;
    const [first, second, third] = args;
    switch (call.function) {
      case "_[_]":
        return this.#isSteps(first)
          ? this.#stepIndex(second, offset)
          : { offset, kind: "index", operand: this.#node(first), index: this.#node(second) };
      case "_&&_":
      case "_||_": {
        const kind = call.function === "_&&_" ? "and" : "or";
        return { offset, kind, left: this.#node(first), right: this.#node(second) };
      }
      case "_?_:_": {
        const test = this.#node(first);
        return { offset, kind: "conditional", test, yes: this.#node(second), no: this.#node(third) };
      }
      default:
        return this.#function(call, target, offset);
    }
  }

  #stepIndex(index: CelExpr | undefined, offset: number): Node {
    const kind = index?.exprKind.case === "constExpr" ? index.exprKind.value.constantKind : undefined;
    if (kind?.case === "stringValue") return this.#step(kind.value, offset, "step");
    throw new ScanError(
      'which step is meant must be known beforehand: write steps.name or steps["name"], and choose among steps with ?:',
      offset,
    );
  }

  #function(call: CelCall, target: CelExpr | undefined, offset: number): Node {
    const receiver = target?.exprKind.case === "identExpr" ? target.exprKind.value.name : undefined;
    const qualified = receiver === undefined ? undefined : `${receiver}.${call.function}`;
    const isQualified = qualified !== undefined && FUNCTION_NAMES.has(qualified);
    const name = isQualified ? qualified : call.function;
    if (!FUNCTION_NAMES.has(name)) {
      throw new ScanError(`there is no function "${name}"${macroHint(name, target !== undefined)}`, offset);
    }
    return {
      offset,
      kind: "call",
      function: name,
      target: target === undefined || isQualified ? undefined : this.#node(target),
      arguments: call.args.map((each) => this.#node(each)),
    };
  }

  #macro(expr: CelExpr, comprehension: CelComprehension, offset: number): Node {
    const range = this.#node(comprehension.iterRange);
    const written = this.#parsed.sourceInfo?.macroCalls[expr.id.toString()]?.exprKind;
    const name = written?.case === "callExpr" ? written.value.function : "";
    const macro = MACROS.get(name);
    if (macro === undefined) throw new ScanError(`the macro "${name}" is not known`, offset);
    const variable = comprehension.iterVar;
    this.#local.push(variable);
    const { test, transform } = macroParts(macro, comprehension.loopStep);
    const node: Node = {
      offset,
      kind: "macro",
      macro,
      range,
      variable,
      test: test === undefined ? undefined : this.#node(test),
      transform: transform === undefined ? undefined : this.#node(transform),
    };
    this.#local.pop();
    return node;
  }
}

const MACROS: ReadonlyMap<string, Macro> = new Map([
  ["all", "all"],
  ["exists", "exists"],
  ["exists_one", "exists_one"],
  ["existsOne", "exists_one"],
  ["map", "map"],
  ["filter", "filter"],
]);

/** What was written in the macro, from what one round of its loop does. */
function macroParts(
  macro: Macro,
  step: CelExpr | undefined,
): { test: CelExpr | undefined; transform: CelExpr | undefined } {
  const call = step?.exprKind.case === "callExpr" ? step.exprKind.value : undefined;
  switch (macro) {
    case "all":
    case "exists":
      // result && test, result || test
      return { test: call?.args[1], transform: undefined };
    case "exists_one":
    case "filter":
      // test ? … : result
      return { test: call?.args[0], transform: undefined };
    case "map":
      // result + [transform], or test ? result + [transform] : result
      return call?.function === "_?_:_"
        ? { test: call.args[0], transform: appended(call.args[1]) }
        : { test: undefined, transform: appended(step) };
  }
}

function appended(sum: CelExpr | undefined): CelExpr | undefined {
  const list = sum?.exprKind.case === "callExpr" ? sum.exprKind.value.args[1] : undefined;
  return list?.exprKind.case === "listExpr" ? list.exprKind.value.elements[0] : undefined;
}

function macroHint(name: string, isMethod: boolean): string {
  if (MACROS.has(name) && isMethod)
    return "of this form; write list.all(x, x > 0), and alike exists, map and filter";
  if (name === "has") return " of this form; write has(input.field)";
  return didYouMean(name, [...FUNCTION_NAMES, ...MACROS.keys(), "has"]);
}

/** Without the dot that stands for the outermost scope. */
function bare(name: string): string {
  return name.startsWith(".") ? name.slice(1) : name;
}

type CelConstant = Extract<CelExpr["exprKind"], { case: "constExpr" }>["value"]["constantKind"];

function constantValue(constant: CelConstant, offset: number): Extract<Node, { kind: "constant" }>["value"] {
  switch (constant.case) {
    case "nullValue":
      return null;
    case "boolValue":
    case "doubleValue":
    case "stringValue":
    case "bytesValue":
      return constant.value;
    case "int64Value":
      if (BigInt.asIntN(64, constant.value) !== constant.value) {
        throw new ScanError(
          `${constant.value} is no 64-bit integer; write it as ${constant.value}.0`,
          offset,
        );
      }
      return constant.value;
    case "uint64Value":
      if (BigInt.asUintN(64, constant.value) !== constant.value) {
        throw new ScanError(`${constant.value}u is no unsigned 64-bit integer`, offset);
      }
      return celUint(constant.value);
    default:
      throw new ScanError("the literal is not supported", offset);
  }
}

function parseCel(source: string): CelParsed {
  try {
    return parse(source);
  } catch (error) {
    // The parser recurses with the nesting of the source.
    if (error instanceof RangeError) throw tooDeep();
    throw syntaxError(error);
  }
}

function syntaxError(error: unknown): ScanError {
  const { rawMessage, location, message } = (error ?? {}) as {
    rawMessage?: string;
    message?: string;
    location?: { start?: { offset?: number } };
  };
  return new ScanError(
    `is no CEL expression: ${rawMessage ?? message ?? "syntax error"}`,
    location?.start?.offset ?? 0,
  );
}

function tooDeep(): ScanError {
  return new ScanError("the expression is nested too deeply; divide it among steps", 0);
}
