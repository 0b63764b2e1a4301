import type { JsonValue } from "@bufbuild/protobuf";

/** What expressions see. JSON values; what is not there is left out. */
export interface Scope {
  readonly input: JsonValue;
  /** Steps that have ended, by id. */
  readonly steps: Readonly<Record<string, StepScope>>;
  readonly run: { readonly id: string; readonly attempt: number; readonly start_time: string };
  /** Within a fan-out. */
  readonly item?: JsonValue;
  /** Within a fan-out, from 0. */
  readonly index?: number;
  /** Within a fallback. */
  readonly error?: { readonly code: string; readonly message: string };
}

/** A step that has ended, as expressions see it. */
export interface StepScope {
  /** Null unless it succeeded. */
  readonly output: JsonValue;
  /** `succeeded`, `failed`, `skipped` or `cancelled`. */
  readonly state: string;
  /** Null unless it failed. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** What a text asks of its surroundings, found out without evaluating it. */
export interface References {
  /** Ids of steps that it names, each once. */
  readonly steps: readonly string[];
  /** Which of `input`, `item`, `index`, `error`, `run` it names. */
  readonly variables: ReadonlySet<string>;
}

/** One expression in the Common Expression Language, parsed. */
export interface Expression {
  /** As it was written, without `${` and `}`. */
  readonly source: string;
  readonly references: References;
  /** Throws an `ExpressionError`. */
  evaluate(scope: Scope): JsonValue;
}

/** JSON whose texts may hold `${ … }`, parsed. */
export interface Template {
  readonly references: References;
  /** True when it has no expressions. */
  readonly isConstant: boolean;
  /** Throws an `ExpressionError`. */
  evaluate(scope: Scope): JsonValue;
}

/** An expression could not be parsed, or not evaluated. */
export class ExpressionError extends Error {
  override readonly name = "ExpressionError";
  /** Where in the template, such as `arguments.city`; empty: the whole. */
  readonly path: string;
  /** As it was written. */
  readonly source: string;
  /** Where in the source it is wrong, from 0; undefined: not known, or wrong as a whole. */
  readonly offset: number | undefined;

  constructor(message: string, place: { path: string; source: string; offset?: number | undefined }) {
    super(message);
    this.path = place.path;
    this.source = place.source;
    this.offset = place.offset;
  }
}
