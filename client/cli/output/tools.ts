import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Terminal } from "../terminal.ts";
import { type Cell, renderColumns } from "./columns.ts";
import { firstSentence } from "./format.ts";
import { streamingName } from "./states.ts";

/** Tools, one a line. */
export function renderTools(terminal: Terminal, tools: readonly Tool[]): string {
  const { paint } = terminal;
  return renderColumns(
    [
      { title: "TOOL", minWidth: 24 },
      { title: "CALL" },
      { title: "WHAT IT DOES", minWidth: 24 },
      { title: "TAGS", minWidth: 6, optional: true },
    ],
    tools.map((tool) => [
      { text: tool.alias || tool.name, style: tool.problem === undefined ? paint.bold : paint.dim },
      streamingName(tool.streaming),
      whatItDoes(terminal, tool),
      { text: tool.tags.join(", "), style: paint.dim },
    ]),
    terminal.columns(),
  );
}

function whatItDoes({ paint }: Terminal, tool: Tool): Cell {
  if (tool.problem !== undefined)
    return { text: `cannot be called: ${tool.problem.message}`, style: paint.yellow };
  const text = firstSentence(tool.description) || tool.title;
  return tool.deprecated ? { text: `deprecated: ${text}`, style: paint.dim } : text;
}
