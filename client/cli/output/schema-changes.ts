import { type SchemaChange, SchemaChangeKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Terminal } from "../terminal.ts";
import { renderColumns } from "./columns.ts";

/** How the tools of a service differ from before. */
export function renderChanges(terminal: Terminal, changes: readonly SchemaChange[]): string {
  const { paint } = terminal;
  return renderColumns(
    [
      { title: "CHANGE" },
      { title: "TOOL", minWidth: 20 },
      { title: "WHERE", minWidth: 10 },
      { title: "WHAT", minWidth: 20 },
    ],
    changes.map(({ kind, breaking, tool, path, message }) => [
      { text: `${kindName(kind)}${breaking ? ", breaking" : ""}`, style: breaking ? paint.red : paint.green },
      tool,
      path,
      message,
    ]),
    terminal.columns(),
  );
}

function kindName(kind: SchemaChangeKind): string {
  switch (kind) {
    case SchemaChangeKind.ADDED:
      return "+ added";
    case SchemaChangeKind.REMOVED:
      return "- removed";
    case SchemaChangeKind.CHANGED:
    case SchemaChangeKind.UNSPECIFIED:
      return "~ changed";
  }
}
