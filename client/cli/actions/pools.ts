import {
  type ListPoolsResponse,
  ListPoolsResponseSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { PoolConnection } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import type { Context } from "../context.ts";
import { renderColumns } from "../output/columns.ts";
import { renderFacts } from "../output/facts.ts";
import { formatDuration, formatNumber, formatShare } from "../output/format.ts";

export async function pools(context: Context, origin: string | undefined): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.listPools({ origin: origin ?? "" }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(ListPoolsResponseSchema, response));
  if (response.connections.length === 0) {
    await context.note(
      origin === undefined ? "No connection is open." : `No connection to ${origin} is open.`,
    );
  } else {
    await context.print(`${renderConnections(context, response.connections)}\n`);
  }
  await context.print(renderTotals(context, response));
}

function renderConnections(context: Context, connections: readonly PoolConnection[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "CONNECTION", minWidth: 20 },
      { title: "PROTOCOL" },
      { title: "STATE" },
      { title: "AGE", align: "right" },
      { title: "IDLE", align: "right" },
      { title: "RUNNING", align: "right" },
      { title: "REQUESTS", align: "right" },
      { title: "FAILED", align: "right" },
    ],
    connections.map((connection) => [
      { text: connection.origin, style: paint.bold },
      connection.protocol === "h2" ? "HTTP/2" : "HTTP/1.1",
      connection.state,
      formatDuration(connection.age),
      formatDuration(connection.idle),
      formatNumber(connection.activeRequests),
      formatNumber(connection.requests),
      { text: formatNumber(connection.failures), style: connection.failures > 0n ? paint.yellow : String },
    ]),
    context.columns(),
  );
}

function renderTotals({ paint }: Context, response: ListPoolsResponse): string {
  const { requests, reused, opened, connectFailures, closures, waiting, meanWait, maxWait } = response;
  return renderFacts(paint, [
    ["Requests", formatNumber(requests)],
    ["Used again", requests > 0n ? formatShare(Number(reused) / Number(requests)) : ""],
    ["Opened", `${formatNumber(opened)}, and ${formatNumber(connectFailures)} failed to`],
    [
      "Closed",
      closures
        .filter(({ count }) => count > 0n)
        .map(({ reason, count }) => `${formatNumber(count)} ${reason}`)
        .join(", "),
    ],
    [
      "Waiting",
      `${formatNumber(waiting)}; ${formatDuration(meanWait)} on average, ${formatDuration(maxWait)} at most`,
    ],
  ]);
}
