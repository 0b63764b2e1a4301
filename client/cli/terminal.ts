import type { DescMessage, JsonValue, MessageShape } from "@bufbuild/protobuf";
import type { Command } from "commander";
import pico from "picocolors";
import type { Colors } from "picocolors/types.js";
import { hasColors, type Io, write } from "./io.ts";
import type { ColumnsOptions } from "./output/columns.ts";

/** How a command speaks to whoever runs it. */
export interface Terminal {
  readonly io: Io;
  /** One JSON document instead of text for people. */
  readonly json: boolean;
  /** Colours for stdout, and for stderr. */
  readonly paint: Colors;
  readonly paintErr: Colors;
  /** The command as it is run, for its help. */
  readonly command: Command;
  /** Writes a line to stdout. */
  print(text?: string): Promise<void>;
  /** Writes a line to stderr, for people. */
  note(text?: string): Promise<void>;
  /** Writes one JSON document to stdout: indented on a terminal, on one line elsewhere. */
  printJson(value: JsonValue): Promise<void>;
  /** Writes a message as its JSON, with fields that have their default value too. */
  printMessage<D extends DescMessage>(schema: D, message: MessageShape<D>): Promise<void>;
  /** How tables fit this output. */
  columns(indent?: string): ColumnsOptions;
}

export function createTerminal(
  io: Io,
  command: Command,
  options: { readonly json: boolean; readonly color: boolean },
): Terminal {
  const paint = pico.createColors(hasColors(io.stdout, io.env, options.color));
  const paintErr = pico.createColors(hasColors(io.stderr, io.env, options.color));
  const print = (text = "") => write(io.stdout, `${text}\n`);
  const printJson = async (value: JsonValue) => {
    const { formatJson } = await import("./output/json.ts");
    await print(formatJson(value, { indent: io.stdout.isTTY === true, paint }));
  };
  return {
    io,
    json: options.json,
    paint,
    paintErr,
    command,
    print,
    note: (text = "") => write(io.stderr, `${text}\n`),
    printJson,
    async printMessage(schema, message) {
      const { toJson } = await import("@bufbuild/protobuf");
      await printJson(toJson(schema, message, { alwaysEmitImplicit: true }));
    },
    columns: (indent = "") => ({
      width: io.stdout.isTTY === true ? io.stdout.columns : undefined,
      titleStyle: paint.dim,
      indent,
    }),
  };
}
