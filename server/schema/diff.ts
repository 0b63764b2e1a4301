import { create, type JsonObject } from "@bufbuild/protobuf";
import {
  type SchemaChange,
  SchemaChangeKind,
  SchemaChangeSchema,
} from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { type FieldChange, SchemaComparison } from "./schema-comparison.ts";

/** A tool's schemas, as a discovery found them. */
export interface ToolSchemas {
  readonly name: string;
  readonly inputSchema: JsonObject;
  readonly outputSchema: JsonObject;
}

/** Changes of one tool beyond this many are summed up in one. */
const MAX_CHANGES = 100;

/**
 * How the tools of two discoveries differ, field by field. A change is breaking when a caller that knows only the
 * earlier schema can fail: its arguments are no longer accepted, or a result is no longer what it was.
 */
export function diffTools(before: readonly ToolSchemas[], after: readonly ToolSchemas[]): SchemaChange[] {
  const later = new Map(after.map((tool) => [tool.name, tool]));
  const earlier = new Set(before.map(({ name }) => name));
  const removedOrChanged = before.flatMap((tool) => {
    const next = later.get(tool.name);
    return next === undefined
      ? [
          change(tool.name, {
            path: "",
            kind: SchemaChangeKind.REMOVED,
            breaking: true,
            message: "the tool was removed",
          }),
        ]
      : diffTool(tool, next);
  });
  const added = after
    .filter(({ name }) => !earlier.has(name))
    .map(({ name }) =>
      change(name, {
        path: "",
        kind: SchemaChangeKind.ADDED,
        breaking: false,
        message: "the tool was added",
      }),
    );
  return [...removedOrChanged, ...added];
}

function change(tool: string, init: FieldChange): SchemaChange {
  return create(SchemaChangeSchema, { tool, ...init });
}

function diffTool(before: ToolSchemas, after: ToolSchemas): SchemaChange[] {
  const changes = [
    ...new SchemaComparison("input", before.inputSchema, after.inputSchema).run(),
    ...new SchemaComparison("output", before.outputSchema, after.outputSchema).run(),
  ];
  // Breaking changes are not what is left out.
  const shown = [
    ...changes.filter(({ breaking }) => breaking),
    ...changes.filter(({ breaking }) => !breaking),
  ];
  const cut = shown.slice(MAX_CHANGES);
  return [
    ...shown.slice(0, MAX_CHANGES).map((each) => change(before.name, each)),
    ...(cut.length === 0
      ? []
      : [
          change(before.name, {
            path: "",
            kind: SchemaChangeKind.CHANGED,
            breaking: cut.some(({ breaking }) => breaking),
            message: `${cut.length} more changes`,
          }),
        ]),
  ];
}
