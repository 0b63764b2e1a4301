import {
  type DescField,
  type DescMessage,
  type DescOneof,
  getOption,
  hasOption,
  isFieldSet,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import {
  type FieldRules,
  FieldRulesSchema,
  field as fieldOption,
  Ignore,
  type MessageRules,
  message as messageOption,
  oneof as oneofOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** The kinds of rules that a value can have, as `buf.validate.FieldRules.type` names them. */
export type RuleKind = NonNullable<FieldRules["type"]["case"]>;

/** The rules for values of one type. Only what is set in the `.proto` file is there. */
export interface RuleSet {
  /** A singular rule. */
  value(name: string): unknown;
  /** A length or count. */
  size(name: string): number | undefined;
  list(name: string): readonly unknown[];
  /** The format that strings or bytes must have, such as `email`. */
  readonly wellKnown: string | undefined;
}

export interface Bound {
  readonly value: number | bigint;
  readonly exclusive: boolean;
}

/** The rules of every number type in one form. */
export interface NumericRules {
  readonly const: number | bigint | undefined;
  readonly low: Bound | undefined;
  readonly high: Bound | undefined;
  readonly in: readonly (number | bigint)[];
  readonly notIn: readonly (number | bigint)[];
  /** Neither NaN nor infinite. */
  readonly finite: boolean;
}

/**
 * The protovalidate rules of a field; undefined without any. Descriptors that came over reflection hold the option as an
 * unknown field, which is read by the extension's number; an option of another meaning that happens to have the same
 * number is passed over. Members of a choice that the message's rules make are exempt while they are zero.
 */
export function fieldRules(field: DescField, ofMessage: MessageRules | undefined): FieldRules | undefined {
  const rules = read(() => (hasOption(field, fieldOption) ? getOption(field, fieldOption) : undefined));
  if (rules === undefined || rules.ignore === Ignore.ALWAYS) {
    return undefined;
  }
  const isChoice = ofMessage?.oneof.some(({ fields }) => fields.includes(field.name)) === true;
  return isChoice && rules.ignore === Ignore.UNSPECIFIED ? { ...rules, ignore: Ignore.IF_ZERO_VALUE } : rules;
}

export function messageRules(message: DescMessage): MessageRules | undefined {
  return read(() => (hasOption(message, messageOption) ? getOption(message, messageOption) : undefined));
}

/** Whether one member of the oneof has to be set. */
export function isRequiredOneof(oneof: DescOneof): boolean {
  return read(() => hasOption(oneof, oneofOption) && getOption(oneof, oneofOption).required) ?? false;
}

function read<T>(get: () => T): T | undefined {
  try {
    return get();
  } catch {
    // Not the option that has this number in protovalidate.
    return undefined;
  }
}

/** The rules for one type of value; undefined when there are none or they are for another type. */
export function valueRules(rules: FieldRules | undefined, kind: RuleKind): RuleSet | undefined {
  if (rules?.type.case !== kind) {
    return undefined;
  }
  const message: Message = rules.type.value;
  const desc = FieldRulesSchema.fields.find(({ localName }) => localName === kind)?.message;
  if (desc === undefined) {
    return undefined;
  }
  const get = (name: string): unknown => {
    const field = desc.field[name];
    if (field === undefined || !isFieldSet(message, field)) {
      return undefined;
    }
    // Generated messages keep the members of a oneof under the oneof's name, all others under their own.
    const holder = message as unknown as Readonly<Record<string, unknown>>;
    const member = field.oneof === undefined ? undefined : holder[field.oneof.localName];
    return member === undefined ? holder[name] : (member as { readonly value: unknown }).value;
  };
  const wellKnown = desc.oneofs.find(({ localName }) => localName === "wellKnown");
  return {
    value: get,
    size: (name) => {
      const value = get(name);
      return value === undefined ? undefined : Number(value);
    },
    list: (name) => {
      const value = get(name);
      return Array.isArray(value) ? value : [];
    },
    wellKnown: wellKnown?.fields.find((field) => {
      const value = get(field.localName);
      return value !== undefined && value !== false && value !== 0;
    })?.localName,
  };
}

const numericKinds: { readonly [scalar in ScalarType]?: RuleKind } = {
  [ScalarType.FLOAT]: "float",
  [ScalarType.DOUBLE]: "double",
  [ScalarType.INT32]: "int32",
  [ScalarType.SINT32]: "sint32",
  [ScalarType.SFIXED32]: "sfixed32",
  [ScalarType.UINT32]: "uint32",
  [ScalarType.FIXED32]: "fixed32",
  [ScalarType.INT64]: "int64",
  [ScalarType.SINT64]: "sint64",
  [ScalarType.SFIXED64]: "sfixed64",
  [ScalarType.UINT64]: "uint64",
  [ScalarType.FIXED64]: "fixed64",
};

export function numericRules(rules: FieldRules | undefined, scalar: ScalarType): NumericRules | undefined {
  const kind = numericKinds[scalar];
  const set = kind === undefined ? undefined : valueRules(rules, kind);
  if (set === undefined) {
    return undefined;
  }
  return {
    const: number(set.value("const")),
    low: bound(set, "gt", "gte"),
    high: bound(set, "lt", "lte"),
    in: set.list("in").filter(isNumber),
    notIn: set.list("notIn").filter(isNumber),
    finite: set.value("finite") === true,
  };
}

/** The values that `const` and `in` leave; undefined when neither is set. */
export function choicesOf({
  const: constant,
  in: choices,
}: NumericRules): readonly (number | bigint)[] | undefined {
  if (constant === undefined) {
    return choices.length > 0 ? choices : undefined;
  }
  return choices.length === 0 || choices.includes(constant) ? [constant] : [];
}

function bound(set: RuleSet, exclusive: string, inclusive: string): Bound | undefined {
  const beyond = number(set.value(exclusive));
  const at = number(set.value(inclusive));
  if (beyond !== undefined) {
    return { value: beyond, exclusive: true };
  }
  return at === undefined ? undefined : { value: at, exclusive: false };
}

function number(value: unknown): number | bigint | undefined {
  return isNumber(value) ? value : undefined;
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

/** Rules written in CEL, in the words of their author where there are any. */
export function celNotes(
  rules: Pick<FieldRules | MessageRules, "cel" | "celExpression"> | undefined,
): string[] {
  return [
    ...(rules?.cel ?? []).map(
      ({ message, expression, id }) => message || `Rule ${id || "(CEL)"}: ${expression}`,
    ),
    ...(rules?.celExpression ?? []).map((expression) => `Rule (CEL): ${expression}`),
  ].map((note) => (/[.!?]$/.test(note) ? note : `${note}.`));
}
