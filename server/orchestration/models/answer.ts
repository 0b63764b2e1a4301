import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isObject } from "../../schema/json.ts";
import { parseBounded } from "./answer-json.ts";
import type { ModelMessage, TokenUsage, Turn, TurnOptions, WantedCall } from "./model.ts";
import type { WirePart } from "./protocols.ts";
import { MAX_DEPTH } from "./tool-results.ts";

/** What a stream of parts has come to so far. */
export interface AnswerCollector {
  /** Takes all parts but errors. */
  take(part: WirePart): void;
  /**
   * The turn; undefined when the answer is not whole, however orderly it has ended.
   *
   * @param sent how many characters were sent, to estimate tokens from where the provider does not count them
   */
  finish(sent: number): Turn | undefined;
}

type AssistantPart = Exclude<Extract<ModelMessage, { role: "assistant" }>["content"], string>[number];
type ProviderOptions = NonNullable<ModelMessage["providerOptions"]>;
type FinishPart = Extract<WirePart, { type: "finish" }>;

/** Text, or thoughts, while they are written. */
interface OpenPart {
  readonly type: "text" | "reasoning";
  readonly pieces: string[];
  options: ProviderOptions;
}

interface CallPart extends WantedCall {
  readonly type: "call";
  readonly options: ProviderOptions;
}

/** How many characters a token has, roughly, in the languages that people write most. */
const CHARACTERS_PER_TOKEN = 4;
/** Of arguments: a turn is recorded with all its messages, in which they are some levels further down. */
const MAX_ARGUMENT_DEPTH = MAX_DEPTH - 8;

export function createAnswerCollector(onDelta: TurnOptions["onDelta"]): AnswerCollector {
  const parts: (OpenPart | CallPart)[] = [];
  const open = new Map<string, OpenPart>();
  const ids = new Set<string>();
  let end: FinishPart | undefined;

  function begin(type: OpenPart["type"], id: string): OpenPart {
    const part: OpenPart = { type, pieces: [], options: {} };
    parts.push(part);
    open.set(`${type} ${id}`, part);
    return part;
  }

  function write(type: OpenPart["type"], id: string, delta: string, metadata?: ProviderOptions): void {
    const part = open.get(`${type} ${id}`) ?? begin(type, id);
    part.options = merge(part.options, metadata);
    if (delta !== "") {
      part.pieces.push(delta);
      onDelta(type === "text" ? { text: delta, reasoning: "" } : { text: "", reasoning: delta });
    }
  }

  /** Some servers give every call the same id; then results could not be told apart. */
  function uniqueId(id: string): string {
    let unique = id;
    for (let count = 2; ids.has(unique); count++) {
      unique = `${id}_${count}`;
    }
    ids.add(unique);
    return unique;
  }

  return {
    take(part) {
      switch (part.type) {
        case "text-start":
          begin("text", part.id);
          return;
        case "text-delta":
          write("text", part.id, part.delta);
          return;
        case "reasoning-start":
          begin("reasoning", part.id);
          write("reasoning", part.id, "", part.providerMetadata);
          return;
        case "reasoning-delta":
          write("reasoning", part.id, part.delta, part.providerMetadata);
          return;
        case "reasoning-end":
          write("reasoning", part.id, "", part.providerMetadata);
          return;
        case "tool-call":
          parts.push({
            type: "call",
            id: uniqueId(part.toolCallId),
            name: part.toolName,
            arguments: readArguments(part.input),
            text: part.input,
            options: merge({}, part.providerMetadata),
          });
          return;
        case "finish":
          end = part;
          return;
        default:
          // Beginnings and ends of what is told whole elsewhere, and what only other features use.
          return;
      }
    },
    finish(sent) {
      const calls = parts.filter((part) => part.type === "call");
      const finish = end && finishOf(end.finishReason, calls.length > 0);
      if (!end || !finish) {
        return undefined;
      }
      const texts = parts.map((part) => (part.type === "call" ? part.text : part.pieces.join("")));
      const written = texts.reduce((sum, text) => sum + text.length, 0);
      return {
        text: parts.map((part, index) => (part.type === "text" ? texts[index] : "")).join(""),
        calls: calls.map(({ id, name, arguments: given, text }) => ({ id, name, arguments: given, text })),
        finish,
        usage: toUsage(end.usage, sent, written),
        messages: toMessages(parts),
      };
    },
  };
}

function finishOf(
  { unified, raw }: FinishPart["finishReason"],
  hasCalls: boolean,
): Turn["finish"] | undefined {
  switch (unified) {
    case "error":
    case "interrupted":
      return undefined;
    case "length":
    case "content-filter":
      return unified;
    case "tool-calls":
      return hasCalls ? unified : "other";
    case "stop":
      return hasCalls ? "tool-calls" : unified;
    case "other":
      // What has ended says why, if only in words that nobody knows.
      return raw === undefined ? undefined : hasCalls ? "tool-calls" : unified;
  }
}

/** A call without any text is one without arguments. Undefined: no JSON, or none that could be recorded and sent on. */
function readArguments(text: string): JsonValue | undefined {
  return text.trim() === "" ? {} : parseBounded(text, MAX_ARGUMENT_DEPTH);
}

/** What a provider wants to have back with a part, such as the signature of thoughts. */
function merge(options: ProviderOptions, metadata: ProviderOptions = {}): ProviderOptions {
  const merged = { ...options };
  for (const [namespace, values] of Object.entries(metadata)) {
    const plain = JSON.parse(JSON.stringify(values)) as typeof values;
    if (Object.keys(plain).length > 0) {
      merged[namespace] = { ...merged[namespace], ...plain };
    }
  }
  return merged;
}

function toMessages(parts: readonly (OpenPart | CallPart)[]): ModelMessage[] {
  const content = parts.flatMap((part): AssistantPart[] => {
    const options = Object.keys(part.options).length > 0 ? { providerOptions: part.options } : {};
    if (part.type === "call") {
      return [
        {
          type: "tool-call",
          toolCallId: part.id,
          toolName: sendableName(part.name),
          input: sendableInput(part),
          ...options,
        },
      ];
    }
    const text = part.pieces.join("");
    // Providers refuse to be sent texts of nothing; thoughts may be nothing but their signature.
    return part.type === "text" && text.trim() === "" ? [] : [{ type: part.type, text, ...options }];
  });
  const hasAnything = content.some(({ type }) => type !== "reasoning");
  return hasAnything ? [{ role: "assistant", content }] : [];
}

/**
 * Names that a model made up may have characters that its own provider does not take back, or be those of members that all
 * objects have, which the libraries then find in their own tables of names.
 */
function sendableName(name: string): string {
  const fit = name.replaceAll(/[^a-zA-Z0-9_-]/g, "_").slice(0, 64);
  return fit === "" || fit in Object.prototype ? `_${fit}` : fit;
}

/** Providers take nothing but objects back. What was none is shown as Anthropic advises. */
function sendableInput({ arguments: given, text }: WantedCall): JsonObject {
  return isObject(given) ? given : { INVALID_JSON: text };
}

/** Where a provider counts nothing, or none of what there was, tokens are estimated from characters. */
function toUsage(
  { inputTokens, outputTokens }: FinishPart["usage"],
  sent: number,
  written: number,
): TokenUsage {
  const input = inputTokens.total || Math.ceil(sent / CHARACTERS_PER_TOKEN);
  return {
    inputTokens: input,
    cachedInputTokens: Math.min(inputTokens.cacheRead ?? 0, input),
    outputTokens: outputTokens.total || Math.ceil(written / CHARACTERS_PER_TOKEN),
  };
}
