import type { JsonValue } from "@bufbuild/protobuf";
import { Budget, BudgetError } from "./budget.ts";
import { EvaluationError, evaluate } from "./evaluate.ts";
import {
  type Expression,
  ExpressionError,
  type References,
  type Scope,
  type Template,
} from "./expression.ts";
import { ScanError, split } from "./scan.ts";
import { type Node, type ParsedSource, parseSource } from "./syntax.ts";
import { ResultError, ResultSize, toResult } from "./values.ts";

/** How deep the JSON of a template may nest. */
const MAX_TEMPLATE_DEPTH = 200;

/** A template as a tree. `path`: where it is in the template, such as `list[0].name`. */
export type TemplateTree = { readonly path: string } & (
  | { readonly kind: "constant"; readonly value: JsonValue }
  | { readonly kind: "expression"; readonly expression: PlacedExpression }
  | { readonly kind: "text"; readonly pieces: readonly (string | PlacedExpression)[] }
  | { readonly kind: "list"; readonly items: readonly TemplateTree[] }
  | { readonly kind: "object"; readonly fields: readonly (readonly [string, TemplateTree])[] }
);

/** An expression within a text. */
export interface PlacedExpression extends ParsedSource {
  readonly source: string;
  /** Where the source begins in the text that it is in. */
  readonly offset: number;
}

/**
 * Parses JSON whose texts may hold `${ … }`. Throws an `ExpressionError`, whose offset counts from the beginning of the
 * text that the expression is in. Keys of objects are taken as they are.
 */
export function parseTemplate(json: JsonValue): Template {
  return compileTemplate(parseTree(json));
}

/** A template that gives back just this, whatever its texts look like. */
export function constantTemplate(json: JsonValue): Template {
  return compileTemplate({ kind: "constant", path: "", value: json });
}

/** Parses one expression, within `${ … }` or not. Throws an `ExpressionError`. */
export function parseExpression(text: string): Expression {
  return compileExpression(parsePlacedExpression(text));
}

/** Like `parseTemplate`, for those who look into it. */
export function parseTree(json: JsonValue, path = "", depth = 0): TemplateTree {
  if (depth > MAX_TEMPLATE_DEPTH) {
    throw new ExpressionError(`nests deeper than ${MAX_TEMPLATE_DEPTH} levels`, { path, source: "" });
  }
  if (typeof json === "string") return parseText(json, path);
  if (typeof json !== "object" || json === null) return { kind: "constant", path, value: json };
  if (Array.isArray(json)) {
    const items = json.map((item, index) => parseTree(item, `${path}[${index}]`, depth + 1));
    if (items.every((item) => item.kind === "constant")) {
      return { kind: "constant", path, value: items.map((item) => item.value) };
    }
    return { kind: "list", path, items };
  }
  const fields = Object.entries(json).map(
    ([key, value]) => [key, parseTree(value, fieldPath(path, key), depth + 1)] as const,
  );
  const constants = fields.flatMap(([key, tree]) =>
    tree.kind === "constant" ? [[key, tree.value] as const] : [],
  );
  return constants.length === fields.length
    ? { kind: "constant", path, value: Object.fromEntries(constants) }
    : { kind: "object", path, fields };
}

/** Like `parseExpression`, for those who look into it. */
export function parsePlacedExpression(text: string): PlacedExpression {
  const place = { path: "", source: text };
  if (!text.trimStart().startsWith("${")) return parseAt({ source: text, offset: 0 }, place);
  const [piece, ...others] = pieces(text.trim(), place);
  if (piece?.kind !== "expression" || others.length > 0) {
    throw new ExpressionError(`must be one expression: write \${a && b} rather than \${a} && \${b}`, place);
  }
  return parseAt(
    { source: piece.source, offset: piece.offset + text.length - text.trimStart().length },
    place,
  );
}

/** The path of a field, as expressions and messages write it. */
export function fieldPath(path: string, key: string): string {
  if (!/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path === "" ? key : `${path}.${key}`;
}

/** All expressions in a tree. */
export function* expressionsIn(tree: TemplateTree): Generator<PlacedExpression> {
  switch (tree.kind) {
    case "constant":
      return;
    case "expression":
      yield tree.expression;
      return;
    case "text":
      for (const piece of tree.pieces) if (typeof piece !== "string") yield piece;
      return;
    case "list":
      for (const item of tree.items) yield* expressionsIn(item);
      return;
    case "object":
      for (const [, field] of tree.fields) yield* expressionsIn(field);
      return;
  }
}

function parseText(text: string, path: string): TemplateTree {
  const place = { path, source: text };
  const parsed = pieces(text, place).map((piece) =>
    piece.kind === "text" ? piece.text : parseAt(piece, place),
  );
  const [first, ...others] = parsed;
  if (first === undefined || others.length > 0) return { kind: "text", path, pieces: parsed };
  return typeof first === "string"
    ? { kind: "constant", path, value: first }
    : { kind: "expression", path, expression: first };
}

interface Place {
  readonly path: string;
  readonly source: string;
}

function pieces(text: string, place: Place): ReturnType<typeof split> {
  try {
    return split(text);
  } catch (error) {
    throw fromScan(error, place, 0);
  }
}

function parseAt(piece: { source: string; offset: number }, place: Place): PlacedExpression {
  try {
    return { source: piece.source, offset: piece.offset, ...parseSource(piece.source) };
  } catch (error) {
    throw fromScan(error, place, piece.offset);
  }
}

function fromScan(error: unknown, place: Place, offset: number): unknown {
  return error instanceof ScanError
    ? new ExpressionError(error.message, { ...place, offset: offset + error.offset })
    : error;
}

function compileExpression(expression: PlacedExpression): Expression {
  const { source, references } = expression;
  return {
    source,
    references,
    evaluate: (scope) => result(expression, "", scope, new Budget(), new ResultSize()),
  };
}

function compileTemplate(tree: TemplateTree): Template {
  return {
    references: referencesOf(tree),
    isConstant: tree.kind === "constant",
    evaluate: (scope) => render(tree, scope, new Budget(), new ResultSize()),
  };
}

function referencesOf(tree: TemplateTree): References {
  const steps = new Set<string>();
  const variables = new Set<string>();
  for (const { references } of expressionsIn(tree)) {
    for (const step of references.steps) steps.add(step);
    for (const variable of references.variables) variables.add(variable);
  }
  return { steps: [...steps], variables };
}

function render(tree: TemplateTree, scope: Scope, budget: Budget, size: ResultSize): JsonValue {
  switch (tree.kind) {
    case "constant":
      return structuredClone(tree.value);
    case "expression":
      return result(tree.expression, tree.path, scope, budget, size);
    case "text":
      return tree.pieces
        .map((piece) =>
          typeof piece === "string" ? piece : asText(result(piece, tree.path, scope, budget, size)),
        )
        .join("");
    case "list":
      return tree.items.map((item) => render(item, scope, budget, size));
    case "object":
      return Object.fromEntries(tree.fields.map(([key, field]) => [key, render(field, scope, budget, size)]));
  }
}

/** A value within a text: texts as they are, null as nothing, all else as JSON. */
function asText(value: JsonValue): string {
  if (value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function result(
  { source, node, offset }: { source: string; node: Node; offset: number },
  path: string,
  scope: Scope,
  budget: Budget,
  size: ResultSize,
): JsonValue {
  try {
    return toResult(evaluate(node, scope, budget), size);
  } catch (error) {
    if (error instanceof EvaluationError) {
      throw new ExpressionError(error.message, { path, source, offset: offset + error.offset });
    }
    if (error instanceof BudgetError || error instanceof ResultError) {
      throw new ExpressionError(error.message, { path, source });
    }
    throw error;
  }
}
