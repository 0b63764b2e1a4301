import {
  ListCachesResponseSchema,
  PurgeCacheResponseSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { Cache, Deduplication } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import type { PurgeCacheOptions } from "../commands/caches.ts";
import type { Context } from "../context.ts";
import { renderColumns } from "../output/columns.ts";
import { count, formatBytes, formatNumber, formatShare } from "../output/format.ts";

export async function listCaches(context: Context): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.listCaches({}, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(ListCachesResponseSchema, response));
  const { caches, deduplications } = response;
  if (caches.length + deduplications.length === 0) {
    return void (await context.note("The server keeps no answers and shares no calls."));
  }
  if (caches.length > 0) await context.print(renderCaches(context, caches));
  if (deduplications.length > 0) {
    const title = context.paint.bold("Shared calls");
    await context.print(
      `${caches.length > 0 ? "\n" : ""}${title}\n${renderDeduplications(context, deduplications)}`,
    );
  }
}

export async function purgeCache(
  context: Context,
  name: string | undefined,
  { tool }: PurgeCacheOptions,
): Promise<undefined> {
  const { admin } = await context.connect();
  const request = { name: name ?? "", tool: tool ?? "" };
  const response = await admin.purgeCache(request, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(PurgeCacheResponseSchema, response));
  await context.print(`${context.paint.green("✓")} Dropped ${count(Number(response.purged), "answer")}`);
}

function renderCaches(context: Context, caches: readonly Cache[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "CACHE", minWidth: 10 },
      { title: "ANSWERS", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "OF", align: "right", optional: true },
      { title: "HITS", align: "right" },
      { title: "FROM MEMORY", align: "right", optional: true },
      { title: "FROM DATABASE", align: "right", optional: true },
      { title: "STALE", align: "right", optional: true },
      { title: "MISSES", align: "right" },
      { title: "EVICTED", align: "right", optional: true },
      { title: "TAMPERED", align: "right" },
      { title: "SAVED", align: "right" },
    ],
    caches.map((cache) => [
      { text: cache.name, style: paint.bold },
      formatNumber(cache.entries),
      formatBytes(cache.bytes),
      formatBytes(cache.maxBytes),
      { text: formatShare(cache.hitRate), style: paint.cyan },
      formatNumber(cache.memoryHits),
      cache.durable ? formatNumber(cache.durableHits) : "",
      formatNumber(cache.staleHits),
      formatNumber(cache.misses),
      formatNumber(cache.evictions),
      { text: formatNumber(cache.tampered), style: cache.tampered > 0n ? paint.red : String },
      cache.tokensSaved > 0n
        ? `${count(Number(cache.tokensSaved), "token")}, $${cache.costSavedUsd.toFixed(2)}`
        : "",
    ]),
    context.columns(),
  );
}

function renderDeduplications(context: Context, sharings: readonly Deduplication[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "OF", minWidth: 10 },
      { title: "IN FLIGHT", align: "right" },
      { title: "CARRIED OUT", align: "right" },
      { title: "JOINED", align: "right" },
      { title: "SHARED", align: "right" },
      { title: "NO ROOM", align: "right", optional: true },
      { title: "CANCELLED", align: "right", optional: true },
    ],
    sharings.map((sharing) => [
      { text: sharing.name, style: paint.bold },
      `${formatNumber(sharing.inFlight)}/${formatNumber(sharing.maxInFlight)}`,
      formatNumber(sharing.led),
      formatNumber(sharing.joined),
      { text: formatShare(sharing.shareRate), style: paint.cyan },
      formatNumber(sharing.overflowed),
      formatNumber(sharing.cancelled),
    ]),
    context.columns(),
  );
}
