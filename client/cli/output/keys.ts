import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type ApiKey, ApiKeyState } from "@toolplane/gen/toolplane/admin/v1/api_key_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Terminal } from "../terminal.ts";
import { type Cell, renderColumns } from "./columns.ts";
import { formatAge, timestampMs } from "./format.ts";

/** A table of keys. */
export function renderKeys(terminal: Terminal, keys: readonly ApiKey[]): string {
  const { paint, io } = terminal;
  const now = io.now();
  return renderColumns(
    [
      { title: "NAME", minWidth: 8 },
      { title: "ROLE" },
      { title: "ID" },
      { title: "STATE" },
      { title: "EXPIRES" },
      { title: "LAST USE", optional: true },
      { title: "CREATED", optional: true },
      { title: "BY", optional: true },
    ],
    keys.map((key) => [
      key.name,
      roleName(key.role),
      key.id,
      keyState(key.state, paint),
      key.expireTime === undefined ? "never" : formatMinute(key.expireTime),
      formatAge(key.lastUseTime, now),
      formatAge(key.createTime, now),
      key.createdBy,
    ]),
    terminal.columns(),
  );
}

export function roleName(role: Role): string {
  switch (role) {
    case Role.UNSPECIFIED:
      return "unknown";
    case Role.PUBLIC:
      return "public";
    case Role.READER:
      return "reader";
    case Role.CALLER:
      return "caller";
    case Role.OPERATOR:
      return "operator";
  }
}

/** Day and minute in the user's zone: `2026-11-21 14:03`. */
export function formatMinute(time: Timestamp | undefined): string {
  if (time === undefined) return "";
  const date = new Date(timestampMs(time));
  const pad = (n: number) => String(n).padStart(2, "0");
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

function keyState(state: ApiKeyState, paint: Colors): Exclude<Cell, string> {
  switch (state) {
    case ApiKeyState.ACTIVE:
      return { text: "● active", style: paint.green };
    case ApiKeyState.EXPIRED:
      return { text: "▲ expired", style: paint.yellow };
    case ApiKeyState.REVOKED:
      return { text: "✗ revoked", style: paint.red };
    case ApiKeyState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}
