import type { JsonObject } from "@bufbuild/protobuf";

/** A tool as far as a check of a workflow needs it. */
export interface KnownTool {
  /** Undefined: any arguments, or any result. */
  readonly inputSchema: JsonObject | undefined;
  readonly outputSchema: JsonObject | undefined;
  /** True: its result is the list of what it sends. */
  readonly streams: boolean;
  /** True: its arguments are read as Protobuf JSON. */
  readonly isProtobuf: boolean;
}

/** Why something cannot be found, and what there is instead. */
export interface Unknown {
  readonly unknown: string;
}

/** Finds a tool. Empty environment and version stand for the default ones. */
export type ToolLookup = (name: string, environment: string, version: string) => KnownTool | Unknown;

/** Whether a name of tools, in which `*` stands for any characters, matches any that there is now. */
export type ToolPatternLookup = (pattern: string, environment: string) => boolean;

/** Whether there is an agent; version 0 is the newest. Undefined: there is. */
export type AgentLookup = (name: string, version: number) => Unknown | undefined;

/** Finds a workflow; version 0 is the newest. */
export type WorkflowLookup = (
  name: string,
  version: number,
) => { readonly inputSchema: JsonObject | undefined } | Unknown;

/** What is wrong with a schedule. Undefined: nothing. */
export type ScheduleCheck = (schedule: {
  readonly cron: string;
  readonly timeZone: string;
}) => string | undefined;
