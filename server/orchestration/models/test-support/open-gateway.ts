import { type Clock, systemClock } from "@toolplane/framework";
import { pino } from "pino";
import { onTestFinished } from "vitest";
import { loadText } from "../../../config/test-support/load-text.ts";
import { createModelGateway } from "../gateway.ts";
import type { Model, ModelGateway, ModelMessage, OfferedTool, Turn, TurnRequest } from "../model.ts";
import { type ModelServer, type Script, startAnthropicServer, startOpenAiServer } from "./model-servers.ts";

export const PROTOCOLS = ["anthropic", "openai"] as const;

export const API_KEY = "secret.0123456789abcdef";

export const WEATHER: OfferedTool = {
  name: "weather",
  description: "Tells the weather.",
  inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

export interface OpenGateway {
  readonly gateway: ModelGateway;
  readonly server: ModelServer;
  readonly model: Model;
  /** The variables that keys are read from. */
  readonly env: NodeJS.ProcessEnv;
  /** Lines of the log. */
  readonly log: readonly string[];
  /** What the model has written in the last turn, as it wrote it. */
  readonly deltas: { text: string; reasoning: string }[];
  turn(request?: Partial<TurnRequest>, signal?: AbortSignal): Promise<Turn>;
}

export interface OpenGatewayOptions {
  readonly clock?: Clock;
  /** Of the provider, in YAML. */
  readonly provider?: string;
  /** Unset: it wants one. */
  readonly wantsKey?: boolean;
}

/** A gateway with one provider that does what the script says; both are closed when the test ends. */
export async function openGateway(
  protocol: (typeof PROTOCOLS)[number],
  script: Script,
  { clock = systemClock, provider = "", wantsKey = true }: OpenGatewayOptions = {},
): Promise<OpenGateway> {
  const start = protocol === "anthropic" ? startAnthropicServer : startOpenAiServer;
  const server = await start(script, wantsKey ? { apiKey: API_KEY } : {});
  onTestFinished(() => server.close());
  const env: NodeJS.ProcessEnv = { TEST_KEY: API_KEY };
  const { orchestration } = loadText(
    `orchestration: { providers: [{ name: test, protocol: ${protocol}, base_url: "${server.url}", ${wantsKey ? "api_key: { env: TEST_KEY }," : ""} ${provider} }] }`,
  );
  const log: string[] = [];
  const gateway = createModelGateway({
    settings: orchestration,
    env,
    clock,
    logger: pino({}, { write: (line: string) => log.push(line) }),
  });
  onTestFinished(() => gateway.close());
  const model = gateway.find("test/some-model");
  const deltas: { text: string; reasoning: string }[] = [];
  return {
    gateway,
    server,
    model,
    env,
    log,
    deltas,
    turn(request = {}, signal = new AbortController().signal) {
      deltas.length = 0;
      const whole: TurnRequest = {
        model,
        system: "Be brief.",
        messages: [{ role: "user", content: "What is the weather?" }],
        tools: [WEATHER],
        maxOutputTokens: 1_000,
        ...request,
      };
      return gateway.turn(whole, { signal, onDelta: (delta) => deltas.push(delta) });
    },
  };
}

/** Results of calls, as they are sent back. */
export function resultsOf(turn: Turn, value: string): ModelMessage {
  return {
    role: "tool",
    content: turn.calls.map(({ id, name }) => ({
      type: "tool-result",
      toolCallId: id,
      toolName: name,
      output: { type: "text", value },
    })),
  };
}
