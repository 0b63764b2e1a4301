import type { ModelMessage, TurnRequest } from "./model.ts";
import type { WireMessage, WireRequest } from "./protocols.ts";

/** Marks what stands before it for Anthropic's prompt cache; other protocols need no marks and take no notice. */
const CACHED = { anthropic: { cacheControl: { type: "ephemeral" } } };

/**
 * A turn as the libraries take it. Anthropic is asked to cache the tools and the system prompt, which stay the same over
 * all turns; all up to the last message, which the next turn begins with; and all up to what the last turn ended with, so
 * that it is found again however many calls the model has made since. That is three of the four marks that it allows.
 */
export function toWireRequest(request: TurnRequest): WireRequest {
  const { system, messages, tools, maxOutputTokens, toolChoice = "auto" } = request;
  const last = messages.length - 1;
  const answered = messages.findLastIndex(({ role }) => role === "assistant");
  const marked = new Set([last, answered - 1]);
  return {
    prompt: [
      ...(system === "" ? [] : [{ role: "system" as const, content: system, providerOptions: CACHED }]),
      ...messages.map((message, index) => toWireMessage(message, marked.has(index))),
    ],
    ...(tools.length === 0
      ? {}
      : {
          tools: tools.map(({ name, description, inputSchema }, index) => ({
            type: "function" as const,
            name,
            description,
            // Checked where tools are offered: the schema of an object.
            inputSchema: inputSchema as WireTool["inputSchema"],
            ...(system === "" && index === tools.length - 1 ? { providerOptions: CACHED } : {}),
          })),
          toolChoice: { type: toolChoice },
        }),
    maxOutputTokens,
    // Anthropic then checks arguments to be JSON before it sends them.
    providerOptions: { anthropic: { toolStreaming: false } },
  };
}

type WireTool = Extract<NonNullable<WireRequest["tools"]>[number], { type: "function" }>;

function toWireMessage(message: ModelMessage, isMarked: boolean): WireMessage {
  const options = { ...message.providerOptions, ...(isMarked ? CACHED : {}) };
  return { ...withContent(message), providerOptions: options };
}

function withContent(message: ModelMessage): WireMessage {
  switch (message.role) {
    case "system":
      return { role: "system", content: message.content };
    case "user":
      return { role: "user", content: texts(message.content) };
    case "assistant":
      return typeof message.content === "string"
        ? { role: "assistant", content: texts(message.content) }
        : {
            role: "assistant",
            content: message.content.map((part) => {
              switch (part.type) {
                case "text":
                case "reasoning":
                case "tool-call":
                  return part;
                default:
                  throw unsupported(part.type);
              }
            }),
          };
    case "tool":
      return {
        role: "tool",
        content: message.content.map((part) => {
          if (part.type !== "tool-result" || part.output.type === "content") {
            throw unsupported(part.type);
          }
          return { ...part, output: part.output };
        }),
      };
  }
}

interface TextPart {
  readonly type: "text";
  readonly text: string;
}

function texts(
  content: string | readonly (TextPart | { readonly type: string })[],
): { type: "text"; text: string }[] {
  if (typeof content === "string") {
    return [{ type: "text", text: content }];
  }
  return content.map((part) => {
    if (!("text" in part)) {
      throw unsupported(part.type);
    }
    return { type: "text", text: part.text };
  });
}

/** Nothing here makes such parts. */
function unsupported(type: string): Error {
  return new Error(
    `messages of models hold text and calls of tools only, but this one has a part of type ${type}`,
  );
}
