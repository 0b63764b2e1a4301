export { argumentsSchema, parseArguments } from "./arguments.ts";
export { leadingComment } from "./comments.ts";
export { diffTools, type ToolSchemas } from "./diff.ts";
export { createJsonSchemaCheck, type JsonSchemaCheck } from "./json-schema-check.ts";
export { type ParseMessageOptions, parseMessageJson } from "./message-json.ts";
export { type MessageSchemaOptions, messageSchema } from "./message-schema.ts";
export { type Provider, toProfile } from "./profile.ts";
export { createNameMap, type NameMap, providerName } from "./provider-name.ts";
export type { RuleWarning } from "./validate-rules.ts";
