import type { JsonValue } from "@bufbuild/protobuf";
import { invalidArgument } from "@toolplane/framework";
import type {
  Model,
  ModelGateway,
  ModelMessage,
  Turn,
  TurnOptions,
  TurnRequest,
  WantedCall,
} from "../model.ts";

/** What a model does with a turn. `number` counts the turns that it was asked for, from 1. */
export type TurnScript = (
  request: TurnRequest,
  number: number,
  options: TurnOptions,
) => Partial<Turn> | Promise<Partial<Turn>>;

/** A gateway to a model that does what its script says, for tests of what is done with its turns. */
export interface ScriptedGateway extends ModelGateway {
  readonly requests: readonly TurnRequest[];
}

export const testModel: Model = {
  name: "test/model",
  provider: "test",
  protocol: "anthropic",
  model: "model",
  inputPrice: 1,
  cachedInputPrice: 0.1,
  outputPrice: 10,
  maxOutputTokens: 8192,
};

export function scriptedGateway(script: TurnScript, model: Model = testModel): ScriptedGateway {
  const requests: TurnRequest[] = [];
  return {
    requests,
    find(name) {
      if (name !== "" && name !== model.name) {
        throw invalidArgument([{ field: "model", description: `there is only ${model.name}` }]);
      }
      return model;
    },
    async turn(request, options) {
      options.signal.throwIfAborted();
      // As it is sent: what is changed later does not count.
      requests.push(structuredClone(request));
      const answer = await script(request, requests.length, options);
      options.signal.throwIfAborted();
      const { text = "", calls = [] } = answer;
      return {
        text,
        calls,
        finish: calls.length > 0 ? "tool-calls" : "stop",
        usage: { inputTokens: 100, cachedInputTokens: 20, outputTokens: 10 },
        messages: [assistant(text, calls)],
        ...answer,
      };
    },
    costUsd: ({ inputPrice, outputPrice }, { inputTokens, outputTokens }) =>
      inputPrice === undefined || outputPrice === undefined
        ? undefined
        : (inputTokens * inputPrice + outputTokens * outputPrice) / 1e6,
    close: async () => {},
  };
}

let calls = 0;

/** A call of a tool by the name that it is offered under. */
export function wants(name: string, given: JsonValue): WantedCall {
  return { id: `call_${++calls}`, name, arguments: given, text: JSON.stringify(given) };
}

function assistant(text: string, wanted: readonly WantedCall[]): ModelMessage {
  return {
    role: "assistant",
    content: [
      ...(text === "" ? [] : [{ type: "text" as const, text }]),
      ...wanted.map((call) => ({
        type: "tool-call" as const,
        toolCallId: call.id,
        toolName: call.name,
        input: call.arguments ?? {},
      })),
    ],
  };
}

/** What the model was sent back for its last calls, parsed. */
export function resultsIn(
  request: TurnRequest | undefined,
): { tool: string; isError: boolean; body: JsonValue }[] {
  const last = request?.messages.findLast(({ role }) => role === "tool");
  return last?.role === "tool"
    ? last.content.flatMap((part) => {
        if (
          part.type !== "tool-result" ||
          (part.output.type !== "text" && part.output.type !== "error-text")
        ) {
          return [];
        }
        const body: JsonValue = JSON.parse(part.output.value);
        return [{ tool: part.toolName, isError: part.output.type === "error-text", body }];
      })
    : [];
}
