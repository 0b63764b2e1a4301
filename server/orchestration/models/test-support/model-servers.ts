export { startAnthropicServer } from "./anthropic-server.ts";
export { startOpenAiServer } from "./openai-server.ts";
export * from "./script.ts";
export type { ModelServerOptions } from "./streaming-server.ts";
