import { didYouMean } from "../../schema/wording.ts";
import { type Budget, ERROR_COST } from "./budget.ts";
import type { Scope } from "./expression.ts";
import { CallError, call } from "./functions.ts";
import type { Node } from "./syntax.ts";
import { asKey, Dict, fromJson, type Key, List, typeName, type Value, wordType } from "./values.ts";

/** An expression that has no value. */
export class EvaluationError extends Error {
  override readonly name = "EvaluationError";
  /** Where in the source. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/** Throws an `EvaluationError` or a `BudgetError`. */
export function evaluate(node: Node, scope: Scope, budget: Budget): Value {
  return new Evaluation(scope, budget).value(node);
}

class Evaluation {
  readonly #scope: Scope;
  readonly #budget: Budget;
  /** Variables of the macros around, the innermost last. */
  readonly #local: { readonly name: string; value: Value }[] = [];

  constructor(scope: Scope, budget: Budget) {
    this.#scope = scope;
    this.#budget = budget;
  }

  value(node: Node): Value {
    this.#budget.spend(1);
    switch (node.kind) {
      case "constant":
        return node.value;
      case "variable":
        return this.#variable(node.name, node.offset);
      case "step":
        return this.#step(node.id, node.offset);
      case "hasStep":
        return Object.hasOwn(this.#scope.steps, node.id);
      case "select":
        return this.#select(node);
      case "has":
        return this.#has(node.operand, node.field, node.offset);
      case "index":
        return this.#index(node);
      case "and":
        return this.#logical(node, false);
      case "or":
        return this.#logical(node, true);
      case "conditional":
        return this.value(this.#boolean(node.test, "the condition of ?:") ? node.yes : node.no);
      case "call":
        return this.#call(node);
      case "list":
        return List.of(node.elements.map((element) => this.value(element)));
      case "map":
        return this.#map(node);
      case "macro":
        return this.#macro(node);
    }
  }

  #variable(name: string, offset: number): Value {
    for (let at = this.#local.length - 1; at >= 0; at--) {
      const local = this.#local[at];
      if (local?.name === name) return local.value;
    }
    const scope = this.#scope;
    switch (name) {
      case "input":
        return fromJson(scope.input);
      case "run":
        return fromJson(scope.run);
      case "item":
        if (scope.item !== undefined) return fromJson(scope.item);
        throw new EvaluationError('"item" is there only within a fan-out (for_each)', offset);
      case "index":
        if (scope.index !== undefined) return BigInt(scope.index);
        throw new EvaluationError('"index" is there only within a fan-out (for_each)', offset);
      case "error":
        if (scope.error !== undefined) return fromJson(scope.error);
        throw new EvaluationError('"error" is there only within a fallback', offset);
      default:
        throw new EvaluationError(`"${name}" is not known here`, offset);
    }
  }

  #step(id: string, offset: number): Value {
    const { steps } = this.#scope;
    const step = Object.hasOwn(steps, id) ? steps[id] : undefined;
    if (step !== undefined) return fromJson({ output: step.output, state: step.state, error: step.error });
    const meant = didYouMean(id, Object.keys(steps));
    throw new EvaluationError(`there is no step "${id}" that has ended${meant}`, offset);
  }

  #select(node: Extract<Node, { kind: "select" }>): Value {
    const operand = this.value(node.operand);
    if (operand instanceof Dict) {
      const value = operand.get(node.field);
      if (value !== undefined) return value;
    }
    throw missing(node.operand, operand, node.field, node.offset);
  }

  /**
   * False of null too, which is the output of a step that was skipped, and where what the field is asked of is not there
   * itself: Protobuf JSON leaves out what is empty.
   */
  #has(operand: Node, field: string, offset: number): boolean {
    const value = this.#present(operand);
    if (value === null || value === undefined) return false;
    if (value instanceof Dict) return value.get(field) !== undefined;
    throw new EvaluationError(
      `has(…) asks for a field of ${describe(operand)}, which is ${wordType(value)}`,
      offset,
    );
  }

  /** What a path leads to. Undefined: a part of it is not there. */
  #present(node: Node): Value | undefined {
    if (node.kind !== "select") return this.value(node);
    this.#budget.spend(1);
    const operand = this.#present(node.operand);
    if (operand === undefined || operand === null) return undefined;
    if (operand instanceof Dict) return operand.get(node.field);
    throw missing(node.operand, operand, node.field, node.offset);
  }

  #index(node: Extract<Node, { kind: "index" }>): Value {
    const operand = this.value(node.operand);
    const index = this.value(node.index);
    const key = asKey(index);
    if (operand instanceof List) {
      if (typeof key !== "bigint") {
        throw new EvaluationError(
          `${describe(node.operand)} is a list, and has no ${typeName(index)} as index`,
          node.offset,
        );
      }
      const value = operand.get(Number(key));
      if (value !== undefined) return value;
      const size = operand.size === 1 ? "1 item" : `${operand.size} items`;
      throw new EvaluationError(`${describe(node.operand)} has ${size}, and no [${key}]`, node.offset);
    }
    if (operand instanceof Dict && key !== undefined) {
      const value = operand.get(key);
      if (value !== undefined) return value;
    }
    throw missing(node.operand, operand, key ?? typeName(index), node.offset);
  }

  /** `&&` and `||`: what one side decides does not depend on an error of the other. */
  #logical(node: Extract<Node, { kind: "and" | "or" }>, decisive: boolean): boolean {
    const what = node.kind === "and" ? "a side of &&" : "a side of ||";
    let failure: EvaluationError;
    try {
      if (this.#boolean(node.left, what) === decisive) return decisive;
      return this.#boolean(node.right, what);
    } catch (error) {
      failure = this.#absorbed(error);
    }
    try {
      if (this.#boolean(node.right, what) === decisive) return decisive;
    } catch (error) {
      this.#absorbed(error);
    }
    throw failure;
  }

  #boolean(node: Node, what: string): boolean {
    const value = this.value(node);
    if (typeof value === "boolean") return value;
    throw new EvaluationError(`${what} is ${wordType(value)}, and must be true or false`, node.offset);
  }

  #call(node: Extract<Node, { kind: "call" }>): Value {
    const target = node.target === undefined ? undefined : this.value(node.target);
    const args = node.arguments.map((argument) => this.value(argument));
    try {
      return call(node.function, target, args, this.#budget);
    } catch (error) {
      if (error instanceof CallError) throw new EvaluationError(error.message, node.offset);
      throw error;
    }
  }

  #map(node: Extract<Node, { kind: "map" }>): Dict {
    const entries = new Map<Key, Value>();
    for (const entry of node.entries) {
      const value = this.value(entry.key);
      const key = asKey(value);
      if (key === undefined) {
        throw new EvaluationError(
          `a key of a map is ${wordType(value)}, and must be a string, int or bool`,
          entry.key.offset,
        );
      }
      if (entries.has(key))
        throw new EvaluationError(
          `the map has the key ${JSON.stringify(String(key))} twice`,
          entry.key.offset,
        );
      entries.set(key, this.value(entry.value));
    }
    return Dict.of(entries);
  }

  #macro(node: Extract<Node, { kind: "macro" }>): Value {
    const range = this.value(node.range);
    const items = range instanceof Dict ? range.keys() : range;
    if (!(range instanceof Dict || items instanceof List)) {
      throw new EvaluationError(
        `${node.macro} goes through a list, and ${describe(node.range)} is ${wordType(range)}`,
        node.offset,
      );
    }
    const local = { name: node.variable, value: null as Value };
    this.#local.push(local);
    try {
      return this.#iterate(node, items as Iterable<Value>, local);
    } finally {
      this.#local.pop();
    }
  }

  #iterate(node: Extract<Node, { kind: "macro" }>, items: Iterable<Value>, local: { value: Value }): Value {
    const { macro, test, transform } = node;
    if (macro === "all" || macro === "exists") return this.#quantify(node, items, local);
    const kept: Value[] = [];
    for (const item of items) {
      this.#budget.spend(1);
      local.value = item;
      if (test !== undefined && !this.#boolean(test, `the test of ${macro}`)) continue;
      kept.push(transform === undefined ? item : this.value(transform));
    }
    return macro === "exists_one" ? kept.length === 1 : List.of(kept);
  }

  /** An error at one item does not matter where another decides. */
  #quantify(
    node: Extract<Node, { kind: "macro" }>,
    items: Iterable<Value>,
    local: { value: Value },
  ): boolean {
    const decisive = node.macro === "exists";
    let failure: EvaluationError | undefined;
    for (const item of items) {
      this.#budget.spend(1);
      local.value = item;
      try {
        if (node.test !== undefined && this.#boolean(node.test, `the test of ${node.macro}`) === decisive) {
          return decisive;
        }
      } catch (error) {
        const absorbed = this.#absorbed(error);
        failure ??= absorbed;
      }
    }
    if (failure !== undefined) throw failure;
    return !decisive;
  }

  /** The error as one that another operand may make irrelevant. Throws any other. */
  #absorbed(error: unknown): EvaluationError {
    if (!(error instanceof EvaluationError)) throw error;
    this.#budget.spend(ERROR_COST);
    return error;
  }
}

function missing(operand: Node, value: Value, key: Key, offset: number): EvaluationError {
  const name = typeof key === "string" ? `"${key}"` : String(key);
  if (value === null) {
    return new EvaluationError(
      `${describe(operand)} is null, and has no field ${name}; ask with has(…) or == null first`,
      offset,
    );
  }
  if (!(value instanceof Dict)) {
    return new EvaluationError(
      `${describe(operand)} is ${wordType(value)}, and has no field ${name}`,
      offset,
    );
  }
  const keys = Array.from(value.keys(), String);
  const shown = keys.slice(0, 12).join(", ");
  const has =
    keys.length === 0
      ? "it is empty"
      : `it has ${shown}${keys.length > 12 ? ` and ${keys.length - 12} more` : ""}`;
  return new EvaluationError(
    `${describe(operand)} has no field ${name}${didYouMean(String(key), keys)}: ${has}; what is 0, false or empty may be left out, so ask with has(…) first`,
    offset,
  );
}

/** A path such as `steps.a.output.list[0]`, as far as it is one. */
export function describe(node: Node): string {
  switch (node.kind) {
    case "variable":
      return node.name;
    case "step":
      return `steps.${node.id}`;
    case "select":
      return `${describe(node.operand)}.${node.field}`;
    case "index": {
      const { index } = node;
      const key =
        index.kind === "constant" && typeof index.value !== "object"
          ? JSON.stringify(index.value, exact)
          : "…";
      return `${describe(node.operand)}[${key}]`;
    }
    default:
      return "the value";
  }
}

function exact(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value;
}
