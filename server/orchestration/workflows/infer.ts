import { didYouMean } from "../../schema/wording.ts";
import { describe } from "../expressions/evaluate.ts";
import type { Node } from "../expressions/syntax.ts";
import type { PlacedExpression, TemplateTree } from "../expressions/template.ts";
import {
  ANY,
  type Kind,
  listOf,
  mayBe,
  objectOf,
  type Shape,
  scalar,
  shapeOfJson,
  union,
  wordShape,
} from "./shape.ts";

/** What expressions see, before there is a run. */
export interface Surroundings {
  /** What `input`, `run`, `item`, `index` and `error` are. */
  readonly variables: ReadonlyMap<string, Shape>;
  /** What the output of a step is. */
  output(id: string): Shape;
}

/** Told of what an expression asks for in vain. */
export type Report = (found: {
  readonly reason: "UNKNOWN_FIELD" | "TYPE_MISMATCH";
  readonly message: string;
  readonly isWarning: boolean;
  /** Where in the text that the expression is in. */
  readonly offset: number;
}) => void;

/** What a template gives; `report` is called for what is wrong on the way, with the path within the template. */
export function inferTemplate(
  tree: TemplateTree,
  around: Surroundings,
  report: (path: string) => Report,
): Shape {
  switch (tree.kind) {
    case "constant":
      return shapeOfJson(tree.value);
    case "expression":
      return inferExpression(tree.expression, around, report(tree.path));
    case "text":
      for (const piece of tree.pieces) {
        if (typeof piece !== "string") inferExpression(piece, around, report(tree.path));
      }
      return scalar("string");
    case "list":
      return listOf(union(tree.items.map((item) => inferTemplate(item, around, report))));
    case "object":
      return objectOf(
        new Map(tree.fields.map(([name, field]) => [name, inferTemplate(field, around, report)])),
      );
  }
}

/** What an expression gives. */
export function inferExpression(expression: PlacedExpression, around: Surroundings, report: Report): Shape {
  const inference = new Inference(around, (found) =>
    report({ ...found, offset: expression.offset + found.offset }),
  );
  return inference.shape(expression.node);
}

const BOOLEAN = scalar("boolean");
const STRING = scalar("string");
const INTEGER = scalar("integer");
const NUMBER = scalar("number");

/** The shapes of functions that are not operators. Others give anything. */
const RESULTS: Readonly<Record<string, Shape>> = {
  size: INTEGER,
  int: INTEGER,
  uint: INTEGER,
  double: NUMBER,
  string: STRING,
  bool: BOOLEAN,
  contains: BOOLEAN,
  startsWith: BOOLEAN,
  endsWith: BOOLEAN,
  matches: BOOLEAN,
  charAt: STRING,
  indexOf: INTEGER,
  lastIndexOf: INTEGER,
  lowerAscii: STRING,
  upperAscii: STRING,
  replace: STRING,
  substring: STRING,
  trim: STRING,
  join: STRING,
  format: STRING,
  split: listOf(STRING),
  "strings.quote": STRING,
  getSeconds: INTEGER,
  getMinutes: INTEGER,
  getHours: INTEGER,
  getMilliseconds: INTEGER,
  getFullYear: INTEGER,
  getMonth: INTEGER,
  getDate: INTEGER,
  getDayOfMonth: INTEGER,
  getDayOfWeek: INTEGER,
  getDayOfYear: INTEGER,
};

/** What methods are methods of. */
const TARGETS: Readonly<Record<string, Kind>> = {
  contains: "string",
  startsWith: "string",
  endsWith: "string",
  matches: "string",
  charAt: "string",
  indexOf: "string",
  lastIndexOf: "string",
  lowerAscii: "string",
  upperAscii: "string",
  replace: "string",
  split: "string",
  substring: "string",
  trim: "string",
  format: "string",
  join: "list",
};

const COMPARISONS = new Set(["_<_", "_<=_", "_>_", "_>=_"]);
const SUMS = new Set(["_+_", "_-_", "_*_", "_/_", "_%_"]);

class Inference {
  readonly #around: Surroundings;
  readonly #report: Report;
  readonly #local: { readonly name: string; readonly shape: Shape }[] = [];

  constructor(around: Surroundings, report: Report) {
    this.#around = around;
    this.#report = report;
  }

  shape(node: Node): Shape {
    switch (node.kind) {
      case "constant":
        return constantShape(node.value);
      case "variable":
        return this.#variable(node.name);
      case "step":
        return stepShape(this.#around.output(node.id));
      case "hasStep":
        return BOOLEAN;
      case "select":
        return this.#field(node, node.field, this.shape(node.operand));
      case "has":
        this.#has(node);
        return BOOLEAN;
      case "index":
        return this.#index(node);
      case "and":
      case "or":
        this.#boolean(node.left, `a side of ${node.kind === "and" ? "&&" : "||"}`);
        this.#boolean(node.right, `a side of ${node.kind === "and" ? "&&" : "||"}`);
        return BOOLEAN;
      case "conditional":
        this.#boolean(node.test, "the condition of ?:");
        return union([this.shape(node.yes), this.shape(node.no)]);
      case "call":
        return this.#call(node);
      case "list":
        return node.elements.length === 0
          ? listOf(ANY)
          : listOf(union(node.elements.map((each) => this.shape(each))));
      case "map":
        return this.#map(node);
      case "macro":
        return this.#macro(node);
    }
  }

  #variable(name: string): Shape {
    return (
      this.#local.findLast((local) => local.name === name)?.shape ?? this.#around.variables.get(name) ?? ANY
    );
  }

  #mismatch(message: string, offset: number, isWarning = false): void {
    this.#report({ reason: "TYPE_MISMATCH", message, isWarning, offset });
  }

  #field(node: { readonly operand: Node; readonly offset: number }, name: string, operand: Shape): Shape {
    if (!mayBe(operand, "object")) {
      this.#mismatch(
        `${describe(node.operand)} is ${wordShape(operand)}, and has no field "${name}"`,
        node.offset,
      );
      return ANY;
    }
    const { object } = operand;
    if (operand.kinds === undefined || object === undefined) return ANY;
    const field = object.field(name);
    if (field !== undefined) return field;
    const rest = object.rest();
    // Maps have fields of any name.
    if (object.names.length === 0 && !object.isClosed) return rest;
    if (object.isClosed || rest.kinds === undefined) {
      this.#report({
        reason: "UNKNOWN_FIELD",
        message: unknownField(describe(node.operand), name, object.names),
        isWarning: !object.isClosed || operand.kinds.size > 1,
        offset: node.offset,
      });
      return ANY;
    }
    return rest;
  }

  #has(node: Extract<Node, { kind: "has" }>): void {
    const operand = this.shape(node.operand);
    const { object } = operand;
    if (node.operand.kind === "step" && object?.field(node.field) !== undefined) {
      const what = `${describe(node.operand)}.${node.field}`;
      this.#mismatch(`is always true: a step has it, be it null; write ${what} != null`, node.offset, true);
    } else if (!mayBe(operand, "object", "null")) {
      this.#mismatch(`${describe(node.operand)} is ${wordShape(operand)}, and has no fields`, node.offset);
    } else if (object?.isClosed && object.field(node.field) === undefined) {
      const message = `is never true: ${unknownField(describe(node.operand), node.field, object.names)}`;
      this.#report({ reason: "UNKNOWN_FIELD", message, isWarning: true, offset: node.offset });
    }
  }

  #index(node: Extract<Node, { kind: "index" }>): Shape {
    const operand = this.shape(node.operand);
    const index = this.shape(node.index);
    if (node.index.kind === "constant" && typeof node.index.value === "string") {
      return this.#field(node, node.index.value, operand);
    }
    if (!mayBe(operand, "list", "object")) {
      this.#mismatch(`${describe(node.operand)} is ${wordShape(operand)}, and has no items`, node.offset);
      return ANY;
    }
    if (operand.kinds?.size !== 1) return ANY;
    if (operand.kinds.has("object")) return operand.object?.isClosed ? ANY : (operand.object?.rest() ?? ANY);
    if (!mayBe(index, "integer", "number")) {
      this.#mismatch(
        `${describe(node.operand)} is a list, and its index is ${wordShape(index)}`,
        node.offset,
      );
    }
    return operand.items?.() ?? ANY;
  }

  #boolean(node: Node, what: string): void {
    const shape = this.shape(node);
    if (!mayBe(shape, "boolean")) {
      this.#mismatch(`${what} is ${wordShape(shape)}, and must be true or false`, node.offset);
    }
  }

  #call(node: Extract<Node, { kind: "call" }>): Shape {
    const args = [...(node.target === undefined ? [] : [node.target]), ...node.arguments];
    const shapes = args.map((each) => this.shape(each));
    const [left = ANY, right = ANY] = shapes;
    const name = node.function;
    if (SUMS.has(name)) return this.#sum(name, left, right, node.offset);
    if (COMPARISONS.has(name)) return this.#compare(name, left, right, node.offset);
    if (name === "_==_" || name === "_!=_") return this.#equals(name, left, right, node.offset);
    if (name === "@in") return this.#in(right, node);
    if (name === "!_") {
      if (!mayBe(left, "boolean")) this.#mismatch(`! stands before ${wordShape(left)}`, node.offset);
      return BOOLEAN;
    }
    if (name === "-_") return this.#negative(left, node.offset);
    if (name === "dyn") return left;
    const expected = TARGETS[name];
    if (expected !== undefined && node.target !== undefined && !mayBe(left, expected)) {
      const what = `${describe(node.target)} is ${wordShape(left)}`;
      this.#mismatch(`${name}(…) is a function of a ${expected}, and ${what}`, node.offset);
    }
    if (name === "size" && !mayBe(left, "string", "list", "object")) {
      this.#mismatch(`size(…) is asked of ${wordShape(left)}`, node.offset);
    }
    return RESULTS[name] ?? ANY;
  }

  #sum(name: string, left: Shape, right: Shape, offset: number): Shape {
    if (left.kinds === undefined || right.kinds === undefined) return ANY;
    const results: Shape[] = [];
    if (isNumeric(left) && isNumeric(right)) {
      const integers = isOnly(left, "integer") && isOnly(right, "integer");
      results.push(integers ? INTEGER : NUMBER);
    }
    if (name === "_+_" && mayBe(left, "string") && mayBe(right, "string")) results.push(STRING);
    if (name === "_+_" && mayBe(left, "list") && mayBe(right, "list")) {
      results.push(listOf(union([left.items?.() ?? ANY, right.items?.() ?? ANY])));
    }
    if (results.length > 0) return union(results);
    const hint =
      mayBe(left, "string") || mayBe(right, "string") ? "; use string(…), int(…) or double(…)" : "";
    this.#mismatch(
      `${operator(name)} stands between ${wordShape(left)} and ${wordShape(right)}${hint}`,
      offset,
    );
    return ANY;
  }

  #compare(name: string, left: Shape, right: Shape, offset: number): Shape {
    const comparable =
      left.kinds === undefined ||
      right.kinds === undefined ||
      (isNumeric(left) && isNumeric(right)) ||
      (["string", "boolean"] as const).some((kind) => mayBe(left, kind) && mayBe(right, kind));
    if (!comparable) {
      this.#mismatch(`${operator(name)} stands between ${wordShape(left)} and ${wordShape(right)}`, offset);
    }
    return BOOLEAN;
  }

  #equals(name: string, left: Shape, right: Shape, offset: number): Shape {
    const isNull = (shape: Shape) => isOnly(shape, "null");
    // What is asked for may be missing at times, so that asking whether it is null has its reason.
    if (!isNull(left) && !isNull(right) && !overlap(left, right)) {
      const always = name === "_==_" ? "false" : "true";
      const message = `${operator(name)} is always ${always}: it stands between ${wordShape(left)} and ${wordShape(right)}`;
      this.#mismatch(message, offset, true);
    }
    return BOOLEAN;
  }

  #in(container: Shape, node: Node): Shape {
    if (!mayBe(container, "list", "object")) {
      this.#mismatch(`"in" asks whether something is in ${wordShape(container)}`, node.offset);
    }
    return BOOLEAN;
  }

  #negative(shape: Shape, offset: number): Shape {
    if (!isNumeric(shape)) this.#mismatch(`- stands before ${wordShape(shape)}`, offset);
    return shape.kinds === undefined ? ANY : isOnly(shape, "integer") ? INTEGER : NUMBER;
  }

  #map(node: Extract<Node, { kind: "map" }>): Shape {
    const fields = new Map<string, Shape>();
    let isKnown = true;
    for (const { key, value } of node.entries) {
      const shape = this.shape(value);
      if (key.kind === "constant" && typeof key.value === "string") fields.set(key.value, shape);
      else isKnown = false;
    }
    return isKnown ? objectOf(fields) : scalar("object");
  }

  #macro(node: Extract<Node, { kind: "macro" }>): Shape {
    const range = this.shape(node.range);
    if (!mayBe(range, "list", "object")) {
      this.#mismatch(
        `${node.macro} goes through a list, and ${describe(node.range)} is ${wordShape(range)}`,
        node.offset,
      );
    }
    const item = isOnly(range, "list") ? (range.items?.() ?? ANY) : isOnly(range, "object") ? STRING : ANY;
    this.#local.push({ name: node.variable, shape: item });
    if (node.test !== undefined) this.#boolean(node.test, `the test of ${node.macro}`);
    const transformed = node.transform === undefined ? item : this.shape(node.transform);
    this.#local.pop();
    return node.macro === "map" || node.macro === "filter" ? listOf(transformed) : BOOLEAN;
  }
}

/** What expressions see of a step. */
function stepShape(output: Shape): Shape {
  return objectOf(
    new Map([
      ["output", output],
      ["state", STRING],
      ["error", ERROR],
    ]),
  );
}

/** What a failure is in expressions. */
export const ERROR: Shape = objectOf(
  new Map([
    ["code", STRING],
    ["message", STRING],
  ]),
);

function constantShape(value: Extract<Node, { kind: "constant" }>["value"]): Shape {
  switch (typeof value) {
    case "string":
      return STRING;
    case "boolean":
      return BOOLEAN;
    case "bigint":
      return INTEGER;
    case "number":
      return NUMBER;
    default:
      return value === null ? scalar("null") : ANY;
  }
}

function isOnly(shape: Shape, kind: Kind): boolean {
  return shape.kinds?.size === 1 && shape.kinds.has(kind);
}

function isNumeric(shape: Shape): boolean {
  return mayBe(shape, "integer", "number");
}

function overlap(a: Shape, b: Shape): boolean {
  if (a.kinds === undefined || b.kinds === undefined) return true;
  return (isNumeric(a) && isNumeric(b)) || [...a.kinds].some((kind) => b.kinds?.has(kind));
}

function operator(name: string): string {
  return name.replaceAll("_", "");
}

function unknownField(what: string, name: string, names: readonly string[]): string {
  const has =
    names.length === 0 ? "nothing" : names.slice(0, 12).join(", ") + (names.length > 12 ? ", …" : "");
  return `${what} has no field "${name}"${didYouMean(name, names)}: it has ${has}`;
}
