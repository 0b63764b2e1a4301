import { ListLimitsResponseSchema } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { type Limit, LimitKind } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import type { LimitsOptions } from "../commands/limits.ts";
import type { Context } from "../context.ts";
import { parseLimit } from "../input/limit.ts";
import { renderColumns } from "../output/columns.ts";
import { durationMs, formatMs, formatNumber } from "../output/format.ts";

/** The most keys of a level that the server returns. */
const MAX_KEYS = 1000;

export async function limits(
  context: Context,
  level: string | undefined,
  options: LimitsOptions,
): Promise<undefined> {
  const pageSize = Math.min(parseLimit(options.limit), MAX_KEYS);
  const { admin } = await context.connect();
  const response = await admin.listLimits({ level: level ?? "", pageSize }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(ListLimitsResponseSchema, response));
  if (response.limits.length === 0) {
    return void (await context.note(
      level === undefined ? "No limit was used yet." : `No limit of the level "${level}" was used yet.`,
    ));
  }
  await context.print(renderLimits(context, response.limits));
}

function renderLimits(context: Context, all: readonly Limit[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "LEVEL" },
      { title: "KEY", minWidth: 16 },
      { title: "LIMIT" },
      { title: "LEFT", align: "right" },
      { title: "WAITING", align: "right", optional: true },
      { title: "ALLOWED", align: "right" },
      { title: "REFUSED", align: "right" },
      { title: "COUNTED IN", optional: true },
    ],
    all.map((limit) => [
      limit.level,
      { text: limit.key, style: paint.bold },
      limitText(limit),
      { text: formatNumber(limit.remaining), style: limit.remaining < 1 ? paint.red : String },
      formatNumber(limit.waiting),
      formatNumber(limit.allowed),
      { text: formatNumber(limit.refused), style: limit.refused > 0n ? paint.yellow : String },
      limit.store,
    ]),
    context.columns(),
  );
}

function limitText({ kind, limit, period, burst }: Limit): string {
  switch (kind) {
    case LimitKind.RATE: {
      const per = period === undefined ? "" : ` in ${formatMs(durationMs(period))}`;
      return `${formatNumber(limit)}${per}${burst > 0 ? `, ${formatNumber(burst)} at once` : ""}`;
    }
    case LimitKind.CONCURRENCY:
      return `${formatNumber(limit)} at once`;
    case LimitKind.ADAPTIVE_RATE:
      return `${formatNumber(limit)} a second, adaptive`;
    case LimitKind.UNSPECIFIED:
      return formatNumber(limit);
  }
}
