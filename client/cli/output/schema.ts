import type { JsonObject } from "@bufbuild/protobuf";
import type { Context } from "../context.ts";
import { schemaRows, wholeValue } from "../schema/schema-rows.ts";
import { renderColumns } from "./columns.ts";

/** What a JSON Schema allows, as a table of fields. */
export function renderSchema(context: Context, schema: JsonObject | undefined, isInput: boolean): string {
  const { paint } = context;
  const rows = schemaRows(schema ?? {});
  if (rows.length === 0) return renderWhole(context, schema) ?? paint.dim(isInput ? "  none" : "  empty");
  return renderColumns(
    [
      { title: "NAME" },
      { title: "TYPE", minWidth: 14 },
      { title: isInput ? "REQUIRED" : "" },
      { title: "DESCRIPTION", minWidth: 24, wraps: true },
    ],
    rows.map(({ path, type, need, description }) => [
      { text: path, style: paint.bold },
      { text: type, style: paint.cyan },
      isInput ? need : "",
      description,
    ]),
    context.columns("  "),
  );
}

/** A message that is no object with fields: it is a value itself, such as a time or any JSON. */
function renderWhole(context: Context, schema: JsonObject | undefined): string | undefined {
  const { paint } = context;
  const value = schema === undefined ? undefined : wholeValue(schema);
  if (value === undefined) return undefined;
  return renderColumns(
    [{ title: "TYPE" }, { title: "DESCRIPTION", minWidth: 24, wraps: true }],
    [[{ text: value.type, style: paint.cyan }, value.description]],
    context.columns("  "),
  );
}
